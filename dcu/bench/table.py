"""A row for each way, engine and batch size: cost, accuracy, speed, and how it compares with what people run today."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from typing import Any

import torch
from PIL import __version__ as pillow_version

from dcu import store
from dcu.bench.accuracy import Accuracy
from dcu.bench.measure import measure, peak_mib, runners
from dcu.bench.ways import Way, ways
from dcu.data import Item, shown
from dcu.image import SIDE, field_crop

SHOWN = 32
"""Pictures of a data set whose files are timed."""
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
        ``name``; ``answer``, label or mask; ``bytes``, ``bpp`` (means over files); ``top1``, ``top5``, ``miou`` and
        their ``source``, where known;
        ``parameters`` of the network; ``entropy_macs``, ``synthesis_macs``, ``network_macs`` (1 MAC = 2 FLOPs);
        ``engine``, ``batch``, ``threads``, ``rounds``; medians a picture of ``read_ms``, ``decode_ms`` (entropy
        decoding, and what rebuilds a picture if one is needed), ``network_ms`` and the whole, ``ms``, with its 10 and
        90 % quantiles; ``pictures_per_second``; ``peak_mib``, resident memory of a batch beyond what was there before;
        ``speedup``, of labels, over the RGB network on the first other format, its quickest engine at that batch size.
    """
    pictures = [field_crop(item.picture()) for item in shown(items, SHOWN)]
    found = ways(codec, pictures, formats, known.sides, device)
    entries = runners(found, batches, torch.get_num_threads())
    whole = True
    try:
        measure(entries, seconds, show)
    except KeyboardInterrupt:
        whole = False
    rows = [
        facts(way, known) | runner.row() | {"threads": torch.get_num_threads(), "peak_mib": peak_mib(runner)}
        for way, group in zip(found, entries, strict=True)
        for runner in group
        if runner.milliseconds
    ]
    today = [way.name for way in found if formats and way.name.startswith(f"RGB on {formats[0]} ")]
    add_speedup(rows, today[0] if today else None)
    return rows, whole


def facts(way: Way, known: Accuracy) -> dict[str, Any]:
    """What a row says beside speed."""
    size = sum(map(len, way.files)) / len(way.files)
    figures = {"bytes": round(size, 1), "bpp": round(8 * size / SIDE**2, 4)} | known.figures.get(way.name, {})
    return (
        {"name": way.name, "answer": way.answer}
        | {key: figures.get(key) for key in ("bytes", "bpp", "top1", "top5", "miou", "source")}
        | {"parameters": way.parameters}
        | {f"{part}_macs": count for part, count in way.macs.items()}
    )


def quickest(rows: Sequence[dict[str, Any]], batch: int) -> dict[str, dict[str, Any]]:
    """Of each way, by name, the row of its quickest engine at a batch size."""
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["batch"] == batch and row["ms"] <= best.get(row["name"], row)["ms"]:
            best[row["name"]] = row
    return best


def add_speedup(rows: Rows, today: str | None) -> None:
    """How many times as quick as what people run today, that on its quickest engine."""
    for batch in {row["batch"] for row in rows}:
        theirs = quickest(rows, batch).get(today) if today else None
        for row in rows:
            if row["batch"] == batch:
                same = theirs is not None and row["answer"] == theirs["answer"]
                row["speedup"] = round(theirs["ms"] / row["ms"], 2) if theirs and same else None


def columns(rows: Rows) -> list[Rows]:
    """The rows as two tables that people can read: what each way gives and costs, and how quick it is."""
    cost, seen = [], set()
    for row in rows:
        if row["name"] in seen:
            continue
        seen.add(row["name"])
        millions = {f"M MACs {part}": round(row[f"{part}_macs"] / 1e6) for part in ("entropy", "synthesis", "network")}
        given = {key: percent(row[key]) for key in ("top1", "top5", "miou")}
        cost.append({key: row[key] for key in ("name", "bytes", "bpp")} | given | millions)
    speed = [
        {key: row[key] for key in ("name", "engine", "batch", "read_ms", "decode_ms", "network_ms", "ms")}
        | {"10-90 %": f"{row['ms_10']}-{row['ms_90']}"}
        | {key: row[key] for key in ("pictures_per_second", "peak_mib", "speedup")}
        for row in rows
    ]
    return [cost, speed]


def percent(fraction: float | None) -> str | None:
    """A fraction of 1 as people read it."""
    return None if fraction is None else f"{100 * fraction:.1f} %"


def machine() -> str:
    """What it was measured on."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime") if installed(name))
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, Python "
        f"{platform.python_version()}, {packages}, Pillow {pillow_version}"
    )


def installed(name: str) -> bool:
    """Whether a package is installed."""
    try:
        version(name)
    except ModuleNotFoundError:
        return False
    return True
