"""Where the results of a run go: a file each, shards beside the inputs' shards, or tables."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from dcu import remote, shards, tables
from dcu.bitstream import MOST_HEAD
from dcu.cli import files
from dcu.cli.entries import Entry
from dcu.cli.files import Inputs, Source
from dcu.cli.places import Place, Places, check, refuse
from dcu.errors import InvalidInputError, OutputError, UsageError
from dcu.io import replacing


class Output:
    """One file per input, and one shard per shard.

    Parameters
    ----------
    places : Places
        Which files.
    made_by : str
        What shards state as their comment: the command with all that decides what is written.
    force : bool
        Replace existing ones.
    encode : callable, optional
        A result's content as the bytes of a file.
    recognize : callable, optional
        Why an existing file, by its first bytes and its size, is none that this run would write; None where it may be.
        The size of remote ones is not known.
    """

    table = False
    failed = 0
    """How many samples of a shard have no result in its output."""

    def __init__(
        self,
        places: Places,
        made_by: str,
        force: bool = False,
        encode: Callable[[Any], bytes] = bytes,
        recognize: Callable[[bytes, int | None], str | None] | None = None,
    ) -> None:
        self.places, self.made_by, self.force = places, made_by, force
        self.encode, self.recognize = encode, recognize

    @property
    def alone(self) -> bool:
        """Whether there is room for one result only."""
        return self.places.alone and not self.table

    @property
    def piped(self) -> bool:
        """Whether results go to standard output."""
        return self.places.piped and not self.table

    def begin(self, stack: ExitStack) -> None:
        """Prepare what is written until a stack ends."""

    def place(self, entry: Entry) -> str:
        """Where the result of an entry is, for people and programs."""
        target = self.places.of(entry)
        return "-" if target is None else str(target)

    def image_of(self, entry: Entry, suffix: str) -> Path:
        """The image file that errors of an entry's result name; in a shard the name is that of the entry."""
        place = Path(self.place(entry))
        return place if place.suffix.lower() == suffix.lower() else Path(f"{entry.name}{suffix}")

    def finished(self, source: Source) -> int | None:
        """How many samples failed when the output of a source was made; None where it is not there.

        Raises OutputError where it is none of this run's.
        """
        target = self.places.of(source)
        if not files.exists(target):
            return None
        failed = 0
        with opened(target) as file:
            size = os.fstat(file.fileno()).st_size if isinstance(target, Path) else None
            if source.shard:
                made_by, failed = maker(file, str(target))
                self.check_maker(str(target), made_by)
                if size is not None and not shards.is_whole(file, size):
                    raise OutputError(f"{target}: exists already and is damaged; --force overwrites it")
            elif size == 0:
                raise OutputError(f"{target}: exists already and is empty; --force overwrites it")
            elif self.recognize and (why := self.recognize(file.read(MOST_HEAD), size)):
                raise OutputError(f"{target}: {why}")
        return failed

    def check_maker(self, name: str, made_by: str | None) -> None:
        """Raise OutputError where what is there was made by another command than this one."""
        if made_by != self.made_by:
            how = differences(made_by, self.made_by) if made_by else "made by something else"
            raise OutputError(f"{name}: exists already, {how}; --force overwrites it")

    def shard(self, source: Source, stack: ExitStack, keep: bool) -> Output:
        """The output of a shard, complete once a stack ends; ``keep`` reads results of an earlier one to be copied."""
        return ShardOutput(self, source, stack, keep)

    def extended(self, source: Source, stack: ExitStack) -> Output:
        """The same with the results of an earlier one, of which it is not known which are missing."""
        output = ShardOutput(self, source, stack, True)
        with opened(output.target) as before:
            members = shards.samples(before, str(output.target))
            output.present = {sample.name(extension) for sample in members for extension in sample.members}
        return output

    def put(self, entry: Entry, content: Any) -> bytes | None:
        """Write the result of an entry; the bytes of its file, None where it has none of its own."""
        data = self.encode(content)
        files.put(self.places.of(entry), data, self.force)
        return data

    def has(self, entry: Entry) -> bool:
        """Whether the result of an entry is in a table that is extended."""
        return False

    def copy(self, entry: Entry) -> None:
        """Take the results of an entry from an earlier run."""


class ShardOutput(Output):
    """A shard with the results of another one and its sidecars, in the same order."""

    def __init__(self, parent: Output, source: Source, stack: ExitStack, keep: bool) -> None:
        super().__init__(parent.places, parent.made_by, parent.force, parent.encode)
        self.target = self.places.of(source)
        if keep:  # its results are of the same options
            parent.finished(source)
        before = stack.enter_context(opened(self.target)) if keep else None
        self.before = shards.samples(before, str(self.target)) if before else iter(())
        self.copied: str | None = None
        self.present: set[str] = set()
        if self.target is None:
            file: BinaryIO = sys.stdout.buffer
        else:
            file = stack.enter_context(stack.enter_context(complete(self.target)).open("wb"))
        self.writer = shards.Writer(file, self.made_by)
        stack.push(self.close)

    def close(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the tar, unless an error ends it."""
        if kind is None:
            self.writer.close(0 if self.target is None else self.failed)
        else:
            self.writer.abandon()

    def place(self, entry: Entry) -> str:
        """Shard and member."""
        return f"{'-' if self.target is None else self.target}/{self.places.inside(entry)}"

    def put(self, entry: Entry, content: Any) -> bytes | None:
        data, name = self.encode(content), self.places.inside(entry).as_posix()
        if name in self.writer.names or any(name == other for other, _ in entry.sidecars):
            raise InvalidInputError(f"its result would be another member {name}")
        self.writer.add(name, data)
        for other, part in entry.sidecars:
            if other not in self.writer.names:  # another image of the sample has brought them
                self.writer.add(other, part)
        return data

    def has(self, entry: Entry) -> bool:
        return self.places.inside(entry).as_posix() in self.present

    def copy(self, entry: Entry) -> None:
        if entry.key == self.copied:
            return
        sample = next((sample for sample in self.before if sample.key == entry.key), None)
        if sample is None:
            raise OutputError(f"{self.target}: the earlier run's results of {entry.key} are missing; use --force")
        self.copied = entry.key
        for extension, data in sample.members.items():
            if sample.name(extension) not in self.writer.names:
                self.writer.add(sample.name(extension), data)


class Finished(Output):
    """The output of a shard that is finished already."""

    def put(self, entry: Entry, content: Any) -> bytes | None:
        return None


class TableOutput(Output):
    """One table for all results; entries that are in it already are not worked on again where it is extended."""

    table = True

    def __init__(self, places: Places, schema: tables.Schema, made_by: str, force: bool, extend: bool) -> None:
        super().__init__(places, made_by, force)
        self.schema, self.extend = tables.COLUMNS | dict(schema), extend
        self.present: set[str] = set()
        self.writer: tables.Writer | None = None

    def begin(self, stack: ExitStack) -> None:
        """Open the table, and take over the rows of the one that is there where it is to be extended."""
        if self.places.file:
            path = Path(self.places.file)
            there = files.exists(path)
            if there and not self.extend:
                files.check_free(path, self.force)
            self.open(path, stack, there and self.extend)
            if not (there and self.extend):  # another run may have made it before this one held its lock
                files.check_free(path, self.force)

    def open(self, path: Path, stack: ExitStack, extend: bool) -> None:
        """Open the table at a path."""
        self.writer = stack.enter_context(tables.writing(path, self.schema, self.made_by))
        if not extend:
            return
        self.check_table(path)
        for row in tables.read(path, list(self.schema)):
            if not isinstance(row["input"], str):
                raise InvalidInputError(f"{path}: a row has no input")
            self.add(row)
            self.present.add(tables.text(row["input"]))

    def add(self, row: dict[str, Any]) -> None:
        """Append a row; raises OSError, which is no entry's: the table is damaged then."""
        assert self.writer is not None
        self.writer.add(row)

    def shard(self, source: Source, stack: ExitStack, keep: bool) -> Output:
        """The table itself, or where there is one for each shard, that of a shard."""
        if self.places.file:
            return self
        output = TableOutput(self.places, self.schema, self.made_by, self.force, self.extend)
        output.open(Path(str(self.places.of(source))), stack, keep)
        stack.push(output.close)
        return output

    def extended(self, source: Source, stack: ExitStack) -> Output:
        return self.shard(source, stack, keep=True)

    def close(self, *_: object) -> None:
        """State how many samples failed, before the table is complete."""
        assert self.writer is not None
        self.writer.failed = self.failed

    def finished(self, source: Source) -> int | None:
        if self.places.file:
            return 0 if isinstance(source, Entry) and self.has(source) else None
        path = Path(str(self.places.of(source)))
        if not files.exists(path):
            return None
        try:
            return self.check_table(path)
        except InvalidInputError as error:
            raise OutputError(str(error)) from error

    def check_table(self, path: Path) -> int:
        """Refuse a table of another command; how many samples failed. Raises OutputError, InvalidInputError."""
        if not tables.fits(path, self.schema):
            raise OutputError(f"{path}: exists already, with other columns; --force overwrites it")
        made_by, failed = tables.maker(path)
        if made_by:
            self.check_maker(str(path), made_by)
        return failed

    def has(self, entry: Entry) -> bool:
        return tables.text(entry.name) in self.present

    def place(self, entry: Entry) -> str:
        return str(self.places.file or self.places.of(entry.inside or entry))

    def put(self, entry: Entry, content: Any) -> bytes | None:
        shard = entry.inside.name if entry.inside else None
        row = {"input": entry.name, "key": entry.key, "shard": shard} | content
        self.add({column: row[column] for column in self.schema})
        return None


def tables_of(
    found: Inputs, output: str, schema: tables.Schema, made_by: str, force: bool, extend: bool
) -> TableOutput:
    """One table for all inputs, or in a directory one for each shard.

    ``made_by`` is what Parquet tables state: the command with all that decides what is written.

    Raises
    ------
    UsageError
        Neither .jsonl nor .parquet, and there are inputs that are no shards; or an input is the output.
    UnavailableError
        pyarrow is not installed.
    """
    path = Path(remote.local(output))
    if path.suffix.lower() in tables.SUFFIXES or remote.is_url(output):
        tables.check(path)
        refuse(path, [source.path for source in found.sources if source.path], "-o")
        return TableOutput(Places("-o", "", file=path), schema, made_by, force, extend)
    if not found.shards_only or os.path.isfile(path):
        raise UsageError(f"{output}: name a table with -o, .parquet or .jsonl; of shards, a directory")
    tables.need_pyarrow()
    places = Places("-o", "", path, shard_suffix=".parquet")
    check(found, places)
    return TableOutput(places, schema, made_by, force, extend)


def check_report(report: Path | None, found: Inputs, targets: list[Output], listed: str | None) -> None:
    """Refuse a report in the place of an input, a list or an output, or of what is no file.

    Raises UsageError, UnavailableError, OutputError.
    """
    if report is None:
        return
    tables.check(report)
    files.check_regular(report)
    taken = [source.path for source in found.sources if source.path]
    taken += [Path(listed)] if listed and listed != "-" else []
    for target in targets:
        places = [target.places.file, *(target.places.of(source) for source in found.sources)]
        taken += [place for place in places if isinstance(place, Path)]
    refuse(report, taken, "--report")


def differences(made_by: str, own: str) -> str:
    """How a command differs from this run's, which has a word for each option that is not as by default."""
    there, here = made_by.split(" "), own.split(" ")
    if there[:2] != here[:2]:
        return f"made by {made_by!r}"
    parts = (("with", set(there) - set(here)), ("without", set(here) - set(there)))
    return "made " + " and ".join(f"{how} {', '.join(sorted(words))}" for how, words in parts if words)


def maker(file: BinaryIO, name: str) -> tuple[str | None, int]:
    """What made an existing shard, and how many samples failed; raises OutputError where it is none."""
    try:
        return shards.maker(file, name)
    except InvalidInputError as error:
        raise OutputError(f"{name}: exists already and is not a shard; --force overwrites it") from error


@contextmanager
def opened(target: Place) -> Iterator[BinaryIO]:
    """An existing output; raises OutputError."""
    if isinstance(target, str):
        with remote.opened(target) as file:
            yield file
        return
    if target is None or not files.check_regular(target):
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
