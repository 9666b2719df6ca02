"""``dcu classify``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dcu.cli import files, options, reading
from dcu.cli.console import print_json, progress, say
from dcu.cli.report import Report

if TYPE_CHECKING:
    from dcu.tasks.classify import Predictions

app = typer.Typer(add_completion=False)


@app.command()
def classify(
    inputs: options.Inputs,
    top: Annotated[int, typer.Option(metavar="K", min=1, help="Number of classes to print.")] = 5,
    min_probability: Annotated[
        float, typer.Option(metavar="P", min=0, max=1, help="Omit classes with a lower probability.")
    ] = 0.0,
    view: options.View = "center",
    views: options.Views = 1,
    network: options.Network = None,
    engine: options.EngineName = "auto",
    json: options.Json = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> int:
    """Classify images from their bitstreams, without decoding.

    Example: dcu classify photo.bin --top 3
    """
    seen = options.chosen_view(view, views)
    found = files.sources(inputs, files.BIN, "bitstreams (.bin)")
    report = Report(found, json, quiet)
    chosen_device = options.start(threads, device)
    streams = files.streams(progress(found.sources, "classifying", quiet))
    answered = reading.answers(
        streams, network, chosen_device, engine, seen, lambda c, images: c.predict(images, top), report
    )
    for source, _, answer in answered:
        with report.of(source.name):
            show(source.name, answer, min_probability, json)
    return report.finish()


def show(name: str, answer: Predictions, least: float, json: bool) -> None:
    """One answer, for programs or for people."""
    probable = [p for p in answer.predictions if p.probability >= least]
    if json:
        predictions = [
            {"label": p.label, "wnid": p.wnid, "index": p.index, "probability": round(p.probability, 6)}
            for p in probable
        ]
        print_json({"input": name, "predictions": predictions, "network": answer.network, "codec": answer.codec})
        return
    say(name, *(f"  {100 * p.probability:5.1f} %  {p.label}" for p in probable))
