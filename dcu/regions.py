"""Boxes of latent positions: rows and columns of a layer."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from dcu.bitstream import Layer, latent_size

ONE_PIECE = 2**14
"""Latent positions (2^20 pixels) up to which an image goes through the transforms in one piece."""
PIECE = 128
"""Latent positions a side of the fixed grid in which larger ones do, each piece with its halo."""
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


def in_pieces(
    transform: Callable[[slice, slice], Tensor], out: Tensor, h: int, w: int, scale: int, halo: int
) -> Tensor:
    """Fill ``out`` (channels, up to h * scale, up to w * scale) by a transform of latent rows and columns.

    Up to ``ONE_PIECE`` positions in one piece; above, on a fixed grid of pieces, each computed with a halo of its
    receptive field and cropped. Pieces follow each other along the shorter side first.
    """
    side = max(h, w) if h * w <= ONE_PIECE else PIECE
    places = [(top, left) for top in range(0, h, side) for left in range(0, w, side)]
    for top, left in sorted(places, key=lambda place: place[::-1]) if h < w else places:
        bottom, right = min(top + side, h), min(left + side, w)
        rows, columns = (
            slice(max(0, top - halo), min(h, bottom + halo)),
            slice(max(0, left - halo), min(w, right + halo)),
        )
        part = transform(rows, columns)
        place = out[:, top * scale : bottom * scale, left * scale : right * scale]
        y, x = (top - rows.start) * scale, (left - columns.start) * scale
        place.copy_(part[:, y : y + place.shape[1], x : x + place.shape[2]])
    return out
