"""Inputs of the commands: files, directories and pipes; how files are read and written."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from dcu import remote, shards
from dcu.errors import InvalidInputError, MissingInputError, OutputError, UsageError
from dcu.io import write_atomic
from dcu.walk import LeftOut, walk

MOST_LIST = 2**30
"""Bytes of a list of inputs."""


@dataclass(frozen=True)
class Source:
    """One input: the name to print, where it is (None: standard input), its place under the directory it came from.

    A shard holds several (:func:`dcu.cli.entries.entries`).
    """

    name: str
    path: Path | None
    relative: Path
    shard: bool = False

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Its bytes, from the first on; an error that reading raises is one of this input."""
        if self.name.endswith("/") and remote.is_url(self.name):
            raise MissingInputError(f"{self.name}: a prefix is not listed; name a pattern such as {self.name}*.tar")
        if remote.is_url(self.name):
            with remote.opened(self.name) as file:
                yield file
            return
        try:
            if self.path is None:
                yield stdin()
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
    listed: bool = False

    @property
    def alone(self) -> bool:
        """Whether there is one input, and it is no directory, no list and no pattern."""
        return len(self.names) == 1 and not self.directories and not self.listed

    @property
    def many(self) -> bool:
        """Whether a summary is due: of directories, lists and shards."""
        return bool(self.directories or self.listed or any(source.shard for source in self.sources))

    @property
    def shards_only(self) -> bool:
        """Whether all inputs are shards."""
        return all(source.shard for source in self.sources)


class Rewound(io.RawIOBase):
    """A file whose first bytes were read, from the first on."""

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self.head, self.file = head, file

    def readable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The descriptor of the file."""
        return self.file.fileno()

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as bytes are there."""
        data = self.head[: len(buffer)] or self.file.read1(len(buffer))  # type: ignore[attr-defined]
        self.head = self.head[len(data) :]
        buffer[: len(data)] = data
        return len(data)


STDIN: dict[str, BinaryIO] = {}
"""Standard input once its first bytes were looked at."""


def stdin() -> BinaryIO:
    """Standard input from its first byte on; raises MissingInputError where it is closed."""
    if sys.stdin is None:
        raise MissingInputError("-: standard input is closed")
    return STDIN.get("-", sys.stdin.buffer)


def stdin_is_shard() -> bool:
    """Whether a tar comes from standard input. Of a bitstream only the first bytes are waited for."""
    from dcu.bitstream import MAGIC

    if sys.stdin is None:
        return False
    head = sys.stdin.buffer.read(len(MAGIC))
    if head and not head.startswith(MAGIC):
        head += sys.stdin.buffer.read(shards.HEAD - len(head))
    STDIN["-"] = io.BufferedReader(Rewound(head, sys.stdin.buffer))
    return shards.looks_like_tar(head)


def sources(inputs: Sequence[str] | None, suffixes: frozenset[str], kind: str, listed: str | None = None) -> Inputs:
    """The inputs in order, directories opened: every file below with one of the extensions, sorted.

    A missing file, or a directory that cannot be opened, stays in the list and fails when it is read; a directory
    without any such file is an error at once. Where there is no file of that name, patterns are those of
    :func:`dcu.shards.matched`. ``listed`` names a file of further inputs, one per line.
    """
    STDIN.clear()
    names = [remote.local(name) for name in inputs or []]
    if not names and listed is None:
        raise UsageError("Missing argument 'INPUT'.")
    if names.count("-") + (listed == "-") > 1:
        raise UsageError("standard input can be read only once")
    matches = list(map(matched, names))
    found = Inputs(names, listed=listed is not None or matches != [[name] for name in names])
    for name in chain.from_iterable(matches):
        if name == "-":
            found.sources.append(Source("-", None, Path("stdin"), shard=stdin_is_shard()))
        elif os.path.isdir(name):  # unlike Path.is_dir, never raises
            add_directory(found, name, suffixes, kind)
        else:
            found.sources.append(named(name))
    if listed is not None:
        found.sources.extend(named(remote.local(name), keep=True) for name in lines(listed))
    return found


def matched(name: str) -> list[str]:
    """What an input's name stands for: itself, or all that its pattern matches; raises UsageError."""
    try:
        return [name] if name == "-" else shards.matched(name)
    except ValueError as error:
        raise UsageError(str(error)) from error


def add_directory(found: Inputs, name: str, suffixes: frozenset[str], kind: str) -> None:
    """Take in the files of a directory, or the shards that are all that it holds; raises MissingInputError."""
    top, before = Path(name), found.left_out.described()
    found.directories.append(name)
    paths = walk(top, suffixes, found.left_out)
    is_shard = not paths and bool(found.left_out.extensions[shards.SUFFIX])
    if is_shard:
        del found.left_out.extensions[shards.SUFFIX]
        paths = walk(top, {shards.SUFFIX}, LeftOut())
    found.sources.extend(Source(str(p), p, p.relative_to(top), is_shard) for p in paths)
    if not paths:
        described = found.left_out.described()
        more = "" if described == before else f" ({', '.join(described)})"
        raise MissingInputError(f"{name}: holds no {kind}{more}")


def named(name: str, keep: bool = False) -> Source:
    """The input of a name; ``keep`` keeps the directories of a relative one in its place."""
    if remote.is_url(name):
        inside = Path(remote.path_of(name).rpartition("/")[2] or "unnamed")
        return Source(name, None, inside, inside.suffix.lower() == shards.SUFFIX)
    shard, path = name.lower().endswith(shards.SUFFIX), Path(name)
    inside = path if keep and not path.is_absolute() and ".." not in path.parts else Path(path.name)
    return Source(name, path, inside if inside.name not in ("", "..") else Path("unnamed"), shard)


def lines(listed: str) -> list[str]:
    """The lines of a file of names, or of standard input (-), but empty ones; raises MissingInputError."""
    try:
        with contextlib.nullcontext(stdin()) if listed == "-" else open(listed, "rb") as file:
            data = file.read(MOST_LIST + 1)
    except OSError as error:
        raise MissingInputError(f"{listed}: {error.strerror}") from error
    if len(data) > MOST_LIST:
        raise InvalidInputError(f"{listed}: larger than {MOST_LIST >> 20} MiB")
    names = [os.fsdecode(line.removesuffix(b"\r")) for line in data.removeprefix(codecs.BOM_UTF8).split(b"\n")]
    if any("\0" in name for name in names):
        raise InvalidInputError(f"{listed}: names are one per line, and none has a NUL byte")
    if "-" in names:
        raise UsageError(f"{listed}: a list cannot name standard input")
    return list(filter(None, names))


def exists(target: Path | str | None) -> bool:
    """Whether there is something at a path or URL; nothing is on standard output. Raises OutputError."""
    if isinstance(target, str):
        return remote.exists(target)
    try:
        return target is not None and target.exists()
    except OSError as error:  # of a name that is too long, of a directory that may not be read
        raise OutputError(f"{target}: {error.strerror}") from error


def put(target: Path | str | None, data: bytes, force: bool) -> None:
    """Write a result beside its place and rename it; None is standard output, a str a URL.

    Raises
    ------
    OutputError
        It cannot be written, or another file is there already.
    """
    if target is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    if isinstance(target, str):
        remote.write(target, data, force)
        return
    try:
        if target.is_file() and target.stat().st_size == len(data) and target.read_bytes() == data:
            return
        check_free(target, force)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, data, durable=False)  # each of thousands of small files would wait for the disk
    except OSError as error:
        raise OutputError(f"{target}: {error.strerror}") from error


def check_regular(target: Path) -> bool:
    """Whether there is a file; raises OutputError where something else is."""
    there = exists(target)
    if there and not target.is_file():
        raise OutputError(f"{target}: not a regular file")
    return there


def check_free(target: Path, force: bool) -> None:
    """Raise OutputError where something is there that is not to be overwritten."""
    if check_regular(target) and not force:
        raise OutputError(f"{target}: exists already; --force overwrites it")
