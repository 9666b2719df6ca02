"""RGB arrays to image files, in the format that the extension stands for."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from dcu.errors import OutputError, UsageError
from dcu.image.arrays import ImageArray
from dcu.image.formats import WRITTEN
from dcu.image.limits import MAX_PIXELS

LARGEST_SIDE = {"JPEG": 65500, "WEBP": 16383, "GIF": 65535, "TGA": 65535, "PCX": 65535, "SGI": 65535}
"""In pixels; libjpeg would print a line of its own."""
OPTIONS: dict[str, dict[str, object]] = {
    **{suffix: {"quality": 95} for suffix in (".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif")},
    **{suffix: {"no_jp2": True} for suffix in (".j2k", ".j2c", ".jpc")},
}


def encoder(path: Path, exif: bytes = b"") -> Callable[[ImageArray], bytes]:
    """A function that encodes an image in the format that the extension stands for; PNG for a name without one.

    ``exif`` is written into formats that have a place for it.

    Raises
    ------
    UsageError
        Pillow writes no such format, or not images in color of any size.
    """
    suffix = path.suffix.lower() or ".png"
    format = WRITTEN.get(suffix, "")
    Image.init()
    if format not in Image.SAVE:
        raise UsageError(f"{path}: cannot write {suffix}; choose from: {', '.join(sorted(WRITTEN))}")

    def encode(image: ImageArray) -> bytes:
        if max(image.shape) > LARGEST_SIDE.get(format, MAX_PIXELS):
            raise OutputError(f"{path}: too large for {format}")
        out = io.BytesIO()
        try:
            Image.fromarray(image).save(out, format, **OPTIONS.get(suffix, {}), **({"exif": exif} if exif else {}))
        except MemoryError:
            raise
        except Exception as error:  # encoders raise nearly anything on images that their format cannot hold
            raise OutputError(f"{path}: cannot be written as {format} ({error})") from error
        return out.getvalue()

    return encode


def jpeg_url(image: Image.Image, **settings: int) -> str:
    """An image as a data: URL that holds a JPEG file, which PDF holds as it is."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **settings)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
