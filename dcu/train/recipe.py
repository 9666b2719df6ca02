"""Recipes: TOML files, one dataclass per section."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from dcu.errors import MissingInputError, UsageError

R = TypeVar("R")

OPTIMIZERS = ("adam", "soap")


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: cosine decay of the learning rate after a linear warm-up."""

    steps: int
    learning_rate: float
    seed: int = 0
    warmup: int = 200
    optimizer: str = "adam"  # or "soap" (arXiv 2409.11321): fewer steps, each a third longer
    final: float = 0.02  # of the learning rate
    ema: float = 0.999
    clip: float = 1.0
    bf16: bool = False  # where :func:`computes_bf16`
    validate_every: int = 500
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer = {self.optimizer!r} is none of {', '.join(OPTIMIZERS)}")

    def scale(self, step: int) -> float:
        """The factor on the learning rate at a step."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def read_tables(path: Path) -> dict[str, Any]:
    """The sections of a TOML recipe; raises MissingInputError, UsageError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MissingInputError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error


def read_recipe(path: Path, **sections: type[Any]) -> dict[str, Any]:
    """A TOML recipe as one dataclass per section.

    Raises
    ------
    MissingInputError, UsageError
        No such file; broken TOML; a section or a name that does not exist, or lacks.
    """
    tables = read_tables(path)
    if extra := set(tables) - set(sections):
        raise UsageError(f"{path}: no section is called [{min(extra)}]")
    return {name: build(cls, tables.get(name, {}), f"{path} [{name}]") for name, cls in sections.items()}


def build(cls: type[R], table: Any, where: str) -> R:
    """A dataclass from a TOML table, with nested dataclasses in tuples."""
    if not isinstance(table, dict):
        raise UsageError(f"{where}: not a table")
    types = get_type_hints(cls)
    names = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    if extra := set(table) - names:
        raise UsageError(f"{where}: nothing is called {min(extra)}")
    values = {}
    for name, value in table.items():
        inner = getattr(types[name], "__args__", (types[name],))[0]
        if isinstance(value, list):
            nested = isinstance(inner, type) and is_dataclass(inner)
            value = tuple(build(inner, v, f"{where}.{name}") if nested else v for v in value)
        elif types[name] is float and type(value) is int:
            value = float(value)
        elif isinstance(types[name], type) and type(value) is not types[name]:
            raise UsageError(f"{where}: {name} = {value!r} is not of type {types[name].__name__}")
        values[name] = value
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where}: {error}") from error
