"""``dcu models``: list, show, verify and remove installed models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from dcu import cards, install, store, weights
from dcu.cli import options
from dcu.cli.console import print_json, print_rows, say
from dcu.cli.files import Inputs
from dcu.cli.report import Report
from dcu.errors import UnavailableError

app = typer.Typer(add_completion=False, no_args_is_help=True, help="List, show, verify and remove installed models.")
KINDS = ("codec", "classifier", "segmenter")
Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME", help="Names or paths.", show_default="all", autocompletion=options.installed(*KINDS)
    ),
]


@app.command("list")
def list_models(as_json: options.Json = False) -> int:
    """List installed models.

    Example: dcu models list --json
    """
    directories = list(store.directories())
    report, rows = Report(Inputs([str(directory) for directory in directories]), as_json, quiet=True), []
    for directory in directories:
        with report.of(str(directory)):
            model = store.read_model(directory)
            card, row = model.card, dict[str, str | int | None](name=model.name, kind=model.kind)
            if as_json:
                row |= {"codec": card.codec, "fingerprint": card.fingerprint, "bytes": card.bytes}
            else:
                row |= {"fingerprint": card.fingerprint[:8], "MB": f"{card.bytes / 1e6:.1f}"}
            rows.append(row | {"directory": str(model.directory)})
    print_rows(rows, as_json)
    return report.exit_code


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name or path.", autocompletion=options.installed(*KINDS))
    ],
    as_json: options.Json = False,
) -> None:
    """Print a model's card, without the labels of custom classes.

    Prints indented JSON, or one line with --json.

    Example: dcu models show codec-2
    """
    card = cards.facts(store.find(name).card)
    if isinstance(card.get("labels"), list):
        del card["labels"]
    if as_json:
        print_json(card)
    else:
        say(*json.dumps(card, indent=1, ensure_ascii=False).splitlines())


@app.command()
def verify(names: Names = None, as_json: options.Json = False) -> int:
    """Check weights, fingerprints and costs against model cards.

    Example: dcu models verify classifier-2
    """
    places: list[str | Path] = [*names] if names else [*store.directories()]
    if not places:
        raise UnavailableError("no model is installed")
    report = Report(Inputs([Path(place).name for place in places]), as_json, quiet=False)
    for place in places:
        with report.of(place if isinstance(place, str) else place.name):
            model = store.find(place)
            check(model)
            if as_json:
                print_json({"input": model.name, "kind": model.kind, "fingerprint": model.fingerprint})
            else:
                say(f"{model.name}: verified")
    return report.exit_code


def check(model: store.Model) -> None:
    """Compare what a card states with what is there; raises UnavailableError."""
    import numpy as np
    import torch

    from dcu.codec import Codec
    from dcu.evaluate.cost import classifier_cost, codec_cost, segmenter_cost
    from dcu.geometry import BLOCK, LATENT_CROP
    from dcu.tasks.classify import Classifier
    from dcu.tasks.segment import Segmenter

    counted = replace(
        model.card,
        name=model.directory.name,
        parameters=sum(tensor.numel() for tensor in model.weights().values()),
        bytes=(model.directory / store.WEIGHTS).stat().st_size,
    )
    if model.kind == "codec":
        codec = Codec.from_model(model)
        counted = replace(counted, macs_per_pixel=codec_cost(codec))
        codec.analyze(np.zeros((BLOCK, BLOCK, 3), np.uint8), 0)
        codec.synthesize(torch.zeros(1, codec.channels, 1, 1), 0)
    elif model.kind == "classifier":
        classifier = Classifier.load(model.directory, engine="pytorch")
        counted = replace(counted, macs=classifier_cost(classifier))
        classifier.probabilities([[torch.zeros(1, classifier.network.channels, LATENT_CROP, LATENT_CROP)]])
    elif model.kind == "segmenter":
        segmenter = Segmenter.load(model.directory)
        counted = replace(counted, macs=segmenter_cost(segmenter.network, "latent", segmenter.codec))
        latent = torch.zeros(1, segmenter.network.channels, LATENT_CROP, LATENT_CROP)
        weights.finite(segmenter.network(latent), model.name)
    stated = cards.facts(model.card)
    for name, value in cards.facts(counted).items():
        if stated.get(name) != value:
            raise UnavailableError(f"{name} is {value}, but the card states {stated.get(name)}")


@app.command()
def remove(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the model.", autocompletion=options.installed(*KINDS))
    ],
) -> None:
    """Remove a model from the user's data directory.

    Example: dcu models remove flowers-2
    """
    say(f"removed {install.remove(name)}")
