"""A self-contained page of what was found: thumbnails, similarities, labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.util import find_spec

from PIL import Image

from dcu.errors import UnavailableError
from dcu.image import ImageArray, jpeg_url
from dcu.search.index import Hit

SIDE = 320
"""Pixels of the longer side of a thumbnail."""


def check_packages() -> None:
    """Raise UnavailableError where a package that the page needs is missing."""
    if find_spec("jinja2") is None:
        raise UnavailableError("jinja2 is not installed: pip install 'dcu-codec[search]'")


def thumbnail(image: ImageArray) -> str:
    """An image as a small JPEG file in a data: URL."""
    small = Image.fromarray(image)
    small.thumbnail((SIDE, SIDE))
    return jpeg_url(small, quality=85, optimize=True)


def page(query: str, image: ImageArray, hits: Sequence[Hit], images: Mapping[str, ImageArray], facts: str) -> str:
    """The page, HTML.

    Parameters
    ----------
    query : str
        Name of the query.
    image : array
        Its image (H, W, 3) uint8.
    hits : sequence of Hit
        What was found, in order.
    images : mapping
        The hits' images by input; a hit without one has a placeholder.
    facts : str
        A line below the title.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(resources.files("dcu.search").joinpath("page.html.j2").read_text("utf-8"))
    shown = [{"hit": hit, "source": thumbnail(images[hit.input]) if hit.input in images else None} for hit in hits]
    return template.render(query=query, source=thumbnail(image), shown=shown, facts=facts)
