"""Samples of more than 8 bits, signed or floating-point, to 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dcu.image.container import log

OUTLIERS = 0.01
"""Share of the samples that may lie outside the range that they are scaled from; they are clipped."""
WHITES = (1.0, 255.0, 65535.0, 2.0**32 - 1)
"""What white is in images whose type does not state it; 1 for floating-point samples only."""
Samples = NDArray[Any]


def value_range(read: Callable[[], Iterable[Samples]], kind: str, bits: int) -> tuple[float, float]:
    """The values of black and white.

    Unsigned samples of up to 16 bits use their full range, signed ones that from 0 on unless there are negative ones.
    Wider and floating-point samples rarely do: white is the smallest of :data:`WHITES` that is not exceeded.

    Parameters
    ----------
    read
        Yields all samples of the image, piece by piece.
    kind
        ``u``, ``i`` or ``f``: unsigned, signed, floating point.
    bits
        Bits of a sample.
    """
    most = float(2 ** (bits - (kind == "i")) - 1)
    if kind == "u" and bits <= 16:
        return 0, most
    total = negative = undefined = 0
    above = np.zeros(len(WHITES), np.int64)
    largest = 0.0
    for part in read():
        samples = part.astype(np.float32) if part.dtype == np.float16 else part
        total += samples.size
        negative += int(np.count_nonzero(samples < 0))
        above += [int(np.count_nonzero(samples > white)) for white in WHITES]
        if kind == "f":
            undefined += int(np.count_nonzero(np.isnan(samples)))
            largest = max(largest, float(np.max(samples, initial=0, where=np.isfinite(samples))))
    if undefined:
        log.warning("%d samples are not numbers; they are black", undefined)
    if kind == "i" and bits <= 16:
        return (-most - 1 if negative > OUTLIERS * total else 0), most
    if kind == "i" and negative > OUTLIERS * total:
        return -most - 1, most
    candidates = WHITES if kind == "f" else [white for white in WHITES[1:] if white < most]
    fallback = largest if kind == "f" else most
    enough = (w for w in candidates if above[WHITES.index(w)] <= OUTLIERS * total)
    return 0, next(enough, fallback)


def to_bytes(samples: Samples, black: float, white: float) -> NDArray[np.uint8]:
    """Samples between black and white as 0 to 255, clipped."""
    exact = np.float64 if samples.dtype.itemsize > 2 else np.float32
    shifted = np.subtract(samples, black, dtype=exact)
    scaled = np.multiply(shifted, 255 / (white - black), out=shifted)
    np.nan_to_num(scaled, copy=False, nan=0, posinf=255, neginf=0)
    return np.asarray(np.rint(np.clip(scaled, 0, 255, out=scaled), out=scaled), np.uint8)
