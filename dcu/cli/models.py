"""``dcu models``: list, show and verify the installed models."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from dcu import store
from dcu.cli import files, options
from dcu.errors import UnavailableError

app = typer.Typer(add_completion=False, no_args_is_help=True, help="List, show and verify the installed models.")
Names = Annotated[list[str] | None, typer.Argument(help="Names or paths.", show_default="all")]


@app.command("list")
def list_models(as_json: options.Json = False) -> None:
    """Every installed model, a line each."""
    for model in store.installed():
        if as_json:
            facts = {key: model.card.get(key) for key in ("name", "kind", "codec", "fingerprint", "bytes")}
            files.print_json(facts | {"folder": str(model.folder)})
        else:
            size = f"{model.card.get('bytes', 0) / 1e6:.1f} MB"
            typer.echo(f"{model.name:<24} {model.kind:<12} {model.fingerprint[:8]}  {size:>8}  {model.folder}")


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name or path.")]) -> None:
    """A model's card, without its list of labels."""
    card = {key: value for key, value in store.find(name).card.items() if key != "labels"}
    typer.echo(json.dumps(card, indent=1, ensure_ascii=False))


@app.command()
def verify(names: Names = None) -> int:
    """Check weights against cards, fingerprints against weights, and that each network's codec is there."""
    from dcu.codec import Codec
    from dcu.tasks.classify import Classifier

    models = [store.find(name) for name in names] if names else list(store.installed())
    if not models:
        raise UnavailableError("no model is installed")
    failures = files.Failures()
    for model in models:
        with failures.of(model.name):
            if model.kind == "codec":
                Codec.from_model(model)
            else:
                Classifier.load(model.folder)
            typer.echo(f"{model.name}: as its card says")
    return failures.exit_code
