"""``dcu data``: list data sets and build them from clones of public repositories."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from dcu.cli import options
from dcu.cli.console import complain, outlive_stdout, say
from dcu.datasets.build import build, differences, duplicates, up_to_date
from dcu.datasets.files import Clones
from dcu.datasets.table import DATA_SETS, DataSet, Repository
from dcu.errors import MissingInputError, OutputError, UsageError

app = typer.Typer(add_completion=False, no_args_is_help=True, help="List and build training and validation sets.")
Directory = Annotated[
    Path, typer.Option("--clones", metavar="DIR", help="Directory with one git clone per repository.")
]


def data_sets(incomplete: str) -> list[str]:
    """The completion of data sets' names."""
    return [name for name in (*DATA_SETS, "all") if name.startswith(incomplete)]


@app.command("list")
def list_sets(clones: Directory = Path("clones")) -> None:
    """List data sets and the commands that clone their repositories.

    Example: dcu data list --clones clones
    """
    for dataset in DATA_SETS.values():
        say(f"{dataset.name}: {dataset.title}", f"  terms: {dataset.terms}")
        for tar in dataset.tars:
            say(f"  {tar.name:<24} {tar.images:>6,} images to {tar.purpose.value}")
        for repository in dataset.repositories:
            say(f"  {clone_command(repository, clones)}")


@app.command("build")
def build_sets(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME", help=f"{', '.join(DATA_SETS)}, or all.", autocompletion=data_sets)
    ],
    clones: Directory,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Directory for the tars.")] = Path(
        "data"
    ),
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing tars.")] = False,
    dry_run: options.DryRun = False,
) -> None:
    """Build the tars of data sets and verify their hashes.

    If clones are missing, prints the commands that create them.

    Example: dcu data build kodak --clones clones
    """
    chosen = [dataset_named(name) for name in (DATA_SETS if "all" in names else names)]
    if dry_run:
        for path in [output / tar.name for dataset in chosen for tar in dataset.tars]:
            say(f"{path}{' (exists)' if path.exists() else ''}")
        return
    found = Clones(clones)
    if missing := found.missing({repository: None for dataset in chosen for repository in dataset.repositories}):
        for repository in missing:
            say(clone_command(repository, clones))
        raise MissingInputError(f"{clones}: {len(missing)} clones are missing; the commands above create them")
    outlive_stdout()
    for dataset in chosen:
        build_set(dataset, found, output, force)


def build_set(dataset: DataSet, clones: Clones, output: Path, force: bool) -> None:
    """Build one data set; print its tars, and warn of what is not as recorded."""
    existing = [output / tar.name for tar in dataset.tars if (output / tar.name).exists()]
    if existing and not force:
        if up_to_date(dataset, output):
            say(f"{dataset.name}: up to date")
            return
        raise OutputError(f"{existing[0]}: exists and differs from the record; use --force to overwrite it")
    tars = build(dataset, clones, output)
    for tar in tars:
        state = "as recorded" if tar.as_recorded else "not as recorded"
        say(f"{tar.path}: {tar.images:,} images, {tar.path.stat().st_size / 1e6:.1f} MB, {state}")
    for difference in differences(dataset, tars, clones):
        complain(f"warning: {dataset.name}: {difference}")
    for duplicate in duplicates(tars):
        complain(f"note: {dataset.name}: {duplicate}")


def dataset_named(name: str) -> DataSet:
    """The data set of that name."""
    if name not in DATA_SETS:
        raise UsageError(f"{name}: no such data set; choose from {', '.join(DATA_SETS)}, or all")
    return DATA_SETS[name]


def clone_command(repository: Repository, clones: Path) -> str:
    """The command that clones a repository into the directory."""
    return (
        f"git clone --depth 1 https://github.com/{repository.name} "
        f"{shlex.quote(str(clones / repository.name.replace('/', '+')))}  # {repository.megabytes} MB"
    )
