"""Reads and encodes the images of data sets."""

from __future__ import annotations

import io

from PIL import Image

from dcu.errors import InvalidInputError
from dcu.image import open_image

MAX_PIXELS = 60_000_000


def read_image(data: bytes, draft: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """An image as it is decoded, and its size (width, height) in the file.

    With ``draft``, JPEG images are decoded faster at a reduced size, of at least that many pixels on each side.

    Raises
    ------
    InvalidInputError
        Not an image, damaged, or of more than ``MAX_PIXELS``.
    """
    try:
        image = open_image(data)
        size = image.size
        if size[0] * size[1] > MAX_PIXELS:
            raise InvalidInputError("the image is too large")
        if draft:
            image.draft("RGB", (draft, draft))
        image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidInputError("not an image") from error
    return image, size


def jpeg(image: Image.Image, short_side: int | None = None) -> bytes:
    """An image as JPEG of quality 92, reduced to a short side of at most ``short_side`` pixels."""
    image = image.convert("RGB")
    if short_side and min(image.size) > short_side:
        scale = short_side / min(image.size)
        width, height = (max(short_side, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=92, subsampling=2, optimize=True)
    return out.getvalue()


def label_map(image: Image.Image, palette: list[int]) -> bytes:
    """A map of class numbers as an indexed PNG with the palette given."""
    numbers = image if image.mode == "P" else image.convert("L")
    indexed = Image.frombytes("P", numbers.size, numbers.tobytes())
    indexed.putpalette(palette)
    out = io.BytesIO()
    indexed.save(out, "PNG", optimize=True)
    return out.getvalue()


def png(image: Image.Image) -> bytes:
    """An image as PNG, compressed quickly."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=3)
    return out.getvalue()
