"""Recipes: TOML files, one dataclass per section.

A recipe of several rates has a table [rate.RATE.SECTION] for what differs, and is named NAME-RATE. ``base`` names a
recipe whose values it begins with; ``[data] mixture`` a table of mixtures.toml, beside it or as dcu ships it.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from dcu import paths, store
from dcu.errors import MissingInputError, UsageError
from dcu.io import read_regular
from dcu.nets import MOST_BLOCKS
from dcu.schema import Between, Share, build

T = TypeVar("T")
Tables = dict[str, Any]
"""What TOML holds; read by this module alone."""
SUFFIX, MIXTURES = ".toml", "mixtures"
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
    """Steps and learning rate: cosine decay of the learning rate after a linear warm-up."""

    steps: Steps
    learning_rate: Positive
    seed: Annotated[int, Between(0, 2**32 - 1)] = 0
    warmup: Annotated[int, Between(0, 10**9)] = 200
    optimizer: Literal["adam", "soap", "sgd"] = "adam"  # soap (arXiv 2409.11321): fewer steps, each a third longer
    weight_decay: Share = 0.0  # of sgd
    final: Share = 0.02  # of the learning rate
    ema: Share = 0.999
    clip: Positive = 1.0
    bf16: bool = False  # where :func:`dcu.precision.computes_bf16`
    validate_every: Steps = 500
    checkpoint_every: Steps = 500

    def scale(self, step: int) -> float:
        """The factor on the learning rate at a step; the warm-up takes half of the steps at most."""
        warmup = min(self.warmup, self.steps // 2)
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(1, self.steps - warmup)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def check_size(numbers: int) -> None:
    """Refuse a network of more than ``MOST_WEIGHTS`` numbers; raises ValueError."""
    if numbers > MOST_WEIGHTS:
        raise ValueError(f"network has {numbers / 1e6:.0f} million weights, more than {MOST_WEIGHTS / 1e6:.0f}")


def check_crop(crop: int, batch: int, multiple: int) -> None:
    """Refuse crops that no latent fits, and batches of more than ``MOST_PIXELS``; raises ValueError."""
    if crop % multiple:
        raise ValueError(f"crop = {crop} must be a multiple of {multiple}")
    if batch * crop**2 > MOST_PIXELS:
        raise ValueError(f"batch = {batch} of crop = {crop}: more than {MOST_PIXELS} pixels")


@dataclass(frozen=True)
class Recipe:
    """A recipe of one rate: its name, after which the run is called, its file, and its tables."""

    name: str
    path: Path
    tables: Tables

    def has(self, section: str) -> bool:
        """Whether there is a section of that name."""
        return section in self.tables

    def sections(self, cls: type[T]) -> T:
        """The sections, as a dataclass with a field for each; raises UsageError, with what is wrong."""
        try:
            return build(cls, self.tables)
        except ValueError as error:
            raise UsageError(f"{self.path}: {error}") from error


def read_tables(path: Path) -> Tables:
    """The tables of a TOML file; raises MissingInputError, UsageError."""
    try:
        return tomllib.loads(read_regular(path, MOST_BYTES).decode("utf-8"))
    except OSError as error:
        raise MissingInputError(f"{path}: {error.strerror}") from error
    except RecursionError as error:
        raise UsageError(f"{path}: nested too deeply") from error
    except ValueError as error:  # of broken TOML, of text that is not UTF-8, of what is no file
        raise UsageError(f"{path}: {error}") from error


def merged(tables: Tables, others: Tables) -> Tables:
    """Tables with the values of others in the place of their own, tables inside them likewise."""
    found = dict(tables)
    for key, value in others.items():
        mine = found.get(key)
        found[key] = merged(mine, value) if isinstance(mine, dict) and isinstance(value, dict) else value
    return found


def beside(path: Path, name: str) -> Path:
    """The file of a name beside a recipe, or where there is none the one that dcu ships."""
    own = path.with_name(f"{name}{SUFFIX}")
    return own if own.exists() else paths.shipped("configs") / own.name


def with_base(path: Path, above: tuple[Path, ...] = ()) -> Tables:
    """The tables of a recipe over those of the recipe that its ``base`` names; ``above``: the recipes based on it."""
    tables = read_tables(path)
    base = tables.pop("base", None)
    if base is None:
        return tables
    if not isinstance(base, str) or store.is_path(base):
        raise UsageError(f"{path}: base must be the name of a recipe")
    if (found := beside(path, base)) in (above := (*above, path)):
        raise UsageError(f"{path}: base leads back to {base}")
    return merged(with_base(found, above), tables)


def of_rate(path: Path, tables: Tables, rate: str) -> Tables:
    """The tables with those of one rate over them; "" for a recipe without rates."""
    rates = tables.pop("rate", {})
    if not isinstance(rates, dict) or not all(isinstance(table, dict) for table in rates.values()):
        raise UsageError(f"{path}: rate must be a table of tables")
    if not rates:
        if rate:
            raise UsageError(f"{path.stem}-{rate}: no such recipe; {path} has no rates to choose from")
        return tables
    if rate not in rates:
        there = ", ".join(f"{path.stem}-{known}" for known in rates)
        raise UsageError(f"{path}: has several rates; choose one of: {there}")
    return merged(tables, rates[rate])


def with_mixture(path: Path, tables: Tables) -> Tables:
    """The tables with ``[data] weights`` from the table of mixtures.toml that ``[data] mixture`` names."""
    data = tables.get("data")
    if not isinstance(data, dict) or "mixture" not in data:
        return tables
    name, mixtures = data["mixture"], read_tables(beside(path, MIXTURES))
    if not isinstance(name, str) or name not in mixtures:
        raise UsageError(f"{path}: mixture must be one of {', '.join(mixtures)}")
    rest = {key: value for key, value in data.items() if key != "mixture"}
    return tables | {"data": merged({"weights": mixtures[name]}, rest)}


def overrides(settings: Sequence[str]) -> Tables:
    """Tables of settings ``section.key=value``, the value as in TOML, or a text; raises UsageError."""
    tables: Tables = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        for text in (setting, f"{key} = {json.dumps(value)}") if equals and "." in key else ():
            with suppress(ValueError):
                tables = merged(tables, tomllib.loads(text))
                break
        else:
            raise UsageError(f"--set {setting}: must be SECTION.KEY=VALUE")
    return tables


def place_of(recipe: str) -> tuple[Path, str]:
    """The file of a recipe, and the rate "" if it has that name; else of NAME-RATE the file NAME.toml and RATE.

    A path contains a separator or ends in .toml; any other name is one that dcu ships.
    """
    named = not store.is_path(recipe) and not recipe.endswith(SUFFIX)
    path = paths.shipped("configs") / f"{recipe}{SUFFIX}" if named else Path(recipe)
    family, _, rate = path.name.removesuffix(SUFFIX).rpartition("-")
    shared = path.with_name(f"{family}{SUFFIX}")
    return (shared, rate) if family and not path.exists() and shared.exists() else (path, "")


def find_recipe(recipe: str, settings: Sequence[str] = ()) -> Recipe:
    """A recipe by name or path, with settings in the place of its own values.

    Raises
    ------
    MissingInputError, UsageError
        No such file; broken TOML; a rate, base or mixture that does not exist; settings that are none.
    """
    path, rate = place_of(recipe)
    if path.parent == paths.shipped("configs") and not path.exists():
        released = sorted({found.stem for found in path.parent.glob(f"*{SUFFIX}")} - {MIXTURES})
        raise MissingInputError(
            f"{recipe}: no such recipe; there are {', '.join(released)}, and paths such as ./mine.toml"
        )
    tables = merged(of_rate(path, with_base(path), rate), overrides(settings))
    name = path.name.removesuffix(SUFFIX)
    return Recipe(f"{name}-{rate}" if rate else name, path, with_mixture(path, tables))
