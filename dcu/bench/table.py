"""A row per pipeline, engine and batch size: cost, accuracy, latency, and ratios to the baseline."""

from __future__ import annotations

import datetime
import os
import platform
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import torch
from PIL import __version__ as pillow_version

from dcu import __version__
from dcu.bench.accuracy import Accuracy, Metrics
from dcu.bench.measure import Timing, peak_mib, runners, time_runners
from dcu.bench.pipelines import TimedPipeline, pipelines
from dcu.bench.points import OperatingPoint
from dcu.data import Item, shown
from dcu.geometry import CROP
from dcu.image import standard_crop

TIMED = 32
"""Images of a data set whose files are timed."""
Table = list[dict[str, object]]
"""Rows of equal keys, for people."""


@dataclass(frozen=True)
class Ratios:
    """Values of a row, each over the baseline's; None where one of them is not known."""

    macs: float | None
    bytes: float | None
    parameters: float | None
    peak_mib: float | None
    top1: float | None


@dataclass(frozen=True, kw_only=True)
class Row(Timing):
    """The timing of a pipeline on one engine at one batch size, its cost and its accuracy.

    Parameters
    ----------
    answer : str
        ``label`` or ``segmentation``.
    bytes, bpp : float
        Means over the files that ``source`` describes, else of those timed, of ``timed_bytes``.
    top1, top5, miou : float or None
        Fractions of 1, where known.
    parameters : int
        Of the network.
    entropy_macs, synthesis_macs, network_macs : int
        1 MAC = 2 FLOPs.
    read_ms, decode_ms, network_ms, ms, ms_10, ms_90, images_per_second : float
        See :class:`dcu.bench.measure.Timing`; decoding includes the synthesis of an image if one is needed.
    peak_mib : float or None
        Resident memory of a batch beyond what was there before.
    speedup : float or None
        Of labels, over the RGB network on the first other format, its fastest engine at that batch size.
    relative : Ratios or None
        Of labels, to that row.
    quality : int or None
        Operating point of a codec that has several.
    """

    codec: str
    name: str
    answer: str
    bytes: float
    bpp: float
    top1: float | None
    top5: float | None
    miou: float | None
    source: str | None
    timed_bytes: float
    parameters: int
    entropy_macs: int
    synthesis_macs: int
    network_macs: int
    peak_mib: float | None
    threads: int
    machine: str
    date: str
    speedup: float | None = None
    relative: Ratios | None = None
    quality: int | None = None

    @property
    def macs(self) -> int:
        """All MACs from file to answer."""
        return self.entropy_macs + self.synthesis_macs + self.network_macs


def bench_point(
    point: OperatingPoint,
    items: Sequence[Item],
    known: Accuracy,
    formats: Sequence[str],
    batches: Sequence[int],
    seconds: float,
    device: str,
    show: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> tuple[list[Row], bool]:
    """All rows of an operating point, and whether they are complete: Ctrl-C keeps what is measured by then."""
    images = [standard_crop(item.image()) for item in shown(items, TIMED)]
    found = pipelines(point, images, formats, known.sides, device)
    entries = runners(found, batches)
    peaks: dict[int, float | None] = {}
    whole = True
    try:
        time_runners(entries, seconds, show)
        for runner in chain(*entries):  # one batch each
            peaks[id(runner)] = peak_mib(runner)
    except KeyboardInterrupt:
        whole = False
    rows = [
        row_of(point, pipeline, known.of(pipeline.pipeline), runner.timing(), peaks.get(id(runner)))
        for pipeline, group in zip(found, entries, strict=True)
        for runner in group
        if runner.milliseconds
    ]
    baselines = [each.name for each in found if formats and each.pipeline.source == formats[0]]
    return compared(rows, baselines[0] if baselines else None), whole


def row_of(point: OperatingPoint, pipeline: TimedPipeline, known: Metrics, timing: Timing, peak: float | None) -> Row:
    """A row without comparison."""
    size = sum(map(len, pipeline.files)) / len(pipeline.files)
    timed = round(size, 1)
    return Row(
        **asdict(timing),
        codec=point.model.name,
        name=pipeline.name,
        answer=pipeline.answer,
        bytes=timed if known.bytes is None else known.bytes,
        bpp=round(8 * size / CROP**2, 4) if known.bpp is None else known.bpp,
        top1=known.top1,
        top5=known.top5,
        miou=known.miou,
        source=known.source,
        timed_bytes=timed,
        parameters=pipeline.parameters,
        entropy_macs=pipeline.macs.entropy,
        synthesis_macs=pipeline.macs.synthesis,
        network_macs=pipeline.macs.network,
        peak_mib=peak,
        threads=torch.get_num_threads(),
        machine=machine(),
        date=datetime.date.today().isoformat(),
        quality=point.quality,
    )


def fastest(rows: Sequence[Row], batch: int) -> dict[str, Row]:
    """Of each pipeline, by name, the row of its fastest engine at a batch size."""
    best: dict[str, Row] = {}
    for row in rows:
        if row.batch == batch and row.ms <= best.get(row.name, row).ms:
            best[row.name] = row
    return best


def compared(rows: Sequence[Row], baseline: str | None) -> list[Row]:
    """The rows with their speed-up over the baseline, on its fastest engine, and other values as ratios to it."""
    theirs = {row.batch: fastest(rows, row.batch).get(baseline or "") for row in rows}

    def beside(row: Row, other: Row | None) -> Row:
        if other is None or row.answer != other.answer:
            return row
        return replace(row, speedup=round(other.ms / row.ms, 2), relative=ratios(row, other))

    return [beside(row, theirs[row.batch]) for row in rows]


def ratios(row: Row, baseline: Row) -> Ratios:
    """Values of a row, each over the baseline's."""

    def ratio(ours: float | None, theirs: float | None) -> float | None:
        return round(ours / theirs, 3) if ours and theirs else None

    return Ratios(
        macs=ratio(row.macs, baseline.macs),
        bytes=ratio(row.bytes, baseline.bytes),
        parameters=ratio(row.parameters, baseline.parameters),
        peak_mib=ratio(row.peak_mib, baseline.peak_mib),
        top1=ratio(row.top1, baseline.top1),
    )


def columns(rows: Sequence[Row]) -> list[Table]:
    """The rows as three tables for people: accuracy and cost; latency; ratios to the baseline."""
    cost: Table = [
        {
            "name": row.name,
            "bytes": row.bytes,
            "bpp": row.bpp,
            "top1": percent(row.top1),
            "top5": percent(row.top5),
            "miou": percent(row.miou),
            "accuracy": row.source and row.source.partition(" ")[0],
            "M MACs entropy": round(row.entropy_macs / 1e6),
            "M MACs synthesis": round(row.synthesis_macs / 1e6),
            "M MACs network": round(row.network_macs / 1e6),
            "M parameters": round(row.parameters / 1e6, 1),
        }
        for row in {row.name: row for row in rows}.values()
    ]
    first = ("name", "engine", "batch", "ms", "speedup", "read_ms", "decode_ms", "network_ms")
    speed: Table = [
        {key: getattr(row, key) for key in first}
        | {"10-90 %": f"{row.ms_10}-{row.ms_90}", "batches": row.batches}
        | {"images_per_second": row.images_per_second, "peak_mib": row.peak_mib}
        for row in rows
    ]
    beside: Table = [
        {"name": row.name, "engine": row.engine, "batch": row.batch, "speedup": row.speedup}
        | {f"{name} ratio": value for name, value in asdict(row.relative).items()}
        for batch in dict.fromkeys(row.batch for row in rows)
        for row in fastest(rows, batch).values()
        if row.relative
    ]
    return [cost, speed, beside]


def percent(fraction: float | None) -> str | None:
    """A fraction of 1 as people read it."""
    return None if fraction is None else f"{100 * fraction:.1f} %"


def machine() -> str:
    """What it was measured on."""
    versions = {name: package_version(name) for name in ("torch", "onnxruntime")}
    packages = ", ".join(f"{name} {known}" for name, known in versions.items() if known)
    return (
        f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, Python "
        f"{platform.python_version()}, dcu {__version__}, {packages}, Pillow {pillow_version}"
    )


def processor() -> str:
    """What the processor calls itself, where Linux tells; else of what kind it is. The GPU, where there is one."""
    named = None
    with suppress(OSError):
        named = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (named[1] if named else platform.machine()) + gpu


def package_version(name: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return version(name)
    except ModuleNotFoundError:
        return None
