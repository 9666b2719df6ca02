"""Where the results of a run go: a file each, or shards beside the inputs' shards."""

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
from dcu.cli.places import Place, Places, refuse
from dcu.errors import InvalidInputError, OutputError
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

    def claim(self, entry: Entry) -> None:
        """Refuse an entry whose result is that of another one; raises InvalidInputError."""


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
        self.claimed: set[str] = set()
        if self.target is None:
            file: BinaryIO = sys.stdout.buffer
        else:
            file = stack.enter_context(stack.enter_context(complete(self.target)).open("wb"))
        self.writer = shards.Writer(file, self.made_by, counts=self.target is not None)
        stack.push(self.close)

    def close(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the tar, unless an error ends it."""
        if kind is None:
            self.writer.close(self.failed)
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

    def claim(self, entry: Entry) -> None:
        name = self.places.inside(entry).as_posix()
        if name in self.claimed:
            raise InvalidInputError(f"its result would be another member {name}")
        self.claimed.add(name)

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

    def __init__(self, parent: Output, source: Source) -> None:
        super().__init__(parent.places, parent.made_by)
        self.source = source

    def place(self, entry: Entry) -> str:
        """Shard and member."""
        return f"{self.places.of(self.source)}/{self.places.inside(entry)}"

    def has(self, entry: Entry) -> bool:
        return True

    def put(self, entry: Entry, content: Any) -> bytes | None:
        return None


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
    if there[1] == "compress" and there[2:3] != here[2:3]:
        return "made by another codec"
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
