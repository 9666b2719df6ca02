"""What the inputs of a command hold: a file is one entry, a shard or a pipe of bitstreams has several."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from dcu import bitstream, shards
from dcu.cli.files import Source
from dcu.errors import DcuError, InvalidInputError, UsageError
from dcu.walk import BITSTREAMS

if TYPE_CHECKING:
    from dcu.bitstream import Stream


@dataclass(frozen=True)
class Entry(Source):
    """An input that is read: a file, or what was read of a shard or a pipe; why that cannot be used.

    ``sidecars`` are the other members of its sample, (name, content); ``parsed`` is the bitstream of a pipe, where its
    end had to be found.
    """

    data: bytes | None = None
    error: Exception | None = None
    inside: Source | None = None
    sidecars: Sequence[tuple[str, bytes]] = ()
    parsed: Stream | None = None

    @property
    def key(self) -> str:
        """Its name in tables: that of its sample in a shard, else its place without extension."""
        return shards.split(self.relative.as_posix())[0] if self.inside else self.relative.with_suffix("").as_posix()

    @property
    def label(self) -> str | None:
        """What its sidecar ``.cls`` holds."""
        found = [data for name, data in self.sidecars if shards.split(name)[1].lower() == "cls"]
        return found[0].decode("utf-8", "replace").strip() if found else None

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Its bytes, from the first on; raises its error."""
        if self.error:
            raise self.error
        if self.data is not None:
            yield io.BytesIO(self.data)
            return
        with super().opened() as file:
            yield file

    @functools.cached_property
    def stream(self) -> Stream:
        """The bitstream that it holds, read once; raises InvalidInputError, MissingInputError."""
        if self.parsed is not None:
            return self.parsed
        with self.opened() as file:
            if (stream := bitstream.read_from(file)) is None:
                raise InvalidInputError("empty stream")
            if file.read(1):
                raise InvalidInputError("bytes after the end of the stream")
            return stream


def entries(source: Source, suffixes: frozenset[str], alone: bool = False) -> Iterator[Entry]:
    """The entries of an input.

    Parameters
    ----------
    source : Source
        The input.
    suffixes : frozenset of str
        Extensions of the members of shards that are worked on; the others are their sidecars.
    alone : bool
        There is room for one result only: several streams of a pipe are an error.
    """
    if source.shard:
        yield from members(source, suffixes)
    elif suffixes == BITSTREAMS and source.name == "-":
        yield from piped(source, alone)
    else:
        yield Entry(source.name, source.path, source.relative)


def members(source: Source, suffixes: frozenset[str]) -> Iterator[Entry]:
    """The entries of a shard, each with its sample's sidecars; raises InvalidInputError where it is damaged."""
    with source.opened() as file:
        for sample in shards.samples(file, source.name):
            names = {extension: sample.name(extension) for extension in sample.members}
            worked = [extension for extension, name in names.items() if PurePosixPath(name).suffix.lower() in suffixes]
            rest = [(names[extension], data) for extension, data in sample.members.items() if extension not in worked]
            if sample.error or not worked:
                kind = "bitstream" if suffixes == BITSTREAMS else "image"
                yield member(source, sample.key, error=sample.error or InvalidInputError(f"holds no {kind}"))
            for extension in worked:
                yield member(source, names[extension], sample.members[extension], sidecars=rest)


def member(
    source: Source,
    name: str,
    data: bytes | None = None,
    error: Exception | None = None,
    sidecars: Sequence[tuple[str, bytes]] = (),
) -> Entry:
    """An entry of a shard or a pipe."""
    return Entry(f"{source.name}/{name}", None, Path(name), False, data, error, source, sidecars)


def piped(source: Source, alone: bool) -> Iterator[Entry]:
    """The bitstreams that follow each other on standard input.

    A damaged one ends the pipe. Those after the first are called stdin-2, stdin-3 and so on; where their results would
    have one place (``alone``), several are an error of the input.
    """
    number = 0
    try:
        with source.opened() as file:
            while stream := bitstream.read_from(file):
                number += 1
                if alone and bitstream.read_from(file):
                    raise UsageError("holds several streams: name a directory with -o")
                place = Path("stdin" if number == 1 else f"stdin-{number}")
                yield Entry("-", None, place, parsed=stream)
        if not number:
            raise InvalidInputError("empty stream")
    except (DcuError, MemoryError) as error:
        yield Entry("-", None, Path("stdin"), error=error)
