"""Where the results of a run go: a file each, shards beside the inputs' shards, or tables."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from dcu import remote, shards, tables
from dcu.cli import files
from dcu.cli.entries import Entry
from dcu.cli.files import Inputs, Source
from dcu.cli.places import Place, Places, check, refuse
from dcu.errors import InvalidInputError, OutputError, UsageError
from dcu.io import replacing

HEAD = 64
"""First bytes of an existing output, by which it is recognized."""


class Output:
    """One file per input, and one shard per shard.

    Parameters
    ----------
    places : Places
        Which files.
    force : bool
        Replace existing ones.
    encode : callable, optional
        A result's content as the bytes of a file.
    """

    table = False

    def __init__(self, places: Places, force: bool = False, encode: Callable[[Any], bytes] = bytes) -> None:
        self.places, self.force, self.encode = places, force, encode

    def begin(self, stack: ExitStack) -> None:
        """Prepare what is written until a stack ends."""

    def place(self, entry: Entry) -> str:
        """Where the result of an entry is, for people and programs."""
        target = self.places.of(entry)
        return "-" if target is None else str(target)

    def finished(self, source: Source, verify: Callable[[bytes], str | None] | None) -> bool:
        """Whether the output of a source is there; raises OutputError where it is none of this run's."""
        target = self.places.of(source)
        if not files.exists(target):
            return False
        if verify and (why := verify(head(target, source.shard))):
            raise OutputError(f"{target}: {why}")
        return True

    def shard(self, source: Source, stack: ExitStack, keep: bool) -> Output:
        """The output of a shard, complete once a stack ends; ``keep`` reads results of an earlier one to be copied."""
        return ShardOutput(self, source, stack, keep)

    def put(self, entry: Entry, content: Any) -> bytes | None:
        """Write the result of an entry; the bytes of its file, None where it has none of its own."""
        data = self.encode(content)
        files.put(self.places.of(entry), data, self.force)
        return data

    def copy(self, entry: Entry) -> None:
        """Take the results of an entry from an earlier run."""


class ShardOutput(Output):
    """A shard with the results of another one and its sidecars, in the same order."""

    def __init__(self, parent: Output, source: Source, stack: ExitStack, keep: bool) -> None:
        super().__init__(parent.places, parent.force, parent.encode)
        self.target = self.places.of(source)
        before = stack.enter_context(opened(self.target)) if keep else None
        self.before = shards.samples(before, str(self.target)) if before else iter(())
        self.next: shards.Sample | None = None
        if self.target is None:
            file: BinaryIO = sys.stdout.buffer
        else:
            file = stack.enter_context(stack.enter_context(complete(self.target)).open("wb"))
        self.writer = shards.Writer(file)
        stack.push(self.close)

    def close(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the tar, unless an error ends it."""
        if kind is None:
            self.writer.close()

    def place(self, entry: Entry) -> str:
        """Shard and member."""
        return f"{'-' if self.target is None else self.target}/{self.places.inside(entry)}"

    def put(self, entry: Entry, content: Any) -> bytes | None:
        data = self.encode(content)
        try:
            for name, part in ((self.places.inside(entry).as_posix(), data), *entry.sidecars):
                self.writer.add(name, part)
        except ValueError as error:
            raise InvalidInputError(str(error)) from error
        return data

    def copy(self, entry: Entry) -> None:
        self.next = self.next or next(self.before, None)
        if self.next and self.next.key == entry.key:
            for extension, data in self.next.members.items():
                self.writer.add(self.next.name(extension), data)
            self.next = None


class TableOutput(Output):
    """One table for all results."""

    table = True

    def __init__(self, places: Places, schema: tables.Schema, force: bool, extend: bool) -> None:
        super().__init__(places, force)
        self.schema, self.extend = schema, extend
        self.present: set[tuple[str | None, str]] = set()
        self.writer: tables.Writer | None = None

    def begin(self, stack: ExitStack) -> None:
        """Open the table, and take over the rows of the one that is there where it is to be extended."""
        if self.places.file:
            path = Path(self.places.file)
            if path.exists() and not self.extend:
                files.check_free(path, self.force)
            self.open(path, stack, path.exists() and self.extend)

    def open(self, path: Path, stack: ExitStack, extend: bool) -> None:
        """Open the table at a path."""
        rows = tables.read(path, list(self.schema)) if extend else iter(())
        self.writer = stack.enter_context(tables.writing(path, self.schema))
        for row in rows:
            self.writer.add(row)
            self.present.add((row["shard"], row["key"]))

    def shard(self, source: Source, stack: ExitStack, keep: bool) -> Output:
        """The table itself, or where there is one for each shard, that of a shard."""
        if self.places.file:
            return self
        output = TableOutput(self.places, self.schema, self.force, self.extend)
        output.open(Path(str(self.places.of(source))), stack, keep)
        return output

    def finished(self, source: Source, verify: Callable[[bytes], str | None] | None) -> bool:
        if self.places.file:
            return isinstance(source, Entry) and (None, source.key) in self.present
        return files.exists(self.places.of(source))

    def place(self, entry: Entry) -> str:
        return str(self.places.file or self.places.of(entry.inside or entry))

    def put(self, entry: Entry, content: Any) -> bytes | None:
        assert self.writer is not None
        shard = entry.inside.name if entry.inside else None
        self.writer.add({"key": entry.key, "shard": shard} | content)
        return None


def tables_of(found: Inputs, output: str, schema: tables.Schema, force: bool, extend: bool) -> TableOutput:
    """One table for all inputs, or in a directory one for each shard.

    Raises
    ------
    UsageError
        Neither .jsonl nor .parquet, and there are inputs that are no shards; or an input is the output.
    UnavailableError
        pyarrow is not installed.
    """
    path = Path(output)
    if path.suffix.lower() in tables.SUFFIXES:
        tables.check(path)
        refuse(path, [source.path for source in found.sources if source.path], "-o")
        return TableOutput(Places("-o", "", file=path), schema, force, extend)
    if not found.shards_only or remote.is_url(output) or path.is_file():
        raise UsageError(f"{output}: name a table with -o, .parquet or .jsonl; of shards, a directory")
    tables.need_pyarrow()
    places = Places("-o", "", path, shard_suffix=".parquet")
    check(found, places)
    return TableOutput(places, schema, force, extend)


def head(target: Place, shard: bool) -> bytes:
    """The first bytes of an existing output, of a shard's first bitstream; raises OutputError."""
    try:
        with opened(target) as file:
            if not shard:
                return file.read(HEAD)
            members = shards.members(file, str(target))
            return next(
                (data[:HEAD] for name, data in members if name.endswith(".bin") and isinstance(data, bytes)), b""
            )
    except InvalidInputError as error:
        raise OutputError(str(error)) from error


@contextmanager
def opened(target: Place) -> Iterator[BinaryIO]:
    """An existing output; raises OutputError."""
    if isinstance(target, str):
        with remote.opened(target) as file:
            yield file
        return
    if target is None or not target.exists():
        raise OutputError(f"{target or '-'}: the output of the earlier run is missing; run without --retry")
    try:
        with target.open("rb") as local:
            yield local
    except OSError as error:
        raise OutputError(f"{target}: {error.strerror}") from error


@contextmanager
def complete(target: Path | str) -> Iterator[Path]:
    """A temporary file that gets its place, or is uploaded to it, once it is complete; raises OutputError."""
    if isinstance(target, str):
        with tempfile.TemporaryDirectory(prefix="dcu-") as directory:
            part = Path(directory) / "part"
            yield part
            remote.upload(part, target)
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as part:
            yield part
    except OSError as error:
        raise OutputError(f"{target}: {error.strerror}") from error
