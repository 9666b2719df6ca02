"""Names of colors under an image."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dcu.image.arrays import ImageArray

SIZES, PER_WIDTH = (11, 48), 60
"""Height of the letters in pixels, which grows with the width of the image."""
LONGEST = 64
"""Characters of a name that are drawn: bounds memory."""
SPARE = 2**20
"""Pixels of a strip that may be larger than the image: bounds memory for images of few rows."""


def with_legend(image: ImageArray, names: Iterable[tuple[str, tuple[int, int, int]]]) -> ImageArray:
    """The image (H, W, 3) with a strip below it, (H + h, W, 3): a square of each color and its name, black on white.

    Without the strip where that would have more pixels than the image and ``SPARE``.
    """
    height, width = image.shape[:2]
    size = min(max(SIZES[0], width // PER_WIDTH), SIZES[1])
    font = ImageFont.load_default(size)
    places, x, y = [], 0, 0
    for name, color in ((name[:LONGEST], color) for name, color in names):
        wide = round(size * 2.5 + font.getlength(name))
        if x and x + wide > width:
            x, y = 0, y + 2 * size
        places.append((x, y, name, color))
        x += wide
    if (y + 2 * size) * width > max(SPARE, height * width):
        return image
    strip = Image.new("RGB", (width, y + 2 * size), "white")
    draw = ImageDraw.Draw(strip)
    for x, y, name, color in places:
        top, left = y + size // 2, x + size // 2
        draw.rectangle((left, top, left + size - 1, top + size - 1), fill=color)
        draw.text((left + round(1.5 * size), y + size), name, fill="black", font=font, anchor="lm")
    return np.concatenate([image, np.asarray(strip)])
