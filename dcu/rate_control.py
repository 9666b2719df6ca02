"""Which operating point fits a budget of bytes, or reaches a PSNR: searches that know nothing of networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from PIL import Image

from dcu.errors import UsageError
from dcu.image import ImageArray, resize

RATE = 0.0983
"""Bits per pixel that codecs of many operating points use by default."""
TRIES = 6
"""Images that :func:`fitting` reduces to find a size whose bitstream fits."""
SYNTHESES = 6
"""Images that :func:`reaching_psnr` decodes at most."""
SMALLEST_SIDE = 8
"""Pixels to which it reduces the shorter side at most."""


class Encoding(Protocol):
    """An image that can be written at operating points 0 to ``points`` - 1, from the lowest rate to the highest."""

    image: ImageArray
    points: int

    def write(self, q: int) -> bytes:
        """The bitstream at an operating point."""

    def psnr(self, q: int) -> float:
        """PSNR in dB at an operating point."""

    def estimated_bits(self) -> Sequence[float]:
        """About how many bits each operating point takes: right in proportion to each other, not in scale."""


def nearest(rates: Sequence[float], rate: float) -> int:
    """The operating point whose rate is nearest to one, in proportion; raises ValueError where that is not positive."""
    if not 0 < rate < math.inf:
        raise ValueError(f"rate must be a positive number of bits per pixel, not {rate:g}")
    return min(range(len(rates)), key=lambda q: abs(math.log(rates[q] / rate)))


def within_bytes(encoding: Encoding, most: int) -> bytes:
    """The bitstream of the highest operating point that has at most so many bytes.

    The estimates, scaled to the last bitstream, name the next; the one above the answer is written, too.

    Raises
    ------
    UsageError
        None fits.
    """
    found, smallest = search(encoding, most)
    if found is None:
        raise UsageError(f"no operating point fits into {most} bytes: the smallest file has {smallest}")
    return found


def search(encoding: Encoding, most: int) -> tuple[bytes | None, int]:
    """The bitstream of the highest operating point that fits, or None; and the bytes of the lowest that was written."""
    bits = np.array(encoding.estimated_bits())
    low, high = -1, encoding.points  # what is known to fit, and what is known not to
    best, sizes = None, []
    scale = 1.0
    while low + 1 < high:
        q = int(np.clip(np.searchsorted(bits * scale, 8 * most, side="right") - 1, low + 1, high - 1))
        data = encoding.write(q)
        sizes.append(len(data))
        scale = 8 * len(data) / bits[q]
        if len(data) > most:
            high = q
            continue
        low, best = q, data
    return best, min(sizes)


def reaching_psnr(encoding: Encoding, least: float) -> bytes:
    """The bitstream of the lowest operating point with at least so many dB; raises UsageError where none has."""
    low, high, reached = -1, encoding.points, 0.0
    for _ in range(SYNTHESES):  # of 64 operating points each is distinguished, but for the lowest two
        if low + 1 < high:
            q = (low + high + 1) // 2
            reached = encoding.psnr(q)
            low, high = (low, q) if reached >= least else (q, high)
    if high == encoding.points:
        raise UsageError(f"no operating point reaches {least:g} dB: the highest gives {reached:.2f}")
    return encoding.write(high)


def fitting(encoding: Encoding, encode: Callable[[ImageArray], Encoding], most: int) -> bytes:
    """As :func:`within_bytes`, of the image reduced as far as it must be; raises UsageError where that is too far.

    Bits fall about as the number of pixels does; each try reduces the image by as much as is missing.
    """
    image = encoding.image
    height, width = image.shape[:2]
    share = 1.0
    for left in reversed(range(TRIES + 1)):
        found, smallest = search(encoding, most)
        if found is not None:
            return found
        share *= max(0.1, 0.97 * math.sqrt(most / smallest))
        size = max(1, round(width * share)), max(1, round(height * share))
        if not left or min(size) < min(SMALLEST_SIDE, width, height):
            break
        encoding = encode(resize(image, *size, Image.Resampling.LANCZOS))
    raise UsageError(f"nothing fits into {most} bytes, not even a smaller image")
