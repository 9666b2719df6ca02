"""Dataclasses from JSON and TOML that anybody may have written: every value of its type and within its bounds.

A field's bounds stand in its type: ``width: Annotated[int, Between(1, 1024)]``.
"""

from __future__ import annotations

import functools
import math
import re
import types
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
Reader = Callable[[Any, str], Any]
SHOWN = 40
"""Characters of a wrong value that an error message shows."""


@dataclass(frozen=True)
class Between:
    """A number from ``low`` to ``high``; of texts and lists their length."""

    low: float
    high: float

    def __contains__(self, value: Any) -> bool:
        size = value if isinstance(value, int | float) else len(value)
        return bool(self.low <= size <= self.high)

    def __str__(self) -> str:
        return f"between {self.low:g} and {self.high:g}"


@dataclass(frozen=True)
class Matching:
    """A text of the form that a regular expression describes."""

    pattern: str
    described: str

    def __contains__(self, value: Any) -> bool:
        return re.fullmatch(self.pattern, value) is not None

    def __str__(self) -> str:
        return self.described


@dataclass(frozen=True)
class OneOf:
    """One of some texts."""

    values: tuple[str, ...]

    def __contains__(self, value: Any) -> bool:
        return value in self.values

    def __str__(self) -> str:
        return f"one of {', '.join(self.values)}"


Count = Annotated[int, Between(0, 2**53)]
Share = Annotated[float, Between(0, 1)]
NAME = r"(?!\.\.?$)[^/\\\x00-\x1f]{1,255}"
"""Of a model: one part of a path, and none that leads elsewhere."""
Name = Annotated[str, Matching(NAME, "a name without separators")]


def build(cls: type[T], table: Any, others: bool = False) -> T:
    """A dataclass from the values of a table, nested ones with it; ``others`` lets unknown names pass.

    Raises
    ------
    ValueError
        Which name is unknown or missing, or which value is not of its type or out of bounds.
    """
    if not isinstance(table, dict):
        raise ValueError("not a table")
    readers = readers_of(cls, others)  # type: ignore[arg-type]
    if not others and (unknown := table.keys() - readers.keys()):
        raise ValueError(f"unknown key {shown(min(map(str, unknown)))}")
    values = {}
    for name, (read, needed) in readers.items():
        if name in table:
            values[name] = read(table[name], name)
        elif needed:
            raise ValueError(f"{name} is missing")
    return cls(**values)


@functools.cache
def readers_of(cls: type[Any], others: bool) -> dict[str, tuple[Reader, bool]]:
    """What reads each field of a dataclass, and whether it must be given."""
    kinds = get_type_hints(cls, include_extras=True)
    return {
        f.name: (reader(kinds[f.name], others), f.default is MISSING and f.default_factory is MISSING)
        for f in fields(cls)
    }


def reader(kind: Any, others: bool) -> Reader:
    """What turns a value into one of a field's type; it raises ValueError, with the field's name."""
    origin, within = get_origin(kind), get_args(kind)
    if kind is object:  # JSON that nothing reads
        return lambda value, name: value
    if origin in (Union, types.UnionType):
        return either([reader(each, others) for each in within if each is not types.NoneType])
    if origin is Annotated:
        return bounded(reader(within[0], others), within[1:])
    if origin is Literal:
        return bounded(reader(str, others), (OneOf(within),))
    if isinstance(kind, type) and is_dataclass(kind):
        return nested(kind, others)
    if origin in (tuple, dict):
        return collection(origin, reader(within[origin is dict], others))
    return plain(kind)


def either(inner: Sequence[Reader]) -> Reader:
    """Reads None, or what one of some readers takes; the error is the last one's."""

    def read(value: Any, name: str) -> Any:
        if value is None:
            return None
        for each in inner[:-1]:
            with suppress(ValueError):
                return each(value, name)
        return inner[-1](value, name)

    return read


def plain(kind: type[Any]) -> Reader:
    """Reads numbers, texts and flags; a float may be written as an integer."""

    def read(value: Any, name: str) -> Any:
        if kind is float and type(value) is int and abs(value) < 2**63:
            value = float(value)
        if type(value) is not kind or (kind is float and not math.isfinite(value)):
            raise ValueError(f"{name} = {shown(value)} must be of type {kind.__name__}")
        return value

    return read


def bounded(inner: Reader, bounds: Sequence[Any]) -> Reader:
    """Reads what lies within bounds."""

    def read(value: Any, name: str) -> Any:
        value = inner(value, name)
        for bound in bounds:
            if value not in bound:
                raise ValueError(f"{name} = {shown(value)} must be {bound}")
        return value

    return read


def nested(cls: type[Any], others: bool) -> Reader:
    """Reads a dataclass inside another."""

    def read(value: Any, name: str) -> Any:
        try:
            return build(cls, value, others)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    return read


def collection(kind: type[Any], inner: Reader) -> Reader:
    """Reads lists, as tuples, and tables of values of one type."""

    def read(value: Any, name: str) -> Any:
        if kind is tuple and isinstance(value, list):
            return tuple(inner(item, name) for item in value)
        if kind is dict and isinstance(value, dict):
            return {key: inner(item, f"{name}.{shown(key)}") for key, item in value.items()}
        raise ValueError(f"{name} = {shown(value)} must be a {'list' if kind is tuple else 'table'}")

    return read


def shown(value: Any) -> str:
    """A value as an error message shows it, never long."""
    if isinstance(value, list | dict):
        return f"[{len(value)} values]"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a giant number"
    said = repr(value)
    return said if len(said) <= SHOWN else said[: SHOWN - 3] + "..."
