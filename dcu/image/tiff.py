"""The directory of a TIFF file: the tags that its pixels need, and what the others state."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from dcu.errors import InvalidInputError
from dcu.image.container import Container
from dcu.image.directory import ORIENTATION, Directory, Entry, Layout, layout, valid
from dcu.image.formats import UNSUPPORTED
from dcu.image.limits import check_size
from dcu.image.samples import BYTEWISE, SampleLayout, sample_layout

PIXEL_TAGS = frozenset(
    {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332, 338, 339}
    | {347, *range(512, 522), 529, 530, 531, 532}
)
COLOR_MAP, PROFILE, SUBFILE, OLD_SUBFILE = 320, 34675, 254, 255
PLACEHOLDER = re.compile(r"%[-+ #0-9.*]*(?:hh|ll|[hlzjtLI]|I64)*[a-zA-Z]")
"""Of a value in a format string of C."""
REDUCED_OR_MASK = 0b101
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2


class TIFF(NamedTuple):
    """A TIFF file; ``samples`` where Pillow would misread its pixels, whose colors are of the kind ``photometric``.

    ``alpha`` is None, or whether colors are multiplied by the opacity that follows them.
    """

    container: Container
    directory: Directory
    samples: SampleLayout | None
    photometric: int
    alpha: bool | None


def accepts(data: bytes) -> bool:
    """Whether these are the first bytes of a TIFF file, of any byte order that Pillow knows."""
    return data[:2] in (b"II", b"MM") and data[2:4] in (b"*\0", b"\0*", b"+\0", b"\0+")


def parse(data: bytes) -> TIFF:
    """The first image of the file, without the tags that its pixels do not need.

    Raises
    ------
    InvalidInputError
        The directory is damaged, the image is too large, or of an unsupported kind.
    """
    start = layout(data)
    if start is None:
        raise InvalidInputError("damaged TIFF image (no header)")
    kind, at = start
    directory, _ = kind.read(data, at)
    width, height = directory.number(256, 0), directory.number(257, 0)
    if min(width, height) <= 0:
        raise InvalidInputError("damaged TIFF image (no size)")
    check_size(width, height)
    photometric = directory.number(262, 0)
    profile = directory.entries.get(PROFILE)
    container = Container(
        "TIFF",
        reduced(data, kind, directory),
        valid(directory.number(ORIENTATION, 1)),
        profile.value if profile else None,
        pages(data, kind, at),
    )
    extra = directory.numbers(338)
    alpha = extra[0] == 1 if extra and extra[0] in (1, 2) else None
    samples = sample_layout(kind, directory) if beyond_pillow(directory) else None
    needed = (3 if photometric == RGB else 1) + (alpha is not None)
    if samples and samples.samples < needed:
        raise InvalidInputError("damaged TIFF image (samples are missing)")
    if samples and samples.planar:
        samples = replace(samples, samples=needed)
    return TIFF(container, directory, samples, photometric, alpha)


def refused(errors: list[str]) -> InvalidInputError | None:
    """Why libtiff finds a file damaged or unsupported; None where it does not."""
    for text in errors:
        kind = "unsupported" if UNSUPPORTED.search(text) else "damaged"
        return InvalidInputError(f"{kind} TIFF image ({PLACEHOLDER.sub('...', text.partition(' at ')[0])})")
    return None


def beyond_pillow(directory: Directory) -> bool:
    """Whether the samples are of a kind that Pillow reads wrongly, or only in some byte orders and layouts."""
    bits, planar = max(directory.numbers(258, (1,))), directory.number(284, 1) == 2
    unusual = bits > 8 or directory.number(339, 1) != 1 or (planar and bits == 8)
    colors = directory.number(262, 0) in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB)
    return unusual and colors and directory.number(259, 1) in BYTEWISE


def reduced(data: bytes, kind: Layout, directory: Directory) -> bytes:
    """The file with one directory, of the tags that the pixels need."""
    entries = {tag: entry for tag, entry in directory.entries.items() if tag in PIXEL_TAGS}
    if COLOR_MAP in entries:
        entries[COLOR_MAP] = color_map(directory, entries[COLOR_MAP])
    return kind.classic_file(entries, data)


def color_map(directory: Directory, entry: Entry) -> Entry:
    """A color map of 16-bit values, where a program has written 8-bit ones."""
    values = np.array(directory.numbers(COLOR_MAP), f"{directory.order}u2")
    return Entry(3, (values * 257).tobytes()) if values.size and values.max() < 256 else entry


def pages(data: bytes, kind: Layout, at: int) -> int:
    """How many images the file has, the first one and those that are no reduced versions or masks of others."""
    return sum(
        number == 0 or (directory.number(SUBFILE, 0) & REDUCED_OR_MASK == 0 and directory.number(OLD_SUBFILE, 1) != 2)
        for number, directory in enumerate(kind.chain(data, at))
    )
