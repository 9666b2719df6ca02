"""Inputs of the commands: files, directories and pipes; how files are read and written."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from dcu.errors import DcuError, InvalidInputError, MissingInputError, OutputError, UsageError
from dcu.io import write_atomic
from dcu.walk import LeftOut, walk

if TYPE_CHECKING:
    from dcu.bitstream import Stream

BIN = frozenset({".bin"})
T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """One input: the name to print, where it is (None: standard input), its place under the directory it came from."""

    name: str
    path: Path | None
    relative: Path

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Its bytes, from the first on; an error that reading raises is one of this input."""
        if self.path is None and sys.stdin is None:
            raise MissingInputError("-: standard input is closed")
        try:
            if self.path is None:
                yield sys.stdin.buffer
            elif not self.name:
                raise MissingInputError("No such file or directory")
            else:
                with self.path.open("rb") as file:
                    yield file
        except OSError as error:
            raise MissingInputError(f"{self.name}: {error.strerror}") from error

    def image(self) -> bytes:
        """The bytes of an image file; other files are refused after their first bytes."""
        from dcu.cli.bounded import read_image_file

        with self.opened() as file:
            return read_image_file(file)


@dataclass(frozen=True)
class Inputs:
    """The inputs of a run in order, and what was found in directories but left out, by reason."""

    names: Sequence[str]
    sources: list[Source] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def alone(self) -> bool:
        """Whether there is one input, and it is no directory."""
        return len(self.names) == 1 and not self.directories


def sources(inputs: Sequence[str], suffixes: frozenset[str], kind: str) -> Inputs:
    """The inputs in order, directories opened: every file below with one of the extensions, sorted.

    A missing file, or a directory that cannot be opened, stays in the list and fails when it is read; a directory
    without any such file is an error at once.
    """
    found = Inputs(inputs)
    for name in inputs:
        path = Path(name)
        if name == "-":
            found.sources.append(Source("-", None, Path("stdin")))
        elif os.path.isdir(name):  # unlike Path.is_dir, never raises
            before, left_out = len(found.sources), found.left_out.described()
            found.directories.append(name)
            found.sources.extend(Source(str(p), p, p.relative_to(path)) for p in walk(path, suffixes, found.left_out))
            if len(found.sources) == before:
                described = found.left_out.described()
                more = "" if described == left_out else f" ({', '.join(described)})"
                raise MissingInputError(f"{name}: holds no {kind}{more}")
        else:
            found.sources.append(Source(name, path, Path(path.name if path.name not in ("", "..") else "unnamed")))
    if sum(source.path is None for source in found.sources) > 1:
        raise UsageError("standard input can be read only once")
    return found


def put(target: Path | None, data: bytes, force: bool) -> None:
    """Write a result beside its place and rename it; None is standard output.

    Raises
    ------
    OutputError
        It cannot be written, or another file is there already.
    """
    if target is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        if target.is_file() and target.stat().st_size == len(data) and target.read_bytes() == data:
            return
        check_free(target, force)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, data, durable=False)  # of thousands of small files, each would take several times as long
    except OSError as error:
        raise OutputError(f"{target}: {error.strerror}") from error


def check_free(target: Path, force: bool) -> None:
    """Raise OutputError where something is there that is not to be overwritten."""
    if target.exists():
        if not target.is_file():
            raise OutputError(f"{target}: not a regular file")
        if not force:
            raise OutputError(f"{target}: exists already; --force overwrites it")


def streams(found: Iterable[Source], alone: bool = False) -> Iterator[tuple[Source, Stream | Exception]]:
    """(source, parsed stream or its error) of every bitstream; standard input may hold several in a row.

    A damaged one ends its pipe, the other inputs go on. The streams of a pipe after the first are called stdin-2,
    stdin-3 and so on; where their results would have one place (``alone``), several are an error of the input.
    """
    from dcu import bitstream

    for source in found:
        try:
            with source.opened() as file:
                if (stream := bitstream.read_from(file)) is None:
                    raise InvalidInputError("empty stream")
                if source.path is not None and file.read(1):
                    raise InvalidInputError("bytes after the end of the stream")
                following = bitstream.read_from(file) if source.path is None and alone else None
                if following:
                    raise UsageError("holds several streams: name a directory with -o")
                yield source, stream
                number = 1
                while source.path is None and not alone and (stream := bitstream.read_from(file)):
                    number += 1
                    yield replace(source, relative=Path(f"stdin-{number}")), stream
        except (DcuError, MemoryError) as error:
            yield source, error


def intact(stream: Stream | Exception) -> Stream:
    """The stream; raises its error."""
    if isinstance(stream, Exception):
        raise stream
    return stream


def batched(values: Iterable[T], size: int, weigh: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """Lists of at most ``size`` values that weigh at most ``most`` together, or of one that weighs more alone."""
    batch: list[T] = []
    weight = 0
    for value in values:
        more = weigh(value)
        if batch and (len(batch) == size or weight + more > most):
            yield batch
            batch, weight = [], 0
        batch.append(value)
        weight += more
    if batch:
        yield batch
