"""Views that are made once: what a codec makes of an image costs more than a step of a small network."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dcu.errors import OutputError


class KeptArrays:
    """So many arrays of one shape and type in a file, each computed when it is first asked for.

    The file has room for all of them from the start, and one byte for each that says whether it is there. ``path``
    must name what the arrays depend on: a file that is there already is continued.
    """

    def __init__(self, path: Path, count: int, shape: Sequence[int], dtype: torch.dtype) -> None:
        kind = torch.empty(0, dtype=dtype).numpy().dtype
        size = count * (1 + math.prod(shape) * kind.itemsize)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+b") as file:
                if hasattr(os, "posix_fallocate"):  # a full disk shows now, not as a signal later
                    os.posix_fallocate(file.fileno(), 0, size)
                file.truncate(size)
            self.there: NDArray[np.uint8] = np.memmap(path, np.uint8, "r+", 0, count)
            self.arrays: NDArray[np.generic] = np.memmap(path, kind, "r+", count, (count, *shape))
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror}") from error

    def __call__(self, numbers: Sequence[int], make: Callable[[list[int]], Tensor]) -> Tensor:
        """The arrays of these numbers, (n, *shape); ``make`` gives those that are missing."""
        missing = sorted({number for number in numbers if not self.there[number]})
        if missing:
            self.arrays[missing] = make(missing).cpu().numpy()
            self.there[missing] = 1
        return torch.from_numpy(self.arrays[list(numbers)])
