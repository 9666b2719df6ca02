"""``dcu eval``: the figures on the cards, measured on real files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dcu import store
from dcu.cli import files, options

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Measure codecs and classifiers on real files.")
Record = Annotated[bool, typer.Option("--record", help="State the figures on the model's card.")]
Data = Annotated[Path, typer.Argument(help="Folder or uncompressed tar.", show_default=False)]


def show(data: Path, figures: dict[str, Any], json: bool, model: store.Model | None) -> None:
    """The figures of one data set, for programs or for people, and on a card if one is given."""
    facts = {"dataset": data.stem} | figures
    if model is not None:
        store.record(model, facts)
    if json:
        files.print_json(facts)
    else:
        typer.echo("  ".join(f"{key} {value}" for key, value in facts.items()))


@app.command("codec")
def eval_codec(
    data: Data,
    codec: Annotated[str, typer.Option(help="Codec by name or path.")] = "codec-0.0983",
    json: options.Json = False,
    record: Record = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> None:
    """Bytes, bits a pixel, PSNR and MS-SSIM of whole files."""
    from dcu.data import items

    found = items(data)
    chosen_device = options.start(threads, device)
    from dcu.codec import Codec
    from dcu.evaluate.codec import evaluate

    figures = evaluate(Codec.load(codec, chosen_device), files.progress(found, "measuring", quiet))
    show(data, figures, json, store.find(codec) if record else None)


@app.command("classifier")
def eval_classifier(
    data: Data,
    network: Annotated[str, typer.Option(help="Classifier by name or path.")] = "classifier-0.0983",
    native: Annotated[bool, typer.Option("--native", help="Pictures as they are, not their 224x224 centre.")] = False,
    json: options.Json = False,
    record: Record = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> None:
    """Top-1 and top-5 on a folder or tar whose sub-folders are classes (WNIDs)."""
    from dcu.data import items

    found = items(data)
    chosen_device = options.start(threads, device)
    from dcu.evaluate.classifier import evaluate
    from dcu.tasks.classify import Classifier

    classifier = Classifier.load(network, chosen_device)
    figures = evaluate(classifier, found, files.progress(found, "measuring", quiet), native)
    show(data, figures, json, store.find(network) if record else None)
