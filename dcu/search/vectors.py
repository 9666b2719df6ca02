"""The vectors of an index in memory, where they are searched more than once."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

AT_ONCE = 512
"""Rows that are compared at a time: they stay in the processor's cache."""


class Vectors:
    """Rows (n, D) float16, compared by cosine similarity.

    Parameters
    ----------
    count, length : int
        n and D.
    parts : iterable of ndarray
        (m, D) float16, the rows one after the other.
    """

    def __init__(self, count: int, length: int, parts: Iterable[NDArray[np.float16]]) -> None:
        rows = np.empty((count, length), np.float16)
        start = 0
        for part in parts:
            rows[start : start + len(part)] = part
            start += len(part)
        self.rows = torch.from_numpy(rows)
        self.lengths = torch.cat([part.float().norm(dim=1) for part in self.rows.split(AT_ONCE)])

    def nearest(self, query: NDArray[np.float16], top: int) -> tuple[list[int], list[float]]:
        """Numbers and cosine similarities of the ``top`` rows most similar to (D,), by falling similarity."""
        vector = torch.from_numpy(query.astype(np.float32))
        products = torch.cat([part.float() @ vector for part in self.rows.split(AT_ONCE)])
        found = (products / (self.lengths * vector.norm())).topk(min(top, len(self.rows)))
        return found.indices.tolist(), found.values.tolist()
