"""``dcu bench``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dcu import store
from dcu.cli import console, files, options, places

app = typer.Typer(add_completion=False)
Rates = Annotated[
    list[float] | None,
    typer.Option("--rate", metavar="BPP", help="Rate in bits per pixel; repeatable.", show_default="0.0983"),
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
    """Benchmark latency, cost and accuracy of classification.

    Compares classifiers of bitstreams with an RGB network on other formats at
    equal file size. Without --data, uses the sample photographs and quotes
    accuracy from the model cards.

    Example: dcu bench --seconds 90 --html report.html
    """
    models = [store.codec_of_rate(one) for one in rate or [0.0983]]
    chosen_device = options.start(threads, device)
    from dcu.bench.accuracy import measured, quoted
    from dcu.bench.report import Section, check_packages, report, report_images
    from dcu.bench.table import bench_rate, columns, machine
    from dcu.data import dataset_name, items
    from dcu.evaluate.baselines import check_available

    formats, found = options.format_names(baselines), items(data) if data else []
    check_available(formats)
    if html is not None:
        check_packages()
        places.refuse(html, [item.path for item in found], "--html")
        console.outlive_stdout()
        files.check_free(html, force)  # before minutes of measuring
    timed = 20.0 if seconds is None else seconds
    sections, whole = [], True
    for model in models:
        try:
            known = (
                measured(
                    model,
                    dataset_name(data),
                    found,
                    lambda every: console.progress(every, "naming", quiet),
                    formats,
                    chosen_device,
                    seconds,
                )
                if data
                else quoted(model)
            )
        except KeyboardInterrupt:
            whole = False
            break
        note(f"{model.name}: timing for {timed:g} s; {machine()}; 1 MAC = 2 FLOPs", quiet)
        rows, whole = bench_rate(
            model,
            found,
            known,
            formats,
            batch or [1, 32],
            timed,
            chosen_device,
            lambda rounds: console.progress(rounds, "timing", quiet),
        )
        sections.append(Section(model, rows, known))
        for part in [list(map(asdict, rows))] if json else columns(rows):
            console.print_rows(part, json)
        if known.source and not json:
            note(f"top-1, top-5, bytes: {known.source}", quiet)
        if not whole:
            break
    if html is not None and sections:
        images = report_images(found)
        page = report(
            sections, images, formats, seconds, lambda steps: console.progress(steps, "writing the report", quiet)
        )
        files.put(html, page.encode(), force)
    if not whole:
        raise KeyboardInterrupt


def note(text: str, quiet: bool) -> None:
    """A line for people on standard error."""
    if not quiet:
        console.note(text)
