"""Cuts training windows for codecs out of photographs."""

from __future__ import annotations

import hashlib
import random

import numpy as np
from PIL import Image

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


def digest(data: bytes) -> str:
    """The hash of a photograph's file: it seeds its scale and windows, and orders the choice of held-out ones."""
    return hashlib.sha256(data).hexdigest()


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
