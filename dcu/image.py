"""Any picture file to an RGB array, and back; padding and cropping.

The rest of dcu sees one kind of picture only: (H, W, 3) uint8, sRGB, upright, opaque.
"""

from __future__ import annotations

import io
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
SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".j2k", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif"}
    | {".tiff", ".webp"}
)
"""Files in a folder that are taken for pictures."""

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
    if not data:
        raise BrokenInputError("empty file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data)) as opened:
                width, height = opened.size
                if width * height > MAX_PIXELS:
                    raise BrokenInputError(f"{width}x{height} is more than 2^28 pixels")
                opened.load()
                upright = ImageOps.exif_transpose(opened)
        except UnidentifiedImageError as error:
            raise BrokenInputError("not a picture that Pillow can read") from error
        except Image.DecompressionBombError as error:
            raise BrokenInputError("more than 2^28 pixels") from error
        except BrokenInputError:
            raise
        except Exception as error:  # decoders raise nearly anything on damaged files
            raise BrokenInputError(f"damaged picture ({error})") from error
        return np.asarray(to_srgb(flatten(upright, background)), dtype=np.uint8)


def flatten(image: Image.Image, background: str) -> Image.Image:
    """Lay a transparent picture on a plain background, and scale deep grey to 8 bits."""
    if image.mode.startswith("I") or image.mode == "F":
        return scaled_grey(image)
    if image.has_transparency_data:
        try:
            colour = ImageColor.getcolor(background, "RGBA")
        except ValueError as error:
            raise UsageError(f"{background}: not a colour") from error
        profile = image.info.get("icc_profile")
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, colour), over).convert("RGB")
        if profile:
            image.info["icc_profile"] = profile
    return image


def scaled_grey(image: Image.Image) -> Image.Image:
    """Grey of 16 bits (or of 32, or floating point) to 8 bits by scaling; Pillow would clip it."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise BrokenInputError("grey values that are not numbers")
    if image.mode == "F":
        white = 1.0 if values.max() <= 1.0 else 255.0
    elif image.mode == "I":
        white = 65535.0 if values.max() <= 65535 else float(2**31 - 1)
    else:
        white = 65535.0
    return Image.fromarray(np.clip(np.rint(values * (255.0 / white)), 0, 255).astype(np.uint8))


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert by the embedded profile, if there is a usable one; by Pillow's plain rules otherwise."""
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "CMYK", "L"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError):
            pass  # a broken profile, or one for another colour space, says nothing of use
    return image.convert("RGB")


def pad(picture: Picture, multiple: int) -> Picture:
    """Repeat the last row and column until both sides are multiples; ``picture[:H, :W]`` crops back."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")


def resize(picture: Picture, width: int, height: int, filter: Image.Resampling) -> Picture:
    """Resample to width x height, antialiased where it shrinks."""
    if (height, width) == picture.shape[:2]:
        return picture
    return np.asarray(Image.fromarray(picture).resize((width, height), filter))


def field_crop(picture: Picture, side: int, short: int) -> Picture:
    """The field's protocol: short side to ``short`` (bicubic), centre ``side`` x ``side``.

    A picture that is side x side already is taken whole.
    """
    height, width = picture.shape[:2]
    if height == width == side:
        return picture
    scale = short / min(height, width)
    width, height = max(short, round(width * scale)), max(short, round(height * scale))
    picture = resize(picture, width, height, Image.Resampling.BICUBIC)
    top, left = (height - side) // 2, (width - side) // 2
    return picture[top : top + side, left : left + side]


def encoder(path: Path) -> Callable[[Picture], bytes]:
    """A function that encodes a picture in the format that the name's ending says; PNG for a name without one.

    Raises
    ------
    UsageError
        Pillow writes no such format.
    """
    suffix = path.suffix.lower() or ".png"
    format = Image.registered_extensions().get(suffix)
    if format is None or format not in Image.SAVE:
        raise UsageError(f"{path}: no picture format that Pillow can write is called {suffix}")
    options: dict[str, Any] = {"quality": 95} if format in ("JPEG", "WEBP", "AVIF") else {}

    def encode(picture: Picture) -> bytes:
        out = io.BytesIO()
        try:
            Image.fromarray(picture).save(out, format, **options)
        except (OSError, ValueError) as error:  # too large for the format, say
            raise OutputError(f"{path}: cannot be written as {format} ({error})") from error
        return out.getvalue()

    return encode
