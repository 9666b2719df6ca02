"""``dcu classify``: what is in a picture, straight from its bitstream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dcu.cli import files, options

if TYPE_CHECKING:
    from dcu.tasks.classify import Predictions

BATCH = 32
app = typer.Typer(add_completion=False)


@app.command()
def classify(
    inputs: options.Inputs,
    top: Annotated[int, typer.Option(min=1, help="How many classes.")] = 5,
    network: Annotated[str | None, typer.Option(help="Classifier by name or path.", show_default="by codec")] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> int:
    """Name what is in pictures, straight from their bitstreams: no picture is rebuilt."""
    found = files.sources(inputs, files.BIN, "bitstreams (.bin)")
    chosen_device = options.start(threads, device)
    from dcu.tasks.classify import Classifier, classifier_for

    failures = files.Failures()
    named = Classifier.load(network, chosen_device) if network else None

    def views() -> Iterator[tuple[str, Any, Any]]:
        for name, stream in files.streams(files.progress(found, "classifying", quiet), failures):
            with failures.of(name):
                classifier = named or classifier_for(stream.codec, chosen_device)
                yield name, classifier, classifier.view(stream)

    for batch in files.batched(views(), BATCH):
        answers: dict[int, Predictions] = {}
        for classifier in dict.fromkeys(entry[1] for entry in batch):
            members = [index for index, entry in enumerate(batch) if entry[1] is classifier]
            predicted = classifier.predict([batch[index][2] for index in members], top)
            answers |= dict(zip(members, predicted, strict=True))
        for index, (name, _, _) in enumerate(batch):
            show(name, answers[index], json)
    return failures.exit_code


def show(name: str, answer: Predictions, json: bool) -> None:
    """One answer, for programs or for people."""
    if json:
        predictions = [
            {"label": p.label, "wnid": p.wnid, "index": p.index, "probability": round(p.probability, 6)}
            for p in answer.predictions
        ]
        files.print_json({"input": name, "predictions": predictions, "network": answer.network, "codec": answer.codec})
        return
    typer.echo(name)
    for p in answer.predictions:
        typer.echo(f"  {100 * p.probability:5.1f} %  {p.label}")
