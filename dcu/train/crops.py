"""Crops to train a codec on, some with what photographs rarely hold: areas of one color, gray, text, line art."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dcu.image import ImageArray

FLAT, GRAY, DRAWN = 0.05, 0.02, 0.02
"""Share of crops with a rectangle of one color, without color, and with text or line art instead of a photograph."""
WHOLE, SATURATED = 0.15, 0.5
"""Share of such rectangles that fill the crop, and of those whose color is saturated."""
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;-+()/%$@"


def varied(crop: ImageArray, rng: np.random.Generator) -> ImageArray:
    """The crop (H, W, 3) uint8, or what is shown in its place."""
    kind = rng.random()
    if kind < FLAT:
        return with_flat_rectangle(crop, rng)
    if kind < FLAT + GRAY:
        return np.asarray(Image.fromarray(crop).convert("L").convert("RGB"))
    if kind < FLAT + GRAY + DRAWN:
        return drawing(crop.shape[1], crop.shape[0], rng)
    return crop


def with_flat_rectangle(crop: ImageArray, rng: np.random.Generator) -> ImageArray:
    """The crop with a rectangle of one color, of which each channel may be 0 or 255."""
    height, width = crop.shape[:2]
    top, bottom = sorted(rng.integers(0, height + 1, 2))
    left, right = sorted(rng.integers(0, width + 1, 2))
    if rng.random() < WHOLE:
        top, bottom, left, right = 0, height, 0, width
    out = crop.copy()
    out[top:bottom, left:right] = 255 * rng.integers(0, 2, 3) if rng.random() < SATURATED else rng.integers(0, 256, 3)
    return out


def drawing(width: int, height: int, rng: np.random.Generator) -> ImageArray:
    """Lines of text, or straight lines and ellipses, on a plain background, as (H, W, 3) uint8."""
    background, *inks = (tuple(int(v) for v in rng.integers(0, 256, 3)) for _ in range(4))
    image = Image.new("RGB", (width, height), background)
    draw = ImageDraw.Draw(image)
    if rng.random() < 0.5:
        size = int(rng.integers(8, 33))
        font = ImageFont.load_default(size)
        for top in range(0, height, size + size // 4):
            text = "".join(rng.choice(list(LETTERS + " " * 12), width // 3))
            draw.text((int(rng.integers(-20, 20)), top), text, fill=inks[0], font=font)
    else:
        for _ in range(int(rng.integers(3, 25))):
            box = [tuple(int(v) for v in rng.integers(-10, (width + 10, height + 10))) for _ in range(2)]
            ink, thick = inks[int(rng.integers(3))], int(rng.integers(1, 6))
            if rng.random() < 0.6:
                draw.line(box, fill=ink, width=thick)
            else:
                (x0, y0), (x1, y1) = box
                draw.ellipse((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), outline=ink, width=thick)
    return np.asarray(image)
