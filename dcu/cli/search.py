"""``dcu search``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dcu import remote
from dcu.cli import console, files, options, places
from dcu.cli.entries import Entry
from dcu.cli.index import advise
from dcu.errors import InvalidInputError, UsageError, named
from dcu.image import ImageArray, read_image
from dcu.pages import check_packages
from dcu.walk import BITSTREAMS

if TYPE_CHECKING:
    from dcu.bitstream import Stream
    from dcu.search.index import Hit, Index
    from dcu.tasks.classify import Classifier

app = typer.Typer(add_completion=False)


@app.command()
def search(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="Directory of the index.", show_default=False)],
    query: Annotated[
        str,
        typer.Argument(
            metavar="QUERY",
            help="Image or bitstream (.dcu, .bin); - for a bitstream on standard input.",
            show_default=False,
        ),
    ],
    top: Annotated[int, typer.Option(metavar="K", min=1, help="Number of images to find.")] = 10,
    where: Annotated[
        str | None,
        typer.Option(metavar="SQL", help="Search only among rows for which this holds: \"label = 'tabby cat'\"."),
    ] = None,
    min_similarity: Annotated[
        float, typer.Option("--min-similarity", metavar="S", min=-1, max=1, help="Omit images less similar than S.")
    ] = -1.0,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare with all images, also of an approximate index.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with thumbnails of what was found.")
    ] = None,
    network: Annotated[
        str | None,
        options.model(
            "--network", "classifier", help="Network of the index, by name or path.", show_default="by its name"
        ),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(
            metavar="Q",
            min=0,
            max=63,
            help="Operating point at which an image is compressed; that of the archive finds most.",
            show_default="that of 0.0983 bpp",
        ),
    ] = None,
    force: options.Force = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> None:
    """Find the most similar images of an index.

    An image is compressed by the codec of the index's network first. Similarity
    is the cosine between embeddings.

    Example: dcu search index/ photo.jpg --top 10
    """
    from dcu.search.index import Index

    opened = Index(index)
    source = files.named(remote.local(query)) if query != "-" else files.Source("-", None, Path("stdin"))
    if html is not None:
        check_packages("search")
        places.refuse(html, [source.path] if source.path else [], "--html")
        files.check_free(html, force)
        console.outlive_stdout()
    classifier = network_of(opened, network, options.start(threads, device))
    stream, image = asked(source, classifier, quality)
    vector = classifier.embed(classifier.look([stream]))[0].numpy()
    hits = opened.search(vector, top, where, min_similarity, exact)
    console.print_rows([asdict(hit) if json else cells(hit) for hit in hits], json)
    if html is not None:
        files.put(
            html,
            page_of(source.name, stream, image, classifier, opened, hits).encode("utf-8", "backslashreplace"),
            force,
        )
    if not quiet:
        advise(opened)


def network_of(index: Index, named: str | None, device: str) -> Classifier:
    """The network of an index, on PyTorch as for embeddings in tables.

    Raises
    ------
    InvalidInputError
        The index is of another network than the named one.
    UnavailableError
        It is not installed.
    """
    from dcu.tasks.classify import Classifier

    classifier = Classifier.load(named or index.network, device, "pytorch")
    if (classifier.name, classifier.codec.name) != (index.network, index.codec):
        made_by, asked = (
            f"{a} on {b}" for a, b in ((index.network, index.codec), (classifier.name, classifier.codec.name))
        )
        raise InvalidInputError(f"{index.path}: embeddings of {made_by}, not of {asked}")
    return classifier


def asked(source: files.Source, classifier: Classifier, quality: int | None) -> tuple[Stream, ImageArray | None]:
    """The bitstream of a query, and the image that it was compressed from, if it is one.

    Raises
    ------
    InvalidInputError, MissingInputError, UnavailableError
        Neither an image nor a bitstream of the network's codec; with its name.
    UsageError
        The codec has no such operating point; a bitstream, which is not compressed again.
    """
    with named(source.name):
        if source.name != "-" and source.relative.suffix.lower() not in BITSTREAMS:
            image = read_image(source.image())
            try:
                return classifier.codec.read(classifier.codec.compress(image, quality=quality)), image
            except ValueError as error:
                raise UsageError(f"--quality: {error}") from error
        if quality is not None:
            raise UsageError("--quality: QUERY is a bitstream, which is not compressed again")
        stream = Entry(source.name, source.path, source.relative).stream
        classifier.codec.check(stream)
    return stream, None


def cells(hit: Hit) -> dict[str, object]:
    """A hit for people."""
    return {
        "similarity": f"{hit.similarity:.3f}",
        "near-duplicate": "yes" if hit.near_duplicate else "",
        "label": hit.label,
        "input": hit.input,
    }


def page_of(
    name: str, stream: Stream, image: ImageArray | None, classifier: Classifier, index: Index, hits: Sequence[Hit]
) -> str:
    """The page of what was found."""
    from dcu.search.bitstreams import images
    from dcu.search.page import page

    shown = classifier.codec.decode(stream, thumbnail=True) if image is None else image
    facts = f"{len(hits)} of {index.count:,} images by {index.network}; similarity is the cosine between embeddings"
    return page(name, shown, hits, images(hits), facts)
