"""``dcu bench``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dcu import store
from dcu.cli import console, files, options, places
from dcu.errors import UsageError

if TYPE_CHECKING:
    from dcu.bench.points import OperatingPoint

FEW = 5
"""Batches whose median says little."""
app = typer.Typer(add_completion=False)
Rates = Annotated[
    list[float] | None,
    typer.Option(
        "--rate",
        metavar="BPP",
        help="Mean rate in bits per pixel; repeatable.",
        show_default="0.0983, 0.330 and 0.635",
    ),
]
CodecName = Annotated[str | None, options.model("--codec", "codec")]
Qualities = Annotated[
    list[int] | None,
    typer.Option("--quality", metavar="Q", min=0, max=63, help="Operating point, 0 to 63; repeatable."),
]
Labelled = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="PATH",
        help="Measure accuracy on this directory or tar, which has one directory per class (WNID).",
    ),
]
Batches = Annotated[
    list[int] | None, typer.Option("--batch", metavar="N", min=1, help="Batch size; repeatable.", show_default="1, 32")
]
Baselines = Annotated[str, options.formats("--baselines")]
Html = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write an HTML report with tables, plots and images.")
]
Seconds = Annotated[
    float | None,
    typer.Option(
        "--seconds",
        metavar="S",
        min=0,
        help="Time limit for each of accuracy, timing and format comparison; each measures at least once.",
        show_default="20 for timing, else none",
    ),
]


@app.command()
def bench(
    rate: Rates = None,
    codec: CodecName = None,
    quality: Qualities = None,
    data: Labelled = None,
    batch: Batches = None,
    baselines: Baselines = "avif,webp,jpeg",
    seconds: Seconds = None,
    html: Html = None,
    force: options.Force = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
    rivals: Annotated[str, options.moved("--rivals", "--baselines")] = "",
) -> None:
    """Benchmark cost and accuracy of codecs and classifiers.

    Compares classifiers of bitstreams with an RGB network on other formats at
    equal file size, and measures rate, distortion and time of the codec.
    Without --data, uses the sample photographs and quotes accuracy from the
    model cards.

    Example: dcu bench --seconds 90 --html report.html
    """
    points = chosen_points(codec, rate or [], quality or [])
    chosen_device = options.start(threads, device)
    from dcu.bench import codecs
    from dcu.bench.accuracy import measured, quoted
    from dcu.bench.report import Section, check_packages, report, report_images
    from dcu.bench.table import TIMED, bench_point, columns, machine
    from dcu.data import dataset_name, items, shown
    from dcu.evaluate.baselines import check_available

    formats, found = options.format_names(baselines), items(data) if data else []
    check_available(formats)
    codecs.check_packages()
    if html is not None:
        check_packages()
        places.refuse(html, [item.path for item in found], "--html")
        console.outlive_stdout()
        files.check_free(html, force)  # before minutes of measuring
    timed = 20.0 if seconds is None else seconds

    def bar(doing: str) -> Callable[[Sequence[Any]], Iterable[Any]]:
        return lambda steps: console.progress(steps, doing, quiet)

    sections, whole = [], True
    for point in points:
        try:
            known = quoted(point)
            if data:
                known = measured(point, dataset_name(data), found, bar("naming"), formats, chosen_device, seconds)
            measuring = bar("measuring the codec")
            by_itself = codecs.codec_row(point, shown(found, TIMED), measuring, timed, chosen_device)
        except KeyboardInterrupt:
            whole = False
            break
        console.print_rows([asdict(by_itself)] if json else codecs.columns([by_itself]), json)
        note(f"{point.name}: timing for {timed:g} s; {machine()}; 1 MAC = 2 FLOPs", quiet)
        rows, whole = bench_point(point, found, known, formats, batch or [1, 32], timed, chosen_device, bar("timing"))
        if rows:  # else it was interrupted before anything was timed
            sections.append(Section(point, by_itself, rows, known))
        for part in [list(map(asdict, rows))] if json else columns(rows):
            console.print_rows(part, json)
        if known.source and not json:
            note(f"top-1, top-5, bytes: {known.source}", quiet)
        if any(row.batches < FEW for row in rows):
            note(f"some medians are of fewer than {FEW} batches; --seconds gives more", quiet)
        if not whole:
            break
    if html is not None and sections:
        page = report(sections, report_images(found), formats, seconds, bar("writing the report"))
        files.put(html, page.encode(), force)
    if not whole:
        raise KeyboardInterrupt


def chosen_points(codec: str | None, rates: list[float], qualities: list[int]) -> list[OperatingPoint]:
    """The operating points of a codec that the options name; raises UsageError."""
    from dcu.bench.points import points_of

    if rates and qualities:
        raise UsageError("--rate and --quality cannot be combined")
    return points_of(store.find(codec, "codec"), rates, qualities)


def note(text: str, quiet: bool) -> None:
    """A line for people on standard error."""
    if not quiet:
        console.note(text)
