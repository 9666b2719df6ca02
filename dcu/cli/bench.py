"""``dcu bench``: what it costs, what it gives, against what people run today."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dcu import store
from dcu.cli import console, files, options, places

app = typer.Typer(add_completion=False)
Rates = Annotated[list[float] | None, typer.Option("--rate", help="Bits a pixel; repeated.", show_default="0.0983")]
Labelled = Annotated[
    Path | None,
    typer.Option(
        "--data",
        parser=options.input_path,
        metavar="PATH",
        help="Directory or tar whose subdirectories are classes (WNIDs), to measure accuracy on.",
    ),
]
Batches = Annotated[
    list[int] | None, typer.Option("--batch", min=1, help="Images at once; repeated.", show_default="1, 32")
]
Baselines = Annotated[str, typer.Option("--rivals", help="Formats to compare with: avif,webp,jpeg,jpeg2000,jxl.")]
Html = Annotated[
    Path | None,
    typer.Option(
        "--html", parser=options.output_path, metavar="FILE", help="A report: tables, plots, images; one file."
    ),
]
Seconds = Annotated[float, typer.Option("--seconds", min=0, help="For how long a rate is timed.")]


@app.command()
def bench(
    rate: Rates = None,
    data: Labelled = None,
    batch: Batches = None,
    baselines: Baselines = "avif,webp,jpeg",
    seconds: Seconds = 20.0,
    html: Html = None,
    force: options.Force = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> None:
    """Cost, speed from file to label and accuracy, beside the RGB network on other files of as many bytes.

    Without --data: on the photographs that dcu carries, accuracy quoted from the cards.
    """
    models = [store.codec_of_rate(one) for one in rate or [0.0983]]
    chosen_device = options.start(threads, device)
    from dcu.bench.accuracy import measured, quoted
    from dcu.bench.report import Section, check_packages, report, report_images
    from dcu.bench.table import bench_rate, columns, machine
    from dcu.data import dataset_name, items
    from dcu.evaluate.baselines import parse

    formats, found = parse(baselines), items(data) if data else []
    if html is not None:
        check_packages()
        places.refuse(html, [item.path for item in found], "--html")
        console.outlive_stdout()
        files.check_free(html, force)  # before minutes of measuring
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
                )
                if data
                else quoted(model)
            )
        except KeyboardInterrupt:
            whole = False
            break
        note(f"{model.name}: timing for {seconds:g} s; {machine()}; 1 MAC = 2 FLOPs", quiet)
        rows, whole = bench_rate(
            model,
            found,
            known,
            formats,
            batch or [1, 32],
            seconds,
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
        page = report(sections, images, formats, lambda steps: console.progress(steps, "writing the report", quiet))
        files.put(html, page.encode(), force)
    if not whole:
        raise KeyboardInterrupt


def note(text: str, quiet: bool) -> None:
    """A line for people on standard error."""
    if not quiet:
        console.note(text)
