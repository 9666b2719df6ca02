"""``dcu models``: list, show and verify the installed models."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from dcu import store
from dcu.cli import options
from dcu.cli.console import print_json, print_rows, say
from dcu.cli.files import Inputs
from dcu.cli.report import Report
from dcu.errors import UnavailableError

app = typer.Typer(add_completion=False, no_args_is_help=True, help="List, show and verify the installed models.")
Names = Annotated[list[str] | None, typer.Argument(help="Names or paths.", show_default="all")]


@app.command("list")
def list_models(as_json: options.Json = False) -> None:
    """List every installed model."""
    models = list(store.installed())
    if as_json:
        keys = ("name", "kind", "codec", "fingerprint", "bytes")
        rows = [{key: m.card.get(key) for key in keys} | {"directory": str(m.directory)} for m in models]
    else:
        rows = [
            {"name": m.name, "kind": m.kind, "fingerprint": m.fingerprint[:8]}
            | {"MB": round(m.card.get("bytes", 0) / 1e6, 1), "directory": str(m.directory)}
            for m in models
        ]
    print_rows(rows, as_json)


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name or path.")], as_json: options.Json = False) -> None:
    """A model's card, without its list of labels: JSON, with --json on one line."""
    card = {key: value for key, value in store.find(name).card.items() if key != "labels"}
    if as_json:
        print_json(card)
    else:
        say(*json.dumps(card, indent=1, ensure_ascii=False).splitlines())


@app.command()
def verify(names: Names = None, as_json: options.Json = False) -> int:
    """Check weights, fingerprints and costs against cards, and that each network's codec is there."""
    directories = [store.find(name).directory for name in names] if names else list(store.directories())
    if not directories:
        raise UnavailableError("no model is installed")
    report = Report(Inputs([directory.name for directory in directories]), as_json, quiet=False)
    for directory in directories:
        with report.of(directory.name):
            model = store.read_model(directory)
            check(model)
            if as_json:
                print_json({"input": directory.name, "kind": model.kind, "fingerprint": model.fingerprint})
            else:
                say(f"{directory.name}: as its card says")
    return report.exit_code


def check(model: store.Model) -> None:
    """Compare what a card states with what is there; raises UnavailableError."""
    from dcu.codec import Codec
    from dcu.evaluate.cost import classifier_cost, codec_cost, segmenter_cost
    from dcu.tasks.classify import Classifier
    from dcu.tasks.segment import Segmenter

    facts = {
        "name": model.directory.name,
        "parameters": sum(tensor.numel() for tensor in model.weights().values()),
        "bytes": (model.directory / store.WEIGHTS).stat().st_size,
    }
    if model.kind == "codec":
        facts |= codec_cost(Codec.from_model(model))
    elif model.kind == "classifier":
        facts |= classifier_cost(Classifier.load(model.directory))
    elif model.kind == "segmenter":
        segmenter = Segmenter.load(model.directory)
        facts |= {"macs": segmenter_cost(segmenter.network, "latent", segmenter.codec)}
    for name, value in facts.items():
        if model.card.get(name) != value:
            raise UnavailableError(f"{name} is {value}, its card says {model.card.get(name)}")
