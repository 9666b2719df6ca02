"""``dcu eval``: the figures on the cards, measured on real files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dcu import store
from dcu.cli import files, options
from dcu.errors import UsageError

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Measure codecs and classifiers on real files.")
Data = Annotated[Path, typer.Argument(help="Folder or uncompressed tar.", show_default=False, readable=False)]
Record = Annotated[bool, typer.Option("--record", help="State the figures on the model's card.")]
CodecName = Annotated[str, typer.Option("--codec", help="Codec by name or path.")]
NetworkName = Annotated[str, typer.Option("--network", help="Classifier by name or path.")]
Native = Annotated[bool, typer.Option("--native", help="Pictures as they are, not their 224x224 centre.")]


def show(data: Path, figures: dict[str, Any], json: bool, recorded: store.Model | None) -> None:
    """The figures of one data set, for programs or for people, and on a card if one is given."""
    facts = {"dataset": data.stem} | figures
    if json:
        files.print_json(facts)
    else:
        typer.echo("  ".join(f"{key} {value}" for key, value in facts.items()))
    if recorded is not None:
        store.record(recorded, facts)


@app.command("codec")
def eval_codec(
    data: Data,
    codec: CodecName = "codec-0.0983",
    json: options.Json = False,
    record: Record = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> None:
    """Bytes, bits a pixel, PSNR and MS-SSIM of whole files."""
    from dcu.data import items

    model, found = store.find(codec, "codec"), items(data)
    chosen_device = options.start(threads, device)
    from dcu.codec import Codec
    from dcu.evaluate.codec import evaluate

    figures = evaluate(Codec.from_model(model, chosen_device), files.progress(found, "measuring", quiet))
    show(data, figures, json, model if record else None)


@app.command("classifier")
def eval_classifier(
    data: Data,
    network: NetworkName = "classifier-0.0983",
    native: Native = False,
    json: options.Json = False,
    record: Record = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> None:
    """Top-1 and top-5 on a folder or tar whose sub-folders are classes (WNIDs)."""
    from dcu.data import items

    if native and record:
        raise UsageError("--record states the figures of the field's protocol: not with --native")
    model, found = store.find(network, "classifier"), items(data)
    chosen_device = options.start(threads, device)
    from dcu.evaluate.classifier import evaluate
    from dcu.tasks.classify import Classifier

    classifier = Classifier.load(model.folder, chosen_device)
    figures = evaluate(classifier, found, files.progress(found, "measuring", quiet), native)
    show(data, figures, json, model if record else None)
