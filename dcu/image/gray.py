"""Samples of more than 8 bits, signed or floating-point, to 8 bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dcu.image.container import log

OUTLIERS = 0.01
"""Share of the samples that may lie outside the range that they are scaled from; they are clipped."""
HIGHLIGHT = 16.0
"""Floating-point samples that are not larger are taken as 0 to 1 with highlights."""
INTEGER_BITS = (8, 16, 32)
FLOAT_BITS = (8, 10, 12, 14, 16, 24, 32)
"""What else white can be: the largest integer of so many bits."""
Samples = NDArray[Any]


def value_range(read: Callable[[], Iterable[Samples]], kind: str, bits: int) -> tuple[float, float]:
    """The values of black and white.

    Unsigned samples of up to 16 bits use their full range, signed ones that from 0 on unless there are negative ones.
    Wider and floating-point samples rarely do: white is the smallest value that hardly any sample exceeds, of those
    that are usual.

    Parameters
    ----------
    read
        Yields all samples of the image, piece by piece.
    kind
        ``u``, ``i`` or ``f``: unsigned, signed, floating point.
    bits
        Bits of a sample.
    """
    most = math.inf if kind == "f" else 2.0 ** (bits - (kind == "i")) - 1
    if kind == "u" and bits <= 16:
        return 0, most
    limits = [2.0**n - 1 for n in (FLOAT_BITS if kind == "f" else INTEGER_BITS) if n < bits or kind == "f"]
    whites = [1.0, *limits] if kind == "f" else [*limits, most]
    total = negative = undefined = 0
    above = np.zeros(len(whites), np.int64)
    for part in read():
        samples = part.astype(np.float32) if part.dtype.str[1:] == "f2" else part
        total += samples.size
        negative += int(np.count_nonzero(samples < 0))
        above += [int(np.count_nonzero(samples > (HIGHLIGHT if white == 1 else white))) for white in whites]
        undefined += int(np.count_nonzero(np.isnan(samples))) if kind == "f" else 0
    if undefined:
        log.warning("%d samples are not numbers; they are black", undefined)
    if kind == "i" and negative > OUTLIERS * total:
        return -most - 1, most
    if kind == "i" and bits <= 16:
        return 0, most
    return 0, next((white for white, n in zip(whites, above, strict=True) if n <= OUTLIERS * total), whites[-1])


def to_bytes(samples: Samples, black: float, white: float) -> NDArray[np.uint8]:
    """Samples between black and white as 0 to 255, clipped."""
    exact = np.float64 if samples.dtype.itemsize > 2 else np.float32
    shifted = np.subtract(samples, black, dtype=exact)
    scaled = np.multiply(shifted, 255 / (white - black), out=shifted)
    np.nan_to_num(scaled, copy=False, nan=0, posinf=255, neginf=0)
    return np.asarray(np.rint(np.clip(scaled, 0, 255, out=scaled), out=scaled), np.uint8)
