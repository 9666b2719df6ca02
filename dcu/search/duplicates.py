"""Near-duplicates of an index: groups of rows that are linked by a high similarity."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dcu.search.index import NEAR_DUPLICATE, Index

BLOCK = 4096
"""Rows that are compared with as many others at once: 110 MB."""


@dataclass(frozen=True)
class Group:
    """Inputs of near-duplicates, each linked to another one, and the lowest similarity of their most similar links."""

    inputs: list[str]
    similarity: float


class Linked:
    """Which rows are linked, directly or through others: a label per row, which is the lowest row of its group."""

    def __init__(self, count: int) -> None:
        self.labels = np.arange(count)
        self.best = np.full(count, -1.0, np.float32)

    def link(self, row: int, others: NDArray[np.int64], similarities: NDArray[np.float32]) -> None:
        """Link a row to others."""
        found = np.unique(self.labels[np.append(others, row)])
        if len(found) > 1:
            self.labels[np.isin(self.labels, found)] = found[0]
        self.best[others] = np.maximum(self.best[others], similarities)
        self.best[row] = max(self.best[row], similarities.max())

    def groups(self) -> list[list[int]]:
        """The rows of each group of at least two."""
        members = defaultdict(list)
        for row in np.flatnonzero(self.best >= 0).tolist():
            members[int(self.labels[row])].append(row)
        return list(members.values())


def duplicates(index: Index, least: float = NEAR_DUPLICATE) -> Iterator[Group]:
    """Groups of rows linked by a cosine similarity of at least ``least``, in the order of their first rows.

    All pairs are compared, ``BLOCK`` rows with as many others at a time: the time grows with the square of their
    number, the memory by 12 bytes per row and the names of the groups.

    Raises
    ------
    InvalidInputError
        The index is damaged.
    """
    linked = Linked(index.count)
    for start in range(0, index.count, BLOCK):
        rows = index.vectors(start, BLOCK)
        for other in range(start, index.count, BLOCK):
            compare(linked, rows, start, rows if other == start else index.vectors(other, BLOCK), other, least)
    groups = linked.groups()
    names = inputs_of(index, {row for members in groups for row in members})
    for members in groups:
        yield Group([names[row] for row in members], round(min(1.0, float(linked.best[members].min())), 4))


def inputs_of(index: Index, rows: set[int]) -> dict[int, str]:
    """The inputs of rows by their numbers."""
    found: dict[int, str] = {}
    for start in sorted({row // BLOCK * BLOCK for row in rows}):
        names = index.rows(start, BLOCK, ["input"])["input"].to_pylist()
        found |= {row: name for row, name in enumerate(names, start) if row in rows}
    return found


def compare(
    linked: Linked,
    rows: NDArray[np.float32],
    start: int,
    others: NDArray[np.float32],
    begin: int,
    least: float,
) -> None:
    """Link rows (n, 1280) from ``start`` on to those (m, 1280) from ``begin`` on that are behind them."""
    similarities = rows @ others.T
    if start == begin:
        similarities[np.tril_indices(len(rows))] = -1.0
    matches = similarities >= least
    for row in np.flatnonzero(matches.any(1)).tolist():
        columns = np.flatnonzero(matches[row])
        linked.link(start + row, columns + begin, similarities[row, columns])
