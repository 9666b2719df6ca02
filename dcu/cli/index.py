"""``dcu index``: indexes of embeddings, from tables that ``dcu embed`` wrote."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dcu.cli import options
from dcu.cli.console import complain, outlive_stdout, print_json, say
from dcu.errors import InvalidInputError

if TYPE_CHECKING:
    from dcu.search.index import Added, Index

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Build and maintain an index of embeddings.")
Tables = Annotated[
    list[Path],
    typer.Argument(metavar="TABLE...", help="Tables of dcu embed, .parquet or .jsonl.", show_default=False),
]
IndexPath = Annotated[Path, typer.Argument(metavar="INDEX", help="Directory of the index.", show_default=False)]
Labels = Annotated[
    Path | None,
    typer.Option("--labels", metavar="FILE", help="Take labels from a table of dcu classify, joined by input."),
]


@app.command()
def build(
    tables: Tables,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="INDEX", help="Directory of the index.")],
    labels: Labels = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing index once the new one is complete.")
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Build an index of embeddings.

    Example: dcu index build features.parquet -o index/
    """
    from dcu.search import index

    outlive_stdout()
    show(index.build(output, tables, labels, force), output, json, quiet)


@app.command()
def add(
    tables: Tables,
    index: IndexPath,
    labels: Labels = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Add tables to an index.

    Inputs that are in it already are skipped.

    Example: dcu index add more.parquet index/
    """
    from dcu.search.index import Index

    outlive_stdout()
    show(Index(index).add(tables, labels), index, json, quiet)


@app.command()
def approximate(index: IndexPath, json: options.Json = False) -> None:
    """Make search approximate and fast.

    Prints recall@10: the share of the 10 nearest neighbors of exact search that it
    finds. Run it again after adding many images.

    Example: dcu index approximate index/
    """
    from dcu.search.index import Index

    opened = Index(index)
    recall = opened.make_approximate()
    if json:
        print_json({"index": str(index), "count": opened.count, "recall_at_10": round(recall, 4)})
    else:
        say(f"{index}: {opened.count:,} embeddings, recall@10 {recall:.3f} against exact search")


@app.command()
def duplicates(
    index: IndexPath,
    min_similarity: Annotated[
        float | None,
        typer.Option(
            "--min-similarity",
            metavar="S",
            min=-1,
            max=1,
            help="Cosine similarity of near-duplicates.",
            show_default="0.9",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """List groups of near-duplicates.

    Example: dcu index duplicates index/ --json
    """
    from dcu.search.duplicates import duplicates as groups
    from dcu.search.index import NEAR_DUPLICATE, Index

    least = NEAR_DUPLICATE if min_similarity is None else min_similarity
    empty = True
    for group in groups(Index(index), least):
        empty = False
        if json:
            print_json(asdict(group))
        else:
            say(
                f"{len(group.inputs)} images, similarity {group.similarity:.3f}",
                *(f"  {name}" for name in group.inputs),
            )
    if empty and not json:
        complain(f"note: no two images have a similarity of {least:g} or more")


def show(added: Added, path: Path, json: bool, quiet: bool) -> None:
    """Say what an index holds now."""
    from dcu.search.index import Index

    if json:
        print_json({"index": str(path)} | asdict(added))
    else:
        counts = f"{added.added:,} added, {added.skipped:,} skipped"
        counts += f", {added.labeled:,} labeled" if added.labeled else ""
        say(f"{path}: {added.count:,} embeddings of {added.network}, {counts}")
    if not quiet:
        advise(Index(path))
    if added.zero:
        complain(f"{added.zero[0]}: its embedding is zero; left out, {len(added.zero)} such in total")
        raise typer.Exit(InvalidInputError.exit_code)


def advise(index: Index) -> None:
    """Say what makes search through a large index fast."""
    from dcu.search.index import LARGE

    if index.count > LARGE and not index.approximate:
        complain(f"note: more than {LARGE:,} embeddings; 'dcu index approximate {index.path}' makes search faster")
