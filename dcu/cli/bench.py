"""``dcu bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dcu import store
from dcu.cli import console, files, options, places

app = typer.Typer(add_completion=False)
Rates = Annotated[
    list[float] | None,
    typer.Option("--rate", help="Rate of a codec in bits per pixel; repeatable.", show_default="0.0983"),
]
Labelled = Annotated[
    Path | None,
    typer.Option("--data", help="Directory or tar whose subdirectories are classes (WNIDs), to measure accuracy on."),
]
Batches = Annotated[
    list[int] | None, typer.Option("--batch", min=1, help="Batch size; repeatable.", show_default="1, 32")
]
Baselines = Annotated[str, typer.Option("--baselines", help="Formats to compare with: avif,webp,jpeg,jpeg2000,jxl.")]
Html = Annotated[Path | None, typer.Option("--html", help="Write a report with tables, plots and images to one file.")]
Seconds = Annotated[
    float | None,
    typer.Option(
        "--seconds",
        min=0,
        help="Limit for each part (per rate: accuracy on --data, timing; in the report: the comparison of formats). "
        "Each measures at least once; preparing networks and files comes on top.",
        show_default="20 for timing, all images for the rest",
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
    """Benchmark latency, cost and accuracy against the RGB network on other formats at equal file size.

    Without --data, uses the sample photographs and quotes accuracy from the model cards.
    """
    models = [store.codec_of_rate(one) for one in rate or [0.0983]]
    chosen_device = options.start(threads, device)
    from dcu.bench.accuracy import measured, quoted
    from dcu.bench.report import Section, check_packages, report, report_images
    from dcu.bench.table import bench_rate, columns, machine
    from dcu.data import dataset_name, items
    from dcu.evaluate.baselines import parse

    formats, found = parse(baselines, "--baselines"), items(data) if data else []
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
        for part in [rows] if json else columns(rows):
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
