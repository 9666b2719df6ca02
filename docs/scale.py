"""Writes docs/scale.md from results/scale.csv: what archives cost (`make scale`).

``python -m docs.scale --data TAR`` measures results/scale.csv first (docs/measure.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from docs.measure import BATCH, ENCODE, LABEL, OUTPUTS, Row, measure, one
from docs.readme import Cells, number, table
from docs.results import RESULTS, ROOT, as_csv, read

PAGE = ROOT / "docs" / "scale.md"
PATH = ("compress", "classify", "embed")
"""What every image of an archive goes through; the other commands run on request."""
MANY = 64
"""Cores that the page extrapolates to."""
LINK = 1.25e9
"""Bytes per second of the 10 Gbit/s link that the page compares with."""
HOUR = 3600


def measured() -> list[Row]:
    """The rows of results/scale.csv."""
    kinds: dict[str, Callable[[str], object]] = {
        "float": float,
        "int": int,
        "float | None": lambda text: float(text) if text else None,
        "str": str,
    }
    return [Row(**{f.name: kinds[str(f.type)](row[f.name]) for f in fields(Row)}) for row in read("scale")]  # type: ignore[arg-type]


def shown(value: float) -> str:
    """A number with three significant digits, thousands separated."""
    return f"{float(f'{value:.3g}'):,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def named(row: Row) -> str:
    """A step as tables have it; commands as code."""
    return f"`{row.step}`" if row.step in OUTPUTS else f"{row.step}, {row.side}x{row.side}"


def speeds(rows: Sequence[Row]) -> list[Cells]:
    """What was measured."""
    return [
        {
            "step": named(row),
            "rate": row.rate,
            "runs on": row.engine,
            "images per second and core": shown(1 / row.core_seconds),
            "bytes read per image": number(str(row.read), 0),
            "bytes written per image": number(str(row.written or ""), 0),
            "peak memory (MiB)": "" if row.peak_mib is None else number(str(row.peak_mib), 0),
        }
        for row in rows
    ]


def totals(rows: Sequence[Row]) -> list[Cells]:
    """Core hours, hours and bytes of 10^6 and of 10^9 images."""

    def cells(row: Row, images: float, unit: str, factor: float) -> Cells:
        hours = images * row.core_seconds / HOUR
        title = f"10^{len(f'{images:.0f}') - 1}"
        return {
            f"{title}: core hours": shown(hours),
            f"hours on {MANY} cores{' ' * (unit == 'TB')}": shown(hours / MANY),
            unit: shown(images * row.written * factor) if row.written else "",
        }

    return [
        {"step": named(row), "rate": row.rate} | cells(row, 1e6, "GB", 1e-9) | cells(row, 1e9, "TB", 1e-12)
        for row in rows
    ]


def beside(rows: Sequence[Row]) -> list[Cells]:
    """dcu and AVIF at equal bytes: what 10^9 images cost to store, and each time they are labeled."""

    def cells(title: str, stored: Row, labeled: Row) -> Cells:
        return {
            "rate": stored.rate,
            "archive": title,
            "TB": shown(1e-3 * stored.written),
            "core hours to store": shown(1e9 * stored.core_seconds / HOUR),
            "core hours to label": shown(1e9 * labeled.core_seconds / HOUR),
        }

    out = []
    for rate in dict.fromkeys(row.rate for row in rows):
        encode = one(rows, ENCODE, rate)
        out.append(cells("dcu: `compress`, `classify`", one(rows, "compress", rate), one(rows, "classify", rate)))
        out.append(cells(f"{named(encode)}; decode + RGB network", encode, one(rows, LABEL, rate)))
    return out


def bottleneck(rows: Sequence[Row], rate: str) -> str:
    """Which step is the first bottleneck at a rate, and of what: of CPU time, or of the link that feeds many cores."""

    def linked(row: Row) -> float:
        return (row.read + row.written) / LINK

    def computed(row: Row) -> float:
        return row.core_seconds / MANY

    slowest = max((one(rows, step, rate) for step in PATH), key=lambda row: max(computed(row), linked(row)))
    which = "CPU time" if computed(slowest) >= linked(slowest) else "the link"
    share = 100 * computed(slowest) / sum(computed(one(rows, step, rate)) for step in PATH)
    load = 100 * linked(slowest) / computed(slowest)
    enough = slowest.core_seconds / linked(slowest)
    return (
        f"**{which} of `{slowest.step}`**. It takes {shown(share)} % of the core hours of {', '.join(PATH)} together. "
        f"On {MANY} cores it reads and writes {shown(load)} % of what a link of 10 Gbit/s carries; from "
        f"{shown(enough)} cores on, the link is the bottleneck."
    )


TEXT = """# What archives cost

<!-- Written by docs/scale.py (`make scale`) from results/scale.csv. -->

{images} images of {dataset}, 224x224, on {machine}, {cores} cores, {date}. Every command runs with its defaults, which
are codec-2, classifier-2 and segmenter-2, on all cores; `compress` with `--rate` of the row.
[Archives](guide/archives.md) has the commands, [models.md](models.md) the accuracy at each rate.

## Formula

A run over N images takes t(N) seconds on c cores and writes b bytes per image.

```
seconds per image            s = (t(N) - t(1)) / (N - 1)     # start-up cancels out
images per second and core   1 / (s c)
core hours of M images       M s c / 3600
hours on {many} cores            M s c / 3600 / {many}
bytes of M images            M b
```

The page assumes that images are alike and that cores add up. Bytes are those of the images' files: in a shard each
takes a header of 512 bytes too, and is padded to a multiple of 512. AVIF is encoded and decoded within one process,
images in parallel on all cores, at one quality for all images, the highest whose files are no larger than dcu's, at
the size at which the RGB network is most accurate at these bytes. Its labels come from batches of {batch} on the
fastest backend (`dcu bench`), from files in memory.

## Measured

{speeds}

## Extrapolated

{totals}

## Beside AVIF at equal bytes, 10^9 images

{beside}

## First bottleneck

{bottlenecks}
"""


def page(rows: Sequence[Row]) -> str:
    """The page of what was measured."""
    facts = asdict(rows[0])
    rates = dict.fromkeys(row.rate for row in rows)
    return TEXT.format(
        **{name: facts[name] for name in ("dataset", "machine", "cores", "date")},
        images=f"{rows[0].images:,}",
        many=MANY,
        batch=BATCH,
        speeds=table(speeds(rows)),
        totals=table(totals(rows)),
        beside=table(beside(rows)),
        bottlenecks="\n".join(f"- {rate}: {bottleneck(rows, rate)}" for rate in rates),
    )


def main() -> None:
    """Measure, where data are named, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="directory or tar of images; without it nothing is measured")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=20, help="of timing the RGB network at each rate")
    given = parser.parse_args()
    if given.data:
        rows = []
        for row in measure(given.data, given.images, given.seconds):
            print(f"{row.step}, {row.rate}: {row.seconds} s per image", flush=True)
            rows.append(row)
        (RESULTS / "scale.csv").write_text(as_csv([asdict(row) for row in rows]), "utf-8")
    PAGE.write_text(page(measured()), "utf-8")


if __name__ == "__main__":
    main()
