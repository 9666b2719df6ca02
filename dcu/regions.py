"""Boxes of latent positions: rows and columns of a layer."""

from __future__ import annotations

from dcu.bitstream import Layer, latent_size

Box = tuple[slice, slice]
"""Rows and columns, both with start and stop."""


def whole(layer: Layer) -> Box:
    """All positions of a layer."""
    h, w = latent_size(layer.width, layer.height)
    return slice(0, h), slice(0, w)


def size(part: slice) -> int:
    """How many positions a slice has."""
    return max(0, int(part.stop - part.start))


def common(one: slice, other: slice) -> slice:
    """What two slices have in common."""
    return slice(max(one.start, other.start), min(one.stop, other.stop))


def moved(part: slice, by: int) -> slice:
    """A slice, so many positions further."""
    return slice(part.start + by, part.stop + by)


def positions(box: Box) -> int:
    """How many positions a box has."""
    return size(box[0]) * size(box[1])


def grid(box: Box, side: int) -> list[Box]:
    """A box in squares of so many positions a side, row by row; those at its ends are smaller."""
    rows, columns = (
        [slice(start, min(start + side, part.stop)) for start in range(part.start, part.stop, side)] for part in box
    )
    return [(y, x) for y in rows for x in columns]
