"""Recipes: TOML files, one dataclass per section."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from dcu.errors import MissingInputError, UsageError
from dcu.io import read_regular
from dcu.nets import MOST_BLOCKS
from dcu.schema import Between, Share, build

MOST_BYTES = 2**16
"""Of a recipe."""
MOST_WEIGHTS = 2**26
"""Numbers that a network may have: as many as a file of weights holds in float16."""

Positive = Annotated[float, Between(1e-12, 1e6)]
Width = Annotated[int, Between(1, 1024)]
Depth = Annotated[int, Between(1, MOST_BLOCKS)]
Steps = Annotated[int, Between(1, 10**9)]
Batch = Annotated[int, Between(1, 4096)]
HeldOut = Annotated[int, Between(0, 10**6)]
Side = Annotated[int, Between(8, 2048)]
MOST_PIXELS = 2**28
"""Of a batch."""
DatasetWeights = dict[str, Annotated[float, Between(0, 1e6)]]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: cosine decay of the learning rate after a linear warm-up."""

    steps: Steps
    learning_rate: Positive
    seed: Annotated[int, Between(0, 2**32 - 1)] = 0
    warmup: Annotated[int, Between(0, 10**9)] = 200
    optimizer: Literal["adam", "soap"] = "adam"  # soap (arXiv 2409.11321): fewer steps, each a third longer
    final: Share = 0.02  # of the learning rate
    ema: Share = 0.999
    clip: Positive = 1.0
    bf16: bool = False  # where :func:`dcu.train.loop.computes_bf16`
    validate_every: Steps = 500
    checkpoint_every: Steps = 500

    def scale(self, step: int) -> float:
        """The factor on the learning rate at a step."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def check_size(numbers: int) -> None:
    """Refuse a network of more than ``MOST_WEIGHTS`` numbers; raises ValueError."""
    if numbers > MOST_WEIGHTS:
        raise ValueError(f"a network of {numbers / 1e6:.0f} million weights; at most {MOST_WEIGHTS / 1e6:.0f}")


def check_crop(crop: int, batch: int, multiple: int) -> None:
    """Refuse crops that no latent fits, and batches of more than ``MOST_PIXELS``; raises ValueError."""
    if crop % multiple:
        raise ValueError(f"crop = {crop} is no multiple of {multiple}")
    if batch * crop**2 > MOST_PIXELS:
        raise ValueError(f"batch = {batch} of crop = {crop}: more than {MOST_PIXELS} pixels")


def read_tables(path: Path) -> dict[str, Any]:
    """The sections of a TOML recipe; raises MissingInputError, UsageError."""
    try:
        return tomllib.loads(read_regular(path, MOST_BYTES).decode("utf-8"))
    except OSError as error:
        raise MissingInputError(f"{path}: {error.strerror}") from error
    except RecursionError as error:
        raise UsageError(f"{path}: nested too deeply") from error
    except ValueError as error:  # of broken TOML, of text that is not UTF-8, of what is no file
        raise UsageError(f"{path}: {error}") from error


def read_recipe(path: Path, **sections: type[Any]) -> dict[str, Any]:
    """A TOML recipe as one dataclass per section.

    Raises
    ------
    MissingInputError, UsageError
        No such file; broken TOML; a section or a name that does not exist, or lacks; a value that is not of its type
        or out of bounds.
    """
    tables = read_tables(path)
    if extra := set(tables) - set(sections):
        raise UsageError(f"{path}: no section is called [{min(extra)[:40]}]")
    found = {}
    for name, cls in sections.items():
        try:
            found[name] = build(cls, tables.get(name, {}))
        except ValueError as error:
            raise UsageError(f"{path} [{name}]: {error}") from error
    return found
