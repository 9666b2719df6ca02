"""Any image file to an RGB array, and back; padding and cropping.

The rest of dcu sees one kind of image only: (H, W, 3) uint8, sRGB, upright, opaque.
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

from dcu.errors import InvalidInputError, OutputError, UsageError
from dcu.geometry import CROP, RESIZE

ImageArray = NDArray[np.uint8]
"""(H, W, 3) uint8, sRGB."""

MAX_PIXELS = 2**28
SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".j2k", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif"}
    | {".tiff", ".webp"}
)
"""Files in a directory that are taken for images."""

LARGEST_SIDE = {"JPEG": 65500, "WEBP": 16383, "GIF": 65535, "TGA": 65535}
"""In pixels; libjpeg would print a line of its own."""
PROGRAMS = frozenset({"EPS"})
"""What Pillow would have Ghostscript run."""
RESIZING = frozenset({"ICO", "ICNS", "CUR"})

Image.MAX_IMAGE_PIXELS = MAX_PIXELS


def read_image(data: bytes, background: str = "white") -> ImageArray:
    """Decode the bytes of an image file.

    EXIF orientation is applied, an embedded ICC profile converted to sRGB, transparency laid on ``background``
    (any name or #rrggbb that Pillow knows); of an animation, the first frame.

    Raises
    ------
    InvalidInputError
        Not an image, damaged, or larger than 2^28 pixels.
    UsageError
        ``background`` is not a color.
    """
    behind = parse_color(background)
    if not data:
        raise InvalidInputError("empty file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data)) as opened:
                if opened.format in PROGRAMS:
                    raise InvalidInputError(f"{opened.format} is a program, not an image")
                check_size(*opened.size)
                opened.load()
                check_size(*opened.size)  # of an icon only now
                color, alpha = split_alpha(upright(opened))
                return lay_on(to_srgb(color, opened.info.get("icc_profile")), alpha, behind)
        except UnidentifiedImageError as error:
            raise InvalidInputError("not an image that Pillow can read") from error
        except Image.DecompressionBombError as error:
            raise InvalidInputError("more than 2^28 pixels") from error
        except (InvalidInputError, MemoryError):
            raise
        except Exception as error:  # decoders raise nearly anything on damaged files
            raise InvalidInputError(f"damaged image ({error})") from error


def from_pillow(image: Image.Image) -> ImageArray:
    """A Pillow image as :func:`read_image` reads its file, on white; raises InvalidInputError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            color, alpha = split_alpha(upright(image))
            return lay_on(to_srgb(color, image.info.get("icc_profile")), alpha, parse_color("white"))
        except (InvalidInputError, MemoryError):
            raise
        except Exception as error:  # decoders raise nearly anything on damaged files
            raise InvalidInputError(f"damaged image ({error})") from error


def check_size(width: int, height: int) -> None:
    """Raise InvalidInputError where an image has more than 2^28 pixels."""
    if width * height > MAX_PIXELS:
        raise InvalidInputError(f"{width}x{height} is more than 2^28 pixels")


def parse_color(name: str) -> tuple[int, int, int]:
    """A color by name or #rrggbb; raises UsageError."""
    try:
        red, green, blue, *_ = ImageColor.getrgb(name)
    except ValueError as error:
        raise UsageError(f"{name}: not a color") from error
    return red, green, blue


def upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF orientation says; EXIF that cannot be read says nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # its parser raises nearly anything too
        return image


def split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Color (L, RGB or CMYK, 8 bits) and opacity (L), if there is any transparency."""
    if image.mode.startswith("I") or image.mode == "F":
        return scaled_gray(image), None
    if not image.has_transparency_data:
        return (image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")), None
    alpha = image.convert("RGBA").getchannel("A")
    return image.convert("L" if image.mode == "LA" else "RGB"), alpha


def scaled_gray(image: Image.Image) -> Image.Image:
    """Gray of 16 bits (or of 32, or floating point) to 8 bits by scaling; Pillow would clip it."""
    values = np.asarray(image)
    if image.mode == "F":
        if not np.isfinite(values).all():
            raise InvalidInputError("gray values that are not numbers")
        return Image.fromarray(np.clip(np.rint(values * (255 if values.max() <= 1 else 1)), 0, 255).astype(np.uint8))
    if values.max() > 65535:
        values = values >> 15  # the other 32-bit images there are: 31 bits
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
            pass  # a broken profile, or one for another color space, says nothing of use
    return image.convert("RGB")


def lay_on(color: Image.Image, alpha: Image.Image | None, behind: tuple[int, int, int]) -> ImageArray:
    """An RGB image on a plain background, as an array."""
    if alpha is not None:
        color = Image.composite(color, Image.new("RGB", color.size, behind), alpha)
    return np.asarray(color, dtype=np.uint8)


def pad(image: ImageArray, multiple: int) -> ImageArray:
    """Repeat the last row and column until both sides are multiples; ``image[:H, :W]`` crops back."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")


def resize(image: ImageArray, width: int, height: int, filter: Image.Resampling) -> ImageArray:
    """Resample to width x height, antialiased where it shrinks."""
    if (height, width) == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), filter))


def standard_resize(image: ImageArray) -> ImageArray:
    """The field's protocol before its crop: a short side of ``RESIZE`` (bicubic).

    An image that is CROP x CROP already stays as it is.
    """
    height, width = image.shape[:2]
    if height == width == CROP:
        return image
    scale = RESIZE / min(height, width)
    width, height = max(RESIZE, round(width * scale)), max(RESIZE, round(height * scale))
    return resize(image, width, height, Image.Resampling.BICUBIC)


def standard_crop(image: ImageArray) -> ImageArray:
    """The field's protocol: the center ``CROP`` x ``CROP`` of :func:`standard_resize`."""
    image = standard_resize(image)
    height, width = image.shape[:2]
    top, left = (height - CROP) // 2, (width - CROP) // 2
    return image[top : top + CROP, left : left + CROP]


def encoder(path: Path) -> Callable[[ImageArray], bytes]:
    """A function that encodes an image in the format that the name's ending says; PNG for a name without one.

    Raises
    ------
    UsageError
        Pillow writes no such format, or not images in color of any size.
    """
    suffix = path.suffix.lower() or ".png"
    format = Image.registered_extensions().get(suffix, "")
    options: dict[str, Any] = {"quality": 95} if format in ("JPEG", "WEBP", "AVIF") else {}

    def encode(image: ImageArray) -> bytes:
        if max(image.shape) > LARGEST_SIDE.get(format, MAX_PIXELS):
            raise OutputError(f"{path}: too large for {format}")
        out = io.BytesIO()
        try:
            Image.fromarray(image).save(out, format, **options)
        except MemoryError:
            raise
        except Exception as error:  # encoders raise nearly anything on images that their format cannot hold
            raise OutputError(f"{path}: cannot be written as {format} ({error})") from error
        return out.getvalue()

    try:
        if format in RESIZING:
            raise OutputError(f"{format} resizes images")
        encode(np.zeros((8, 8, 3), np.uint8))
    except OutputError as error:
        raise UsageError(f"{path}: no format for photographs that Pillow can write is called {suffix}") from error
    return encode


def psnr(image: ImageArray, decoded: ImageArray) -> float:
    """Peak signal to noise ratio in dB over all three channels: 10 log10(255^2 / MSE)."""
    error = np.square(image.astype(np.float64) - decoded).mean()
    return math.inf if error == 0 else float(10 * math.log10(255**2 / error))
