"""Rate and distortion on real files."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from dcu.codec import Codec
from dcu.data import Item
from dcu.errors import UnavailableError
from dcu.image import Picture

MS_SSIM_SHORT = 161
"""Shortest side that five scales with a window of 11 allow."""


def psnr(picture: Picture, decoded: Picture) -> float:
    """Peak signal to noise ratio in dB over all three channels: 10 log10(255^2 / MSE)."""
    error = np.square(picture.astype(np.float64) - decoded).mean()
    return math.inf if error == 0 else float(10 * math.log10(255**2 / error))


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


def evaluate(codec: Codec, items: Iterable[Item]) -> dict[str, Any]:
    """Compress each picture to a whole file, read it back, decode it.

    Returns
    -------
    dict
        ``count``; means over pictures: ``bytes``, ``bpp``, ``psnr`` in dB, ``ms_ssim``.
    """
    rows = []
    for item in items:
        picture = item.picture()
        data = codec.compress(picture)
        decoded = codec.decode(data)
        area = picture.shape[0] * picture.shape[1]
        rows.append((len(data), 8 * len(data) / area, psnr(picture, decoded), ms_ssim(picture, decoded)))
    size, bpp, quality, similarity = np.array(rows).T
    return {
        "count": len(rows),
        "bytes": round(float(size.mean()), 2),
        "bpp": round(float(bpp.mean()), 5),
        "psnr": round(float(quality.mean()), 3),
        "ms_ssim": None if np.isnan(similarity).any() else round(float(similarity.mean()), 5),
    }
