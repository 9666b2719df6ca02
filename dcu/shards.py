"""WebDataset shards: tars whose members are grouped into samples by their names.

A sample is a run of members that share a key, the path up to the first dot of its last part: ``a/7.jpg``, ``a/7.cls``
and ``a/7.seg.png`` are members of the sample ``a/7``. Shards are read and written as streams, one sample at a time;
what is written depends on names and contents alone.
"""

from __future__ import annotations

import glob
import io
import itertools
import os
import posixpath
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO

from dcu import remote
from dcu.errors import InvalidInputError

SUFFIX = ".tar"
MOST_SAMPLE = 2**30
"""Bytes of a sample's members together."""
MOST_MEMBERS = 1000
"""Members of a sample."""
MOST_HEADER = 2**20
"""Bytes of a member's headers, long names included."""
MAGIC, MAGIC_AT = b"ustar", 257
"""What a tar holds there."""
HEAD = MAGIC_AT + len(MAGIC)
"""Bytes that tell a tar from other files."""
BUFFER = 20 * tarfile.BLOCKSIZE
MOST_NAMES = 10**6
"""That a pattern stands for."""
FAILED = re.compile(r"(.*) failed=(\d{8})", re.DOTALL)
"""A shard's comment: what made it, and how many samples of its source failed."""
COMMENT = re.compile(rb"\d+ comment=(.*)\n", re.DOTALL)
"""The record of a global header that holds nothing else."""
BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")


@dataclass
class Sample:
    """The members of one key by their extensions (``cls``, ``seg.png``), in their order; why it cannot be used."""

    key: str
    members: dict[str, bytes] = field(default_factory=dict)
    error: InvalidInputError | None = None

    def name(self, extension: str) -> str:
        """The name of a member in the tar."""
        return f"{self.key}.{extension}" if extension else self.key


class Metered(io.RawIOBase):
    """A file of which a bounded number of bytes can be read at a time; remembers what it read last, and where."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.allowance, self.last, self.end = file, 0, b"", 0

    def read(self, count: int = -1) -> bytes:
        """The next bytes; raises TarError where more are asked for than was allowed."""
        data = self.file.read(count)
        self.allowance -= len(data)
        if data:
            self.last, self.end = data, self.end + len(data)
        if self.allowance < 0:
            raise tarfile.TarError("a header is too large")
        return data

    def check_end(self, offset: int) -> None:
        """Raise TarError unless there are a block of zeros from an offset on, and nothing else behind it."""
        rest = self.last[max(0, offset - self.end + len(self.last)) :] if offset < self.end else b""
        if len(rest) < tarfile.BLOCKSIZE:
            raise tarfile.TarError("its end is missing")
        check_zeros(rest, self.file)


def check_zeros(rest: bytes, file: BinaryIO) -> None:
    """Raise TarError unless the rest of a file, some of which was read, are zeros: what a tar ends with."""
    while rest:
        if rest.strip(b"\0"):
            raise tarfile.TarError("a header is damaged, or bytes follow its end")
        rest = file.read(BUFFER)


def samples(file: BinaryIO, name: str) -> Iterator[Sample]:
    """The samples of a shard in order.

    A sample whose key came before, or that holds an extension twice, an unsafe name or too many bytes, has an error in
    place of members.

    Raises
    ------
    InvalidInputError
        Not a tar, or damaged or truncated: at the place where that shows.
    """
    seen: set[str] = set()
    current: Sample | None = None
    size = 0
    for path, data in members(file, name):
        key, extension = split(path)
        if current is None or current.key != key:
            if current:
                yield current
            current, size = Sample(key), 0
            if key in seen:
                current.error = InvalidInputError("a sample of this key came before")
            seen.add(key)
        size += len(data) if isinstance(data, bytes) else 0
        error = fault(current, extension, data, size)
        if error or current.error:
            current.error = current.error or error
            current.members.clear()
        elif isinstance(data, bytes):
            current.members[extension] = data
    if current:
        yield current


def fault(sample: Sample, extension: str, data: bytes | InvalidInputError, size: int) -> InvalidInputError | None:
    """Why a member cannot be one of a sample, whose members have so many bytes with it."""
    if isinstance(data, InvalidInputError):
        return data
    if extension in sample.members:
        return InvalidInputError(f"holds two members {sample.name(extension)}")
    if size > MOST_SAMPLE or len(sample.members) == MOST_MEMBERS:
        return InvalidInputError(f"more than {MOST_SAMPLE >> 20} MiB or {MOST_MEMBERS} members")
    return None


def members(file: BinaryIO, name: str) -> Iterator[tuple[str, bytes | InvalidInputError]]:
    """(name, content) of every regular file of a tar, or why it cannot be used; raises InvalidInputError."""
    metered = Metered(file)
    try:
        metered.allowance = MOST_HEADER
        with tarfile.open(fileobj=metered, mode="r|", bufsize=BUFFER) as archive:
            while member := archive.next():
                archive.members.clear()  # type: ignore[attr-defined]  # it keeps all of them otherwise
                metered.allowance = member.size + 2 * BUFFER
                if member.isfile():
                    yield normal(member.name), content(archive, member)
                elif not member.isdir():
                    yield normal(member.name), InvalidInputError("not a regular file")
                metered.allowance += MOST_HEADER
            metered.check_end(archive.offset)
    except (tarfile.TarError, ValueError, LookupError, OverflowError, EOFError, RecursionError) as error:
        if metered.end == len(metered.last) and has_no_members(metered.last):
            return
        raise InvalidInputError(f"{name}: not a whole uncompressed tar ({error})") from error


def maker(file: BinaryIO, name: str) -> tuple[str | None, int]:
    """What a shard states that made it, and how many samples failed; raises InvalidInputError where it is none."""
    try:
        comment, _ = global_header(file.read(2 * BUFFER))
    except tarfile.TarError as error:
        raise InvalidInputError(f"{name}: not a whole uncompressed tar ({error})") from error
    stated = FAILED.fullmatch(comment or "")
    return (stated[1], int(stated[2])) if stated else (comment, 0)


def global_header(begin: bytes) -> tuple[str | None, bytes]:
    """The comment of a tar that begins so, as :class:`Writer` states it, and what is behind it; raises TarError.

    tarfile itself takes no tar that has a global header and no members.
    """
    header = tarfile.TarInfo.frombuf(begin[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    if header.type != tarfile.XGLTYPE:
        return None, begin
    start = tarfile.BLOCKSIZE
    record = COMMENT.fullmatch(begin[start : start + header.size])
    rest = begin[start + -(-header.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE :]
    return record and record[1].decode("utf-8", "surrogateescape"), rest


def has_no_members(whole: bytes) -> bool:
    """Whether a tar, as far as it was read, has a global header and no members: tarfile takes none such."""
    try:
        comment, rest = global_header(whole)
    except tarfile.TarError:
        return False
    return comment is not None and len(rest) >= tarfile.BLOCKSIZE and not rest.strip(b"\0")


def is_whole(file: BinaryIO, size: int) -> bool:
    """Whether a shard of ``size`` bytes ends as :class:`Writer` ends it; what is between is not read."""
    file.seek(max(0, size - 2 * tarfile.BLOCKSIZE))
    return size % tarfile.RECORDSIZE == 0 and not file.read().strip(b"\0")


def normal(path: str) -> str:
    """A member's name without ``./`` and ``//``, as tars of a directory have them; unsafe ones stay as they are."""
    return path if path.startswith("/") or ".." in path.split("/") else posixpath.normpath(path)


def content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | InvalidInputError:
    """The bytes of a member; raises TarError."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\0" in member.name:
        return InvalidInputError("its name points outside of the shard")
    if member.issparse() or member.size > MOST_SAMPLE:
        return InvalidInputError(f"a sparse file, or one of more than {MOST_SAMPLE >> 20} MiB")
    file = archive.extractfile(member)
    assert file is not None
    data = file.read()
    if len(data) != member.size:
        raise tarfile.TarError("unexpected end of data")
    return data


def split(path: str) -> tuple[str, str]:
    """Key and extension of a member's name."""
    directory, slash, name = path.rpartition("/")
    stem, _, extension = name.partition(".") if not name.startswith(".") else (name, "", "")
    return f"{directory}{slash}{stem}", extension


def looks_like_tar(head: bytes) -> bool:
    """Whether a file that begins so is a tar."""
    return head[MAGIC_AT:HEAD] == MAGIC


class Writer:
    """Writes members to a tar; equal members and comments give equal bytes, whoever writes them when.

    The comment states ``made_by``, and where it ``counts`` how many samples failed: that is known at the end, when no
    pipe can be written from its beginning.
    """

    def __init__(self, file: BinaryIO, made_by: str, counts: bool = True) -> None:
        self.file, self.made_by, self.counts = file, made_by, counts
        self.archive = tarfile.TarFile.open(
            fileobj=file, mode="w|", bufsize=BUFFER, format=tarfile.PAX_FORMAT, pax_headers=self.headers(0)
        )
        self.names: set[str] = set()

    def headers(self, failed: int) -> dict[str, str]:
        """The global header of the tar, of equal size for any number."""
        return {"comment": f"{self.made_by} failed={failed:08}" if self.counts else self.made_by}

    def add(self, name: str, data: bytes) -> None:
        """Append a member; raises ValueError where one of that name is there."""
        if name in self.names:
            raise ValueError(f"a member {name} is there already")
        self.names.add(name)
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self.archive.addfile(member, io.BytesIO(data))
        self.archive.members.clear()  # type: ignore[attr-defined]

    def close(self, failed: int = 0) -> None:
        """Write the end of the archive, and how many samples failed."""
        self.archive.close()
        if failed and self.counts:
            self.file.seek(0)
            self.file.write(tarfile.TarInfo.create_pax_global_header(self.headers(failed)))

    def abandon(self) -> None:
        """Write no more; what is written is no whole tar."""
        self.archive.fileobj.closed = True  # type: ignore[attr-defined]  # else it writes when collected


def expanded(pattern: str) -> list[str]:
    """The names of a pattern with ranges ``{000..099}`` and choices ``{a,b}``, as shells and WebDataset expand them.

    Raises
    ------
    ValueError
        More than ``MOST_NAMES``.
    """
    found = BRACES.search(pattern)
    if not found:
        return [pattern]
    first, last, choices = found.groups()
    if choices is not None:
        parts = choices.split(",")
    else:
        padded = any(bound.startswith("0") and len(bound) > 1 for bound in (first, last))
        width = max(len(first), len(last)) if padded else 0
        step = 1 if int(first) <= int(last) else -1
        if abs(int(last) - int(first)) >= MOST_NAMES:
            raise ValueError(f"{pattern[:80]}: stands for more than {MOST_NAMES} names")
        parts = [f"{number:0{width}}" for number in range(int(first), int(last) + step, step)]
    before, after = pattern[: found.start()], expanded(pattern[found.end() :])
    if len(parts) * len(after) > MOST_NAMES:
        raise ValueError(f"{pattern[:80]}: stands for more than {MOST_NAMES} names")
    return [f"{before}{part}{rest}" for part, rest in itertools.product(parts, after)]


def matched(pattern: str) -> list[str]:
    """The names of a pattern, as :func:`expanded` says, and what those with ``*`` match (of files also ``?``, ``[``).

    A name that exists, or that matches nothing, stands for itself.

    Raises
    ------
    ValueError
        As :func:`expanded`.
    MissingInputError, UnavailableError
        The store of a URL does not answer, or its package is not installed.
    """
    special = set("*{" if remote.is_url(pattern) else "*?[{")  # URLs may have a query
    if os.path.lexists(pattern) or not set(pattern) & special:
        return [pattern]
    names = []
    for each in expanded(pattern):
        if not set(each) & special - {"{"}:
            names.append(each)
        else:
            found = remote.matching(each) if remote.is_url(each) else sorted(glob.glob(each, recursive=True))
            names += found or [each]
    return names
