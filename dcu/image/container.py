"""What the readers of file formats have in common."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

log = logging.getLogger("dcu")
"""Notes on images that were read, but not as one might expect."""

XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)\s*([1-8])\b")


@dataclass(frozen=True)
class Container:
    """A file reduced to what its pixels need, and what the rest of it states.

    ``images`` is the number of its pages or frames.
    """

    format: str
    data: bytes
    orientation: int = 1
    profile: bytes | None = None
    images: int = 1


def xmp_orientation(xmp: bytes) -> int:
    """The orientation that XMP states; 1 where it states none."""
    found = XMP_ORIENTATION.search(xmp)
    return int(found[1]) if found else 1
