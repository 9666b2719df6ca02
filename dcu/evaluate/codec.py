"""Rate and distortion on real files."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial

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

MEASURED_POINTS = 10
"""Of a codec of many operating points."""
MS_SSIM_SHORT = 161
"""Shortest side that five scales with a window of 11 allow."""


@dataclass(frozen=True)
class Point:
    """Metrics of a codec at an operating point, or of a format at a setting: means over ``count`` files.

    ``psnr`` in dB; ``*_se``: standard errors; medians of ``encode_ms`` and ``decode_ms``. None: not known, or not
    a number.
    """

    name: str
    quality: int | None
    setting: str | None
    count: int
    bytes: float
    bpp: float
    bpp_se: float | None
    psnr: float
    psnr_se: float | None
    ms_ssim: float | None
    ms_ssim_se: float | None
    encode_ms: float
    decode_ms: float

    def row(self) -> dict[str, object]:
        """The same for a table, without an operating point or setting where there is none."""
        return {k: v for k, v in asdict(self).items() if v is not None or k not in ("quality", "setting")}


@dataclass(frozen=True)
class BitsPerSymbol:
    """What the context model of a codec saves on ``symbols`` symbols, in bits per symbol.

    ``integer``: as the tables that files are written with ask for; ``floating``: the same model in float32;
    ``histogram``: by how often each channel has each symbol in these images, no context.
    """

    symbols: int
    integer: float
    floating: float
    histogram: float


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
    name: str,
    quality: int | None,
    setting: str | None,
    encode: Callable[[ImageArray], bytes],
    decoder: Callable[[ImageArray], Callable[[bytes], ImageArray]],
    images: Iterable[ImageArray],
) -> Point:
    """Write each image to a whole file, read it back, decode it; ``decoder`` gives an image's own way back."""
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
    size, bpp, distortion, similarity, encoding, decoding = np.array(rows).T
    similar = (None, None) if np.isnan(similarity).any() else mean(similarity, 5)
    took = (round(float(np.median(column)), 2) for column in (encoding, decoding))
    return Point(
        *(name, quality, setting, len(rows), round(float(size.mean()), 2)),
        *(*mean(bpp, 5), *mean(distortion, 3), *similar, *took),
    )


def mean(values: NDArray[np.float64], digits: int) -> tuple[float, float | None]:
    """The mean of values and its standard error, which one value has not."""
    error = round(float(values.std(ddof=1)) / math.sqrt(len(values)), digits) if len(values) > 1 else None
    return round(float(values.mean()), digits), error


def bits_per_symbol(codec: Codec, items: Iterable[Item]) -> BitsPerSymbol:
    """What the context model of a codec of one rate saves."""
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
    return BitsPerSymbol(int(total), *(round(bits / total, 4) for bits in (integer, floating, float(plain))))


def measured_rates(codec: Codec, dataset: str, images: Iterable[ImageArray], machines: bool = False) -> Rates:
    """The mean rate of each operating point of a codec as its card states it, of streams for machines or for people."""
    rates, estimates = [], []
    codec.rates[machines] = None
    for image in images:
        encoding, area = Encoding(codec, image, machines=machines), image.shape[0] * image.shape[1]
        rates.append([8 * len(encoding.write(q)) / area for q in range(codec.points)])
        estimates.append([bits / area for bits in encoding.estimated_bits()])
    rate, estimate = np.mean(rates, 0), np.mean(estimates, 0)
    return Rates(dataset, len(rates), tuple(rate.round(5).tolist()), tuple((rate / estimate).round(4).tolist()))


def measured_points(codec: Codec) -> list[int | None]:
    """The operating points at which a codec is measured: ten from the lowest to the highest; None for its only one."""
    return [None] if codec.points == 1 else [round(q) for q in np.linspace(0, codec.points - 1, MEASURED_POINTS)]


def evaluate(codec: Codec, images: Iterable[ImageArray], quality: int | None = None, machines: bool = False) -> Point:
    """A codec's metrics on images at an operating point, of streams for machines or for people."""
    compress = partial(codec.compress, quality=quality, machines=machines)
    return measure(codec.name, quality, None, compress, lambda _: codec.decode, images)
