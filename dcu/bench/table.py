"""A row per pipeline, engine and batch size: cost, accuracy, latency, and ratios to the baseline."""

from __future__ import annotations

import datetime
import os
import platform
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from PIL import __version__ as pillow_version

from dcu import __version__, store
from dcu.bench.accuracy import Accuracy
from dcu.bench.measure import peak_mib, runners, time_runners
from dcu.bench.pipelines import TimedPipeline, pipelines
from dcu.data import Item, shown
from dcu.geometry import CROP
from dcu.image import standard_crop

TIMED = 32
"""Images of a data set whose files are timed."""
Rows = list[dict[str, Any]]


def bench_rate(
    codec: store.Model,
    items: Sequence[Item],
    known: Accuracy,
    formats: Sequence[str],
    batches: Sequence[int],
    seconds: float,
    device: str,
    show: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> tuple[Rows, bool]:
    """All rows of a rate, and whether they are whole: Ctrl-C keeps what is measured by then.

    Returns
    -------
    rows : list of dict
        ``codec``; ``name``; ``answer``, label or segmentation; ``bytes``, ``bpp`` (means over the files that ``source``
        describes, else of those timed, of ``timed_bytes``); ``top1``, ``top5``, ``miou``, where known;
        ``parameters`` of the network; ``entropy_macs``, ``synthesis_macs``, ``network_macs`` (1 MAC = 2 FLOPs);
        ``engine``, ``batch``, ``threads``, ``batches`` timed; medians an image of ``read_ms``, ``decode_ms`` (entropy
        decoding, and what rebuilds an image if one is needed), ``network_ms`` and the whole, ``ms``, with its 10 and
        90 % quantiles; ``images_per_second``; ``peak_mib``, resident memory of a batch beyond what was there before;
        ``speedup``, of labels, over the RGB network on the first other format, its fastest engine at that batch size;
        ``relative``, of labels, bytes, MACs, parameters, memory, top-1 as shares of that row's; ``machine``, ``date``.
    """
    images = [standard_crop(item.image()) for item in shown(items, TIMED)]
    found = pipelines(codec, images, formats, known.sides, device)
    entries = runners(found, batches)
    peaks: dict[int, float | None] = {}
    whole = True
    try:
        time_runners(entries, seconds, show)
        for runner in chain(*entries):  # one batch each
            peaks[id(runner)] = peak_mib(runner)
    except KeyboardInterrupt:
        whole = False
    where = {"threads": torch.get_num_threads(), "machine": machine(), "date": datetime.date.today().isoformat()}
    rows = [
        {"codec": codec.name} | facts(pipeline, known) | runner.row() | {"peak_mib": peaks.get(id(runner))} | where
        for pipeline, group in zip(found, entries, strict=True)
        for runner in group
        if runner.milliseconds
    ]
    baselines = [each.name for each in found if formats and each.pipeline.source == formats[0]]
    compare_with(rows, baselines[0] if baselines else None)
    return rows, whole


def facts(pipeline: TimedPipeline, known: Accuracy) -> dict[str, Any]:
    """What a row says beside speed."""
    size = sum(map(len, pipeline.files)) / len(pipeline.files)
    timed = round(size, 1)
    metrics: dict[str, Any] = {"bytes": timed, "bpp": round(8 * size / CROP**2, 4)} | known.of(pipeline.pipeline)
    return (
        {"name": pipeline.name, "answer": pipeline.answer}
        | {key: metrics.get(key) for key in ("bytes", "bpp", "top1", "top5", "miou", "source")}
        | {"timed_bytes": timed}
        | {"parameters": pipeline.parameters}
        | {f"{part}_macs": count for part, count in pipeline.macs.items()}
    )


def fastest(rows: Sequence[dict[str, Any]], batch: int) -> dict[str, dict[str, Any]]:
    """Of each pipeline, by name, the row of its fastest engine at a batch size."""
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["batch"] == batch and row["ms"] <= best.get(row["name"], row)["ms"]:
            best[row["name"]] = row
    return best


def macs_of(row: dict[str, Any]) -> int:
    """All MACs from file to answer."""
    return int(sum(row[f"{part}_macs"] for part in ("entropy", "synthesis", "network")))


def compare_with(rows: Rows, baseline: str | None) -> None:
    """Add the speed-up over the baseline, on its fastest engine, and other values as ratios to the baseline's."""
    for batch in {row["batch"] for row in rows}:
        theirs = fastest(rows, batch).get(baseline) if baseline else None
        for row in rows:
            if row["batch"] == batch:
                same = theirs is not None and row["answer"] == theirs["answer"]
                row["speedup"] = round(theirs["ms"] / row["ms"], 2) if theirs and same else None
                row["relative"] = ratios(row, theirs) if theirs and same else None


def ratios(row: dict[str, Any], baseline: dict[str, Any]) -> dict[str, float | None]:
    """Bytes, MACs, parameters, memory and top-1 of a row, each over the baseline's; None where one is not known."""
    pairs = {"macs": (macs_of(row), macs_of(baseline))}
    pairs |= {key: (row[key], baseline[key]) for key in ("bytes", "parameters", "peak_mib", "top1")}
    return {key: round(ours / theirs, 3) if ours and theirs else None for key, (ours, theirs) in pairs.items()}


def columns(rows: Rows) -> list[Rows]:
    """The rows as three tables for people: accuracy and cost; latency; ratios to the baseline."""
    cost = []
    for row in {row["name"]: row for row in rows}.values():
        millions = {f"M MACs {part}": round(row[f"{part}_macs"] / 1e6) for part in ("entropy", "synthesis", "network")}
        given = {key: percent(row[key]) for key in ("top1", "top5", "miou")}
        stated = {"accuracy": row["source"] and row["source"].partition(" ")[0]}
        millions |= {"M parameters": round(row["parameters"] / 1e6, 1)}
        cost.append({key: row[key] for key in ("name", "bytes", "bpp")} | given | stated | millions)
    speed = [
        {key: row[key] for key in ("name", "engine", "batch", "ms", "speedup", "read_ms", "decode_ms", "network_ms")}
        | {"10-90 %": f"{row['ms_10']}-{row['ms_90']}"}
        | {key: row[key] for key in ("images_per_second", "peak_mib")}
        for row in rows
    ]
    beside = [
        {"name": row["name"], "engine": row["engine"], "batch": row["batch"], "speedup": row["speedup"]}
        | row["relative"]
        for batch in dict.fromkeys(row["batch"] for row in rows)
        for row in fastest(rows, batch).values()
        if row["relative"]
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
