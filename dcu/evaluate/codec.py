"""Rate and distortion on real files."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from dcu.cards import Rates
from dcu.codec import Codec
from dcu.coding import FixedRate
from dcu.data import Item
from dcu.encoding import Encoding
from dcu.entropy import float_context
from dcu.errors import UnavailableError
from dcu.image import ImageArray, psnr

TIMES = ("encode_ms", "decode_ms")
"""Metrics of this machine, not of the codec."""
MEASURED_POINTS = 10
"""Of a codec of many operating points."""
MS_SSIM_SHORT = 161
"""Shortest side that five scales with a window of 11 allow."""


def ms_ssim(image: ImageArray, decoded: ImageArray) -> float:
    """Multi-scale structural similarity (Wang et al. 2003) by pytorch-msssim; NaN for images under 161 pixels."""
    try:
        from pytorch_msssim import ms_ssim as measure
    except ImportError as error:
        raise UnavailableError("pytorch-msssim is not installed: pip install 'dcu-codec[bench]'") from error
    if min(image.shape[:2]) < MS_SSIM_SHORT:
        return math.nan
    x, y = (torch.from_numpy(p.copy()).permute(2, 0, 1)[None].float() for p in (image, decoded))
    return float(measure(x, y, data_range=255.0))


def measure(
    encode: Callable[[ImageArray], bytes],
    decoder: Callable[[ImageArray], Callable[[bytes], ImageArray]],
    images: Iterable[ImageArray],
) -> dict[str, Any]:
    """Write each image to a whole file, read it back, decode it; ``decoder`` gives an image's own way back.

    Returns
    -------
    dict
        ``count``; means over images: ``bytes``, ``bpp``, ``psnr`` in dB, ``ms_ssim``, the latter three with standard
        errors; medians: ``encode_ms``, ``decode_ms``.
    """
    rows = []
    for image in images:
        decode = decoder(image)
        started = time.perf_counter()
        data = encode(image)
        encoded = time.perf_counter()
        decoded = decode(data)
        times = (1e3 * (encoded - started), 1e3 * (time.perf_counter() - encoded))
        area = image.shape[0] * image.shape[1]
        rows.append((len(data), 8 * len(data) / area, psnr(image, decoded), ms_ssim(image, decoded), *times))
    size, bpp, quality, similarity, encoding, decoding = np.array(rows).T
    return {
        "count": len(rows),
        "bytes": round(float(size.mean()), 2),
        **mean("bpp", bpp, 5),
        **mean("psnr", quality, 3),
        **mean("ms_ssim", similarity, 5),
    } | {name: round(float(np.median(times)), 2) for name, times in zip(TIMES, (encoding, decoding), strict=True)}


def mean(name: str, values: NDArray[np.float64], digits: int) -> dict[str, float | None]:
    """The mean of values and its standard error, by names; None where a value is no number, or there is one only."""
    if np.isnan(values).any():
        return {name: None, f"{name}_se": None}
    error = round(float(values.std(ddof=1)) / math.sqrt(len(values)), digits) if len(values) > 1 else None
    return {name: round(float(values.mean()), digits), f"{name}_se": error}


def bits_per_symbol(codec: Codec, items: Iterable[Item]) -> dict[str, Any]:
    """What the context model of a codec of one rate saves, on the same symbols.

    Returns
    -------
    dict
        ``symbols``, how many; bits a symbol: ``integer``, as the tables that files are written with ask for;
        ``floating``, by the same model in float32; ``histogram``, by how often each channel has each symbol in these
        images, no context.
    """
    coding = codec.coding
    if not isinstance(coding, FixedRate):
        raise TypeError(f"{codec.name} has more than one rate")
    context = float_context(coding.entropy.tensors)
    counts = torch.zeros(codec.channels, max(coding.levels))
    integer = floating = 0.0
    for item in items:
        symbols = codec.analyze(item.image())
        one_hot = F.one_hot(symbols.long(), max(coding.levels)).float()  # (C, h, w, L)
        counts += one_hot.sum((1, 2))
        integer += coding.entropy.cross_entropy(symbols)
        latent = coding.quantizer.latent(symbols[None].to(codec.device)).cpu()
        floating += float(context.bits(latent, one_hot.permute(0, 3, 1, 2)[None]))
    total = float(counts.sum())
    plain = -(counts * (counts / counts.sum(1, keepdim=True)).clamp(min=1e-12).log2()).sum()
    bits = {"integer": integer, "floating": floating, "histogram": float(plain)}
    return {"symbols": int(total)} | {name: round(value / total, 4) for name, value in bits.items()}


def measured_rates(codec: Codec, dataset: str, images: Iterable[ImageArray]) -> Rates:
    """The mean rate of each operating point of a codec, as its card states it."""
    rates, estimates = [], []
    codec.of_estimate = (1.0,) * codec.points
    for image in images:
        encoding, area = Encoding(codec, image), image.shape[0] * image.shape[1]
        rates.append([8 * len(encoding.write(q)) / area for q in range(codec.points)])
        estimates.append([bits / area for bits in encoding.estimated_bits()])
    rate, estimate = np.mean(rates, 0), np.mean(estimates, 0)
    return Rates(dataset, len(rates), tuple(rate.round(5).tolist()), tuple((rate / estimate).round(4).tolist()))


def measured_points(codec: Codec) -> list[int | None]:
    """The operating points at which a codec is measured: ten from the lowest to the highest; None for its only one."""
    return [None] if codec.points == 1 else [round(q) for q in np.linspace(0, codec.points - 1, MEASURED_POINTS)]


def evaluate(codec: Codec, images: Iterable[ImageArray], quality: int | None = None) -> dict[str, Any]:
    """A codec's metrics on images at an operating point, as :func:`measure` gives them."""
    stated = {} if quality is None else {"quality": quality}
    return stated | measure(partial(codec.compress, quality=quality), lambda _: codec.decode, images)
