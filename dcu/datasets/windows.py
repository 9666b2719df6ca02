"""Cuts training windows for codecs out of photographs."""

from __future__ import annotations

import hashlib
import io
import random

import numpy as np
from PIL import Image

from dcu.errors import InvalidInputError
from dcu.image import open_image

WINDOW = 192
SCALES = (0.35, 0.9)
"""Photographs are reduced by a random factor of this range, which removes the artifacts of their own compression."""
MIN_SHORT_SIDE = 214
"""Shorter images are skipped: reduced by 0.9 they would not hold a window."""
MIN_DEVIATION = 6.0
"""Windows with a smaller standard deviation of 8-bit values are skipped."""
MAX_WINDOWS = 4
OVERLAP = 48
"""Windows of one photograph overlap by about this many pixels at most, in each direction."""
MAX_PIXELS = 60_000_000


def digest(data: bytes) -> str:
    """The hash of a photograph's file: it seeds its scale and windows, and orders the choice of held-out ones."""
    return hashlib.sha256(data).hexdigest()


def read_rgb(data: bytes, draft: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """An image in RGB, and its size in the file.

    With ``draft``, JPEG images are decoded faster at a reduced size, of at least that many pixels on each side.

    Raises
    ------
    InvalidInputError
        Not an image, damaged, or of more than ``MAX_PIXELS``.
    """
    try:
        with open_image(data) as image:
            size = image.size
            if size[0] * size[1] > MAX_PIXELS:
                raise InvalidInputError("the image is too large")
            if draft:
                image.draft("RGB", (draft, draft))
            return image.convert("RGB"), size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidInputError("not an image") from error


def windows(image: Image.Image, seed: str, limit: int = MAX_WINDOWS) -> list[Image.Image]:
    """At most ``limit`` windows of 192x192 of an RGB image, which is reduced first; the same for the same seed."""
    short = min(image.size)
    if short < MIN_SHORT_SIDE:
        return []
    chance = random.Random(seed)
    scale = chance.uniform(max(SCALES[0], WINDOW / short), SCALES[1])
    width, height = (max(WINDOW, round(side * scale)) for side in image.size)
    reduced = image.resize((width, height), Image.Resampling.LANCZOS)
    corners = [(left, top) for top in positions(height, chance) for left in positions(width, chance)]
    chance.shuffle(corners)
    found: list[Image.Image] = []
    for left, top in corners:
        window = reduced.crop((left, top, left + WINDOW, top + WINDOW))
        if len(found) < limit and float(np.std(np.asarray(window))) > MIN_DEVIATION:
            found.append(window)
    return found


def positions(length: int, chance: random.Random) -> list[int]:
    """Where windows start along a side of ``length`` pixels: evenly spaced, the row of them shifted at random."""
    count = (length + OVERLAP) // WINDOW
    room = length - WINDOW
    stride = WINDOW if count * WINDOW <= length else room // max(1, count - 1)
    offset = chance.randint(0, room - stride * (count - 1))
    return [offset + stride * i for i in range(count)]


def encode(window: Image.Image) -> bytes:
    """A window as PNG."""
    out = io.BytesIO()
    window.save(out, "PNG", compress_level=3)
    return out.getvalue()
