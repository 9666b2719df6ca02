"""Rate and distortion on real files."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from dcu.codec import Codec
from dcu.data import Item
from dcu.errors import UnavailableError
from dcu.image import Picture, psnr

TIMES = ("encode_ms", "decode_ms")
"""Figures of this machine, not of the codec."""
MS_SSIM_SHORT = 161
"""Shortest side that five scales with a window of 11 allow."""


def ms_ssim(picture: Picture, decoded: Picture) -> float:
    """Multi-scale structural similarity (Wang et al. 2003) by pytorch-msssim; NaN for pictures under 161 pixels."""
    try:
        from pytorch_msssim import ms_ssim as measure
    except ImportError as error:
        raise UnavailableError("pytorch-msssim is not installed: pip install 'dcu[bench]'") from error
    if min(picture.shape[:2]) < MS_SSIM_SHORT:
        return math.nan
    x, y = (torch.from_numpy(p.copy()).permute(2, 0, 1)[None].float() for p in (picture, decoded))
    return float(measure(x, y, data_range=255.0))


def measure(
    encode: Callable[[Picture], bytes],
    decoder: Callable[[Picture], Callable[[bytes], Picture]],
    pictures: Iterable[Picture],
) -> dict[str, Any]:
    """Write each picture to a whole file, read it back, decode it; ``decoder`` gives a picture's own way back.

    Returns
    -------
    dict
        ``count``; means over pictures: ``bytes``, ``bpp``, ``psnr`` in dB, ``ms_ssim``; medians: ``encode_ms``,
        ``decode_ms``.
    """
    rows = []
    for picture in pictures:
        decode = decoder(picture)
        started = time.perf_counter()
        data = encode(picture)
        encoded = time.perf_counter()
        decoded = decode(data)
        times = (1e3 * (encoded - started), 1e3 * (time.perf_counter() - encoded))
        area = picture.shape[0] * picture.shape[1]
        rows.append((len(data), 8 * len(data) / area, psnr(picture, decoded), ms_ssim(picture, decoded), *times))
    size, bpp, quality, similarity, encoding, decoding = np.array(rows).T
    return {
        "count": len(rows),
        "bytes": round(float(size.mean()), 2),
        "bpp": round(float(bpp.mean()), 5),
        "psnr": round(float(quality.mean()), 3),
        "ms_ssim": None if np.isnan(similarity).any() else round(float(similarity.mean()), 5),
    } | {name: round(float(np.median(times)), 2) for name, times in zip(TIMES, (encoding, decoding), strict=True)}


def evaluate(codec: Codec, items: Iterable[Item]) -> dict[str, Any]:
    """A codec's figures on a data set, as :func:`measure` gives them."""
    return measure(codec.compress, lambda _: codec.decode, (item.picture() for item in items))
