"""Any picture file to an RGB array, and back; padding and cropping.

The rest of dcu sees one kind of picture only: (H, W, 3) uint8, sRGB, upright, opaque.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageColor, ImageOps, UnidentifiedImageError

from dcu.errors import BrokenInputError, OutputError, UsageError

Picture = NDArray[np.uint8]
"""(H, W, 3) uint8, sRGB."""

MAX_PIXELS = 2**28
SIDE, SHORT = 224, 256
"""The field's protocol: pixels a side of what a network sees, of a picture of that short side."""
SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".j2k", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif"}
    | {".tiff", ".webp"}
)
"""Files in a folder that are taken for pictures."""

LARGEST_SIDE = {"JPEG": 65500, "WEBP": 16383, "GIF": 65535, "TGA": 65535}
"""In pixels; libjpeg would print a line of its own."""
PROGRAMS = frozenset({"EPS"})
"""What Pillow would have Ghostscript run."""
RESIZING = frozenset({"ICO", "ICNS", "CUR"})

Image.MAX_IMAGE_PIXELS = MAX_PIXELS


def read_picture(data: bytes, background: str = "white") -> Picture:
    """Decode the bytes of a picture file.

    EXIF orientation is applied, an embedded ICC profile converted to sRGB, transparency laid on ``background``
    (any name or #rrggbb that Pillow knows); of an animation, the first frame.

    Raises
    ------
    BrokenInputError
        Not a picture, damaged, or larger than 2^28 pixels.
    UsageError
        ``background`` is not a colour.
    """
    behind = parse_colour(background)
    if not data:
        raise BrokenInputError("empty file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data)) as opened:
                if opened.format in PROGRAMS:
                    raise BrokenInputError(f"{opened.format} is a program, not a picture")
                check_size(*opened.size)
                opened.load()
                check_size(*opened.size)  # of an icon only now
                colour, alpha = split_alpha(upright(opened))
                return lay_on(to_srgb(colour, opened.info.get("icc_profile")), alpha, behind)
        except UnidentifiedImageError as error:
            raise BrokenInputError("not a picture that Pillow can read") from error
        except Image.DecompressionBombError as error:
            raise BrokenInputError("more than 2^28 pixels") from error
        except (BrokenInputError, MemoryError):
            raise
        except Exception as error:  # decoders raise nearly anything on damaged files
            raise BrokenInputError(f"damaged picture ({error})") from error


def check_size(width: int, height: int) -> None:
    """Raise BrokenInputError where a picture has more than 2^28 pixels."""
    if width * height > MAX_PIXELS:
        raise BrokenInputError(f"{width}x{height} is more than 2^28 pixels")


def parse_colour(name: str) -> tuple[int, int, int]:
    """A colour by name or #rrggbb; raises UsageError."""
    try:
        red, green, blue, *_ = ImageColor.getrgb(name)
    except ValueError as error:
        raise UsageError(f"{name}: not a colour") from error
    return red, green, blue


def upright(image: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF orientation says; EXIF that cannot be read says nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # its parser raises nearly anything too
        return image


def split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colour (L, RGB or CMYK, 8 bits) and opacity (L), if there is any transparency."""
    if image.mode.startswith("I") or image.mode == "F":
        return scaled_grey(image), None
    if not image.has_transparency_data:
        return (image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")), None
    alpha = image.convert("RGBA").getchannel("A")
    return image.convert("L" if image.mode == "LA" else "RGB"), alpha


def scaled_grey(image: Image.Image) -> Image.Image:
    """Grey of 16 bits (or of 32, or floating point) to 8 bits by scaling; Pillow would clip it."""
    values = np.asarray(image)
    if image.mode == "F":
        if not np.isfinite(values).all():
            raise BrokenInputError("grey values that are not numbers")
        return Image.fromarray(np.clip(np.rint(values * (255 if values.max() <= 1 else 1)), 0, 255).astype(np.uint8))
    if values.max() > 65535:
        values = values >> 15  # the other 32-bit pictures there are: 31 bits
    values = np.maximum(values, 0).astype(np.uint32)
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB by the embedded profile, if there is a usable one; by Pillow's plain rules otherwise."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError):
            pass  # a broken profile, or one for another colour space, says nothing of use
    return image.convert("RGB")


def lay_on(colour: Image.Image, alpha: Image.Image | None, behind: tuple[int, int, int]) -> Picture:
    """An RGB picture on a plain background, as an array."""
    if alpha is not None:
        colour = Image.composite(colour, Image.new("RGB", colour.size, behind), alpha)
    return np.asarray(colour, dtype=np.uint8)


def pad(picture: Picture, multiple: int) -> Picture:
    """Repeat the last row and column until both sides are multiples; ``picture[:H, :W]`` crops back."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")


def resize(picture: Picture, width: int, height: int, filter: Image.Resampling) -> Picture:
    """Resample to width x height, antialiased where it shrinks."""
    if (height, width) == picture.shape[:2]:
        return picture
    return np.asarray(Image.fromarray(picture).resize((width, height), filter))


def field_size(picture: Picture) -> Picture:
    """The field's protocol before its crop: a short side of ``SHORT`` (bicubic).

    A picture that is SIDE x SIDE already stays as it is.
    """
    height, width = picture.shape[:2]
    if height == width == SIDE:
        return picture
    scale = SHORT / min(height, width)
    width, height = max(SHORT, round(width * scale)), max(SHORT, round(height * scale))
    return resize(picture, width, height, Image.Resampling.BICUBIC)


def field_crop(picture: Picture) -> Picture:
    """The field's protocol: the centre ``SIDE`` x ``SIDE`` of :func:`field_size`."""
    picture = field_size(picture)
    height, width = picture.shape[:2]
    top, left = (height - SIDE) // 2, (width - SIDE) // 2
    return picture[top : top + SIDE, left : left + SIDE]


def encoder(path: Path) -> Callable[[Picture], bytes]:
    """A function that encodes a picture in the format that the name's ending says; PNG for a name without one.

    Raises
    ------
    UsageError
        Pillow writes no such format, or not pictures in colour of any size.
    """
    suffix = path.suffix.lower() or ".png"
    format = Image.registered_extensions().get(suffix, "")
    options: dict[str, Any] = {"quality": 95} if format in ("JPEG", "WEBP", "AVIF") else {}

    def encode(picture: Picture) -> bytes:
        if max(picture.shape) > LARGEST_SIDE.get(format, MAX_PIXELS):
            raise OutputError(f"{path}: too large for {format}")
        out = io.BytesIO()
        try:
            Image.fromarray(picture).save(out, format, **options)
        except MemoryError:
            raise
        except Exception as error:  # encoders raise nearly anything on pictures that their format cannot hold
            raise OutputError(f"{path}: cannot be written as {format} ({error})") from error
        return out.getvalue()

    try:
        if format in RESIZING:
            raise OutputError(f"{format} resizes pictures")
        encode(np.zeros((8, 8, 3), np.uint8))
    except OutputError as error:
        raise UsageError(f"{path}: no format for photographs that Pillow can write is called {suffix}") from error
    return encode


def psnr(picture: Picture, decoded: Picture) -> float:
    """Peak signal to noise ratio in dB over all three channels: 10 log10(255^2 / MSE)."""
    error = np.square(picture.astype(np.float64) - decoded).mean()
    return math.inf if error == 0 else float(10 * math.log10(255**2 / error))
