"""A codec by itself, without labels: rate and distortion, time, cost."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec

import numpy as np
import torch

from dcu.bench.accuracy import within
from dcu.bench.points import OperatingPoint
from dcu.bench.table import Table, machine
from dcu.codec import Codec, codec_of
from dcu.data import Item
from dcu.errors import UnavailableError
from dcu.evaluate.codec import evaluate
from dcu.evaluate.cost import codec_cost
from dcu.image import ImageArray

HD = (1080, 1920)
"""Height and width of the image that is timed on one thread."""


@dataclass(frozen=True)
class CodecRow:
    """A codec at an operating point.

    Parameters
    ----------
    count : int
        Images that the next values are of, at their own size.
    bytes, bpp, psnr, ms_ssim : float
        Means over whole files; MS-SSIM is None for images that are too small.
    encode_ms, decode_ms : float
        Medians per image, on ``threads`` threads.
    encode_hd_ms, decode_hd_ms : float
        Of one image of 1920x1080 on one thread of the CPU.
    analysis_macs, synthesis_macs, context_macs : int
        Per pixel, of the context model at this operating point; 1 MAC = 2 FLOPs.
    """

    codec: str
    quality: int | None
    count: int
    bytes: float
    bpp: float
    psnr: float
    ms_ssim: float | None
    encode_ms: float
    decode_ms: float
    encode_hd_ms: float
    decode_hd_ms: float
    analysis_macs: int
    synthesis_macs: int
    context_macs: int
    threads: int
    machine: str
    date: str


def check_packages() -> None:
    """Raise UnavailableError where a package that this needs is missing: before anything is measured."""
    if find_spec("pytorch_msssim") is None:
        raise UnavailableError("pytorch_msssim is not installed: pip install 'dcu-codec[bench]'")


def codec_row(
    point: OperatingPoint,
    items: Sequence[Item],
    show: Callable[[Sequence[Item]], Iterable[Item]],
    seconds: float,
    device: str,
) -> CodecRow:
    """Measure a codec on images, in so many seconds on as many of them, one at least; ``show`` wraps them."""
    codec, first = codec_of(point.model.identity, device), items[0].image()
    codec.decode(codec.compress(first, quality=point.quality))  # to warm up
    reached = evaluate(codec, (item.image() for item in within(show(items), seconds)), point.quality)
    encode_hd, decode_hd = hd_milliseconds(codec_of(point.model.identity), first, point.quality)
    cost = codec_cost(codec, point.quality)
    return CodecRow(
        point.model.name,
        point.quality,
        *(reached.count, reached.bytes, reached.bpp, reached.psnr, reached.ms_ssim),
        *(reached.encode_ms, reached.decode_ms, encode_hd, decode_hd),
        *(cost.analysis, cost.synthesis, cost.context),
        threads=torch.get_num_threads(),
        machine=machine(),
        date=datetime.date.today().isoformat(),
    )


def hd_milliseconds(codec: Codec, image: ImageArray, quality: int | None) -> tuple[float, float]:
    """Milliseconds of encoding and of decoding one image of 1920x1080 on one thread: ``image`` and its reflections."""
    height, width = image.shape[:2]
    missing = [(0, max(0, HD[0] - height)), (0, max(0, HD[1] - width)), (0, 0)]
    whole = np.pad(image, missing, mode="symmetric")[: HD[0], : HD[1]]
    with one_thread():
        codec.decode(codec.compress(image, quality=quality))  # to warm up
        started = time.perf_counter()
        data = codec.compress(whole, quality=quality)
        encoded = time.perf_counter()
        codec.decode(data)
        decoded = time.perf_counter()
    return round(1e3 * (encoded - started), 1), round(1e3 * (decoded - encoded), 1)


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch and the coder compute on one thread within."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def columns(rows: Iterable[CodecRow]) -> Table:
    """The rows as a table for people."""
    left_out = ("machine", "date", "threads", *(f"{part}_macs" for part in ("analysis", "synthesis", "context")))

    def shown(row: CodecRow) -> dict[str, object]:
        values = {key: value for key, value in asdict(row).items() if key not in left_out}
        if row.quality is None:
            del values["quality"]
        costs = (row.analysis_macs, row.synthesis_macs, row.context_macs)
        return values | {
            f"k MACs {part}": round(cost / 1e3, 1)
            for part, cost in zip(("analysis", "synthesis", "context"), costs, strict=True)
        }

    return [shown(row) for row in rows]
