"""A self-contained page of what was found: thumbnails, similarities, labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image

from dcu.image import ImageArray, jpeg_url
from dcu.pages import render
from dcu.search.index import Hit

SIDE = 320
"""Pixels of the longer side of a thumbnail."""


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
    shown = [{"hit": hit, "source": thumbnail(images[hit.input]) if hit.input in images else None} for hit in hits]
    return render("dcu.search", "page.html.j2", query=query, source=thumbnail(image), shown=shown, facts=facts)
