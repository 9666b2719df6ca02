"""Any image file to an RGB array: (H, W, 3) uint8, sRGB, upright, opaque."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dcu.errors import DcuError, InvalidInputError, MissingInputError
from dcu.image import fax, jpeg, libtiff, png, tiff
from dcu.image.arrays import ImageArray
from dcu.image.color import Color, parse_color
from dcu.image.container import Container, log, xmp_orientation
from dcu.image.directory import orientation
from dcu.image.formats import kind, open_image, reason
from dcu.image.gray import Samples, to_bytes, value_range
from dcu.image.limits import check_size, max_pixels, too_large
from dcu.image.samples import SampleLayout
from dcu.image.strips import Strip, assemble, load, pillow_strips, rows

PAGED = frozenset({"AVIF", "DCX", "FLI", "GIF", "HEIF", "IM", "WEBP"})
"""Formats whose other frames are images like the first, and neither layers nor previews."""


def read_image(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview, background: str = "white"
) -> ImageArray:
    """Decode an image file in any format that `dcu formats` lists.

    EXIF orientation is applied, an embedded ICC profile converted to sRGB, transparency laid on ``background``
    (any name or #rrggbb that Pillow knows); of several pages or frames, the first is read. Defects of a file
    that can still be read are logged (logger ``dcu``, level WARNING).

    Parameters
    ----------
    source
        A path, or the content of a file.
    background
        The color behind transparent pixels.

    Returns
    -------
    ImageArray
        (H, W, 3) uint8, sRGB.

    Raises
    ------
    TypeError
        ``source`` is neither a path nor bytes.
    MissingInputError
        The file cannot be read.
    InvalidInputError
        Not an image, damaged, of an unsupported kind, or of more than 2^28 pixels (or ``DCU_MAX_PIXELS``).
    UnavailableError
        The format needs a package that is not installed.
    UsageError
        ``background`` is not a color, or ``DCU_MAX_PIXELS`` not a number.
    """
    behind = parse_color(background)
    max_pixels()
    data = content(source)
    if not data:
        raise InvalidInputError("empty file")
    with decoder_errors():
        return decode(data, behind)


def from_pillow(image: Image.Image) -> ImageArray:
    """A Pillow image as its file would be read, on white; raises InvalidInputError."""
    with decoder_errors():
        return assemble(image.size, pillow_strips(load(image)), described(image), parse_color("white"))


@contextmanager
def decoder_errors() -> Iterator[None]:
    """Raise InvalidInputError for whatever decoders raise on damaged files, which is nearly anything."""
    try:
        yield
    except (DcuError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise too_large("its size") from error
    except Exception as error:
        raise InvalidInputError(f"{kind(error)} image ({reason(error)})") from error


def content(source: object) -> bytes:
    """The bytes of a file, by its path or by themselves; raises TypeError and MissingInputError."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"an image must be a path or bytes, not {type(source).__name__}")
    try:
        return Path(source).read_bytes()
    except (OSError, ValueError) as error:
        raise MissingInputError(f"{os.fspath(source)}: {getattr(error, 'strerror', None) or error}") from error


def decode(data: bytes, behind: Color) -> ImageArray:
    """The image of a file, by the reader of its format."""
    if data.startswith(png.SIGNATURE):
        image, strips, file = from_png(data)
    elif data.startswith(b"\xff\xd8\xff"):
        file = jpeg.parse(data, lambda clean: load(open_sized(clean, "JPEG")))
        image = load(open_sized(file.data, "JPEG"))
        strips = pillow_strips(image)
    elif tiff.accepts(data):
        return from_tiff(data, behind)
    else:
        image = open_sized(data)
        file = described(image)
        strips = pillow_strips(load(image))
    note_images(file)
    return assemble(image.size, strips, file, behind)


def open_sized(data: bytes, *formats: str) -> Image.Image:
    """An image in one of the formats, or in any, that is not too large; nothing is decoded yet."""
    image = open_image(data, formats) if formats else open_image(data)
    check_size(*image.size)
    return image


def note_images(file: Container) -> None:
    """Tell the user that a file has more images than one."""
    if file.images > 1:
        log.warning("%d images, the first is taken", file.images)


def described(image: Image.Image) -> Container:
    """What a file says beside its pixels, as far as Pillow's reader has found it."""
    exif, xmp, profile = (
        found if isinstance(found := image.info.get(name), bytes) else b"" for name in ("exif", "xmp", "icc_profile")
    )
    turned = orientation(exif)
    if turned == 1:
        turned = xmp_orientation(xmp)
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        turned = 1  # applied by the decoder
    try:
        images = int(getattr(image, "n_frames", 1)) if image.format in PAGED else 1
    except Exception:  # damaged behind the first frame
        images = 1
    return Container(image.format or "", b"", turned, profile, images)


def from_png(data: bytes) -> tuple[Image.Image, Iterator[Strip], Container]:
    """A PNG image, its strips, and what its file says."""
    file = png.parse(data)
    image = open_sized(file.container.data, "PNG")
    if not file.transparent:
        return image, pillow_strips(load(image)), file.container
    opaque = opaque_pixels(file, image)

    def strips() -> Iterator[Strip]:
        top = 0
        for color, _ in pillow_strips(image):
            shown = np.unpackbits(opaque[top : top + color.height], axis=1, count=color.width)
            yield color, Image.fromarray(shown * np.uint8(255))
            top += color.height

    return image, strips(), file.container


def opaque_pixels(file: png.PNG, image: Image.Image) -> NDArray[np.uint8]:
    """Where a PNG image does not have its transparent color: one bit per pixel, (H, W / 8)."""
    bits, wanted = file.bits, file.transparent
    differs = np.zeros((image.height, -(-image.width // 8)), np.uint8)
    if bits == 16 and len(wanted) == 3:  # Pillow reads one byte of two
        low = open_sized(file.container.data, "PNG")
        low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]  # type: ignore[attr-defined]
        mark_difference(low, [value & 255 for value in wanted], differs)
        del low
        wanted = tuple(value >> 8 for value in wanted)
    scale = 1 if bits >= 8 else 255 // (2**bits - 1)
    mark_difference(image, [value * scale for value in wanted], differs)
    return differs


def mark_difference(image: Image.Image, color: list[int], differs: NDArray[np.uint8]) -> None:
    """Set the bits of the pixels that do not have a color."""
    top = 0
    for strip in rows(load(image)):
        values = np.asarray(strip.convert("L") if strip.mode == "1" else strip).reshape(strip.height, strip.width, -1)
        differs[top : top + strip.height] |= np.packbits((values != np.array(color)).any(axis=2), axis=1)
        top += strip.height


def from_tiff(data: bytes, behind: Color) -> ImageArray:
    """The image of a TIFF file; raises InvalidInputError where libtiff finds it damaged."""
    with libtiff.errors() as errors:
        try:
            file = tiff.parse(data)
            note_images(file.container)
            if file.samples:
                size, strips = (file.samples.width, file.samples.height), sample_strips(data, file, file.samples)
            else:
                image = load(open_sized(file.container.data, "TIFF"))
                size, strips = image.size, pillow_strips(image)
                if file.directory.number(259, 1) == fax.GROUP3 and fax.damaged(data, file.directory, image):
                    raise InvalidInputError("damaged TIFF image (fax lines)")
            result = assemble(size, strips, file.container, behind)
        except OSError as error:
            raise tiff.refused(errors) or error from error
    if refused := tiff.refused(errors):
        raise refused
    return result


def sample_strips(data: bytes, file: tiff.TIFF, samples: SampleLayout) -> Iterator[Strip]:
    """Strips of a TIFF image whose samples Pillow does not read."""
    colors = 3 if file.photometric == tiff.RGB else 1

    def decoded(packed: bytes) -> NDArray[np.uint8]:
        return np.asarray(load(open_image(packed, ("TIFF",))))

    def read(first: int, last: int) -> Iterator[Samples]:
        return (part[..., first:last] for part in samples.read(data, decoded))

    black, white = value_range(lambda: read(0, colors), samples.kind, samples.bits)
    opaque = 1.0 if samples.kind == "f" else 2.0 ** (samples.bits - (samples.kind == "i")) - 1
    for part in read(0, samples.samples):
        shown = to_bytes(part[..., :colors], black, white)
        if file.photometric == tiff.WHITE_IS_ZERO:
            shown = 255 - shown
        color = Image.fromarray(shown if colors == 3 else shown[..., 0])
        if file.alpha is None:
            yield color, None
            continue
        alpha = Image.fromarray(to_bytes(part[..., colors], 0, opaque))
        if file.alpha:
            color = Image.merge("RGBa", (*color.convert("RGB").split(), alpha)).convert("RGBA").convert("RGB")
        yield color, alpha
