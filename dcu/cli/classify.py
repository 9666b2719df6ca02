"""``dcu classify``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dcu.cli import files, options, reading
from dcu.cli.classes import known_classes
from dcu.cli.console import print_json, progress, say
from dcu.cli.report import Report

if TYPE_CHECKING:
    from dcu.tasks.classify import Classifier, Predictions, Views

app = typer.Typer(add_completion=False)


@app.command()
def classify(
    inputs: options.Inputs,
    top: Annotated[int, typer.Option(metavar="K", min=1, help="Number of classes to print.")] = 5,
    classes: Annotated[
        Path | None,
        typer.Option("--classes", metavar="FILE", help="Predict only the classes listed in FILE, one per line."),
    ] = None,
    prior: Annotated[
        Path | None,
        typer.Option("--prior", metavar="FILE", help="File of class priors, one label,weight per line."),
    ] = None,
    min_probability: Annotated[
        float,
        typer.Option(metavar="P", min=0, max=1, help="Omit classes less probable than P; may leave none."),
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
    known = known_classes(classes, prior)
    found = files.sources(inputs, files.BIN, "bitstreams (.bin)")
    report = Report(found, json, quiet)
    chosen_device = options.start(threads, device)
    streams = files.streams(progress(found.sources, "classifying", quiet))

    def asking(classifier: Classifier) -> Callable[[Sequence[Views]], Sequence[Predictions]]:
        weights = known.weights(classifier)
        return lambda images: classifier.predict(images, top, weights, min_probability)

    for source, _, answer in reading.answers(streams, network, chosen_device, engine, seen, asking, report):
        with report.of(source.name):
            show(source.name, answer, json)
    return report.finish()


def show(name: str, answer: Predictions, json: bool) -> None:
    """One answer, for programs or for people."""
    if json:
        predictions = [
            {"label": p.label, "wnid": p.wnid, "index": p.index, "probability": round(p.probability, 6)}
            for p in answer.predictions
        ]
        facts = {"input": name, "predictions": predictions, "max_probability": round(answer.max_probability, 6)}
        print_json(facts | {"network": answer.network, "codec": answer.codec})
        return
    lines = [f"  {100 * p.probability:5.1f} %  {p.label}" for p in answer.predictions]
    say(name, *(lines or [f"  no label: the most probable class has {100 * answer.max_probability:.1f} %"]))
