"""One run of a command over its inputs: what is done, in parallel, where results go, what is said and recorded.

::

    inputs ── entries ── work, on --jobs threads ── results in order ──┬── files, shards, tables
                                                                       └── standard output, --report
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, TypeVar

from dcu.cli import console, notes
from dcu.cli.entries import Entry, entries
from dcu.cli.files import Inputs, Source
from dcu.cli.options import DeviceName
from dcu.cli.outputs import Finished, Output
from dcu.cli.report import TROUBLE, Report
from dcu.errors import DcuError, InvalidInputError, OutputError
from dcu.jobs import MOST_BYTES, ordered
from dcu.walk import BITSTREAMS

R = TypeVar("R")
T = TypeVar("T")


@dataclass
class Result:
    """What the work on one entry gives.

    ``contents`` go to the outputs, one each: bytes, or rows of tables. ``recorded`` is added to the row
    of ``--report``, ``lines`` are for people. ``facts`` is the line of ``--json``, in which what the row holds too is
    the row's: output, bytes, seconds.
    """

    contents: Sequence[Any] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    lines: Sequence[str] = ()
    recorded: dict[str, Any] = field(default_factory=dict)


Work = Callable[[Sequence[Entry]], Sequence[Result]]
"""Entries to a result each."""
Prepare = Callable[[str], Work]
"""Loads models on a device, "cpu" or "cuda", for the work; of ``--executor ray`` once per worker."""


@dataclass
class Outcome:
    """An entry, its outcome and its duration; or that the result of an earlier run is kept."""

    entry: Entry
    result: Result | None = None
    error: Exception | None = None
    seconds: float = 0.0
    kept: bool = False

    def checked(self) -> Result:
        """The result; raises the error."""
        if self.error:
            raise self.error
        assert self.result is not None
        return self.result


@dataclass(frozen=True)
class Settings:
    """What the commands that work on many inputs have in common."""

    doing: str
    jobs: int
    device: DeviceName = "cpu"
    suffixes: frozenset[str] = BITSTREAMS
    """Of the inputs; bitstreams may come several in a pipe."""
    quiet: bool = False
    skip_existing: bool = False
    force: bool = False
    chunk: int = 1
    """How many entries one call works on."""


class Run:
    """Works on all inputs of a command.

    Parameters
    ----------
    found : Inputs
        What to work on.
    targets : sequence of Output
        Where the results' contents go.
    prepare : callable
        Gives the work: entries to a :class:`Result` each, called on several threads. An error of several is looked for
        one by one.
    report : Report
        What counts entries and reports errors.
    settings : Settings
        See there.
    cluster : callable, optional
        Processes all shards of a run elsewhere.
    """

    def __init__(
        self,
        found: Inputs,
        targets: Sequence[Output],
        prepare: Prepare,
        report: Report,
        settings: Settings,
        cluster: Callable[[Run, console.Counter], None] | None = None,
    ) -> None:
        self.found, self.targets, self.prepare, self.report = found, targets, prepare, report
        self.settings, self.cluster = settings, cluster
        self.alone = any(target.alone for target in targets)

    @functools.cached_property
    def work(self) -> Work:
        """What is done with entries."""
        return self.prepare(self.settings.device)

    def __call__(self) -> None:
        """Do it all; entries that fail are reported, and the others are done. Raises errors of no entry."""
        if not self.cluster:
            _ = self.work  # models that are missing are one error, before any other
        try:
            into_one_table = any(target.table and target.places.file for target in self.targets)
            with self.report.recorded(in_part=not into_one_table):
                self.process()
        except RunError as end:
            raise end.__cause__ or end from None

    def process(self) -> None:
        """Process all inputs."""
        if (self.targets or self.report.table) and not any(target.piped for target in self.targets):
            console.outlive_stdout()
        with ExitStack() as stack:
            for target in self.targets:
                target.begin(stack)
            total = None if any(source.shard for source in self.found.sources) else len(self.found.sources)
            shown = stack.enter_context(console.counting(total, self.settings.doing, self.settings.quiet))
            if self.cluster:
                self.cluster(self, shown)
                return
            for unit in units(self.found.sources):
                if unit[0].shard:
                    self.process_shard(unit[0], shown)
                elif any(source.name == "-" for source in unit):  # whoever waits for an answer gets it
                    self.process_entries(self.files(unit), self.targets, shown, jobs=1, chunk=1)
                else:
                    self.process_entries(self.files(unit), self.targets, shown, self.settings.jobs, self.settings.chunk)

    def files(self, sources: Iterable[Source]) -> Iterator[Entry]:
        """The entries of inputs that are no shards, those left out that need no work."""
        for source in sources:
            for entry in entries(source, self.settings.suffixes, self.alone):
                if not self.report.wanted(entry.name):
                    continue
                try:
                    skips = self.settings.skip_existing or any(target.table for target in self.targets)
                    there = [target.finished(entry) for target in self.targets] if skips else [None]
                    finished = bool(there) and None not in there
                except DcuError as error:
                    yield Entry(entry.name, None, entry.relative, error=error)
                    continue
                if finished:
                    self.report.skip(entry.name)
                else:
                    yield entry

    def process_shard(self, source: Source, shown: console.Counter) -> None:
        """Process one shard; its outputs get their names once they are complete."""
        if not self.report.wanted_shard(source.name):
            return
        keep = self.report.retries and not self.report.failed_whole(source.name)
        with self.report.of(source.name, counted=False), ExitStack() as stack:
            stack.enter_context(self.report.holding(source.name))
            there = [None if keep else self.finished(target, source) for target in self.targets]
            failed = max((number or 0 for number in there), default=0)
            if failed and not self.report.retries:
                raise InvalidInputError(
                    f"{failed} of its samples failed before; --report and then --retry repeats them"
                )
            if there and not any(there) and None not in there:
                self.report.skip(source.name)
                return
            opened = [
                self.opened(target, source, stack, keep, number)
                for target, number in zip(self.targets, there, strict=True)
            ]
            before = self.report.failed
            self.process_entries(
                entries(source, self.settings.suffixes), opened, shown, self.settings.jobs, self.settings.chunk
            )
            for output in opened:
                output.failed += self.report.failed - before

    def opened(self, target: Output, source: Source, stack: ExitStack, keep: bool, failed: int | None) -> Output:
        """The output of a shard; of one that is there it is known how many samples it lacks."""
        if failed is None:
            return target.shard(source, stack, keep)
        return target.extended(source, stack) if failed else Finished(target, source)

    def finished(self, target: Output, source: Source) -> int | None:
        """How many samples failed when the shard that would be written was made; None where it is not there.

        In a directory it is known by its name, and skipped without being asked to be. Raises OutputError where another
        file is there.
        """
        if self.settings.force or (failed := target.finished(source)) is None:
            return None
        named = target.places.directory is not None and source.name != "-"
        if not (named or self.settings.skip_existing or target.table):
            raise OutputError(f"{target.places.of(source)}: exists already; --force overwrites it")
        return failed

    def process_entries(
        self, wanted: Iterable[Entry], opened: Sequence[Output], shown: console.Counter, jobs: int, chunk: int
    ) -> None:
        """Process entries and pass on their results, in order."""
        attempt = partial(self.attempt, opened=opened)
        for done in chain.from_iterable(ordered(attempt, batched(wanted, chunk), jobs, held_bytes)):
            shown.count()
            if done.kept:
                for output in opened:
                    output.copy(done.entry)
                if any(output.has(done.entry) for output in opened):
                    with self.report.of(done.entry.name, counted=False):
                        for output in opened:
                            output.claim(done.entry)
                        self.report.skip(done.entry.name)
                continue
            with self.report.of(done.entry.name) as row:
                row["seconds"] = round(done.seconds, 4)
                result = done.checked()
                row |= result.recorded
                for output, content in zip(opened, result.contents, strict=True):
                    if output.has(done.entry):
                        output.copy(done.entry)
                    else:
                        written(row, output.place(done.entry), output.put(done.entry, content))
                facts = result.facts | {name: row[name] for name in result.facts.keys() & row.keys()}
                self.report.show(facts, result.lines)

    def attempt(self, part: Sequence[Entry], opened: Sequence[Output]) -> list[Outcome]:
        """The results of some entries, or their errors; in a shard, perhaps that an earlier run's are kept."""
        given = [Outcome(entry, error=entry.error, kept=self.kept(entry, opened)) for entry in part]
        todo = iter(self.outcomes([done.entry for done in given if not (done.error or done.kept)]))
        return [done if done.error or done.kept else next(todo) for done in given]

    def kept(self, entry: Entry, opened: Sequence[Output]) -> bool:
        """Whether an entry of a shard is not to be done again."""
        if entry.inside is None:
            return False
        if not self.report.wanted(entry.name, entry.inside.name, entry.key):
            return True
        return not entry.error and bool(opened) and all(output.has(entry) for output in opened)

    def outcomes(self, part: Sequence[Entry]) -> list[Outcome]:
        """The results of entries that are worked on together, or one by one where that fails."""
        started = time.perf_counter()
        try:
            with notes.about(part[0].name if len(part) == 1 else ""):
                results = self.work(part) if part else []
        except TROUBLE as error:
            if len(part) == 1:
                return [Outcome(part[0], error=error, seconds=time.perf_counter() - started)]
            return [done for entry in part for done in self.outcomes([entry])]
        seconds = (time.perf_counter() - started) / max(1, len(part))
        return [Outcome(entry, result, None, seconds) for entry, result in zip(part, results, strict=True)]


def written(row: dict[str, Any], place: str, data: bytes | None) -> None:
    """Add to the row of an input what was written, the first of several outputs."""
    if "output" not in row:
        row["output"] = place
        if data is not None:
            row |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def batched(entries: Iterable[Entry], size: int) -> Iterator[list[Entry]]:
    """Lists of so many entries, fewer where much is held in memory; an error comes after the entries before it."""
    part: list[Entry] = []
    try:
        for entry in entries:
            part.append(entry)
            if len(part) == size or held_bytes(part) > MOST_BYTES // 8:
                yield part
                part = []
    except DcuError:
        if part:
            yield part
        raise
    if part:
        yield part


def held_bytes(part: Sequence[Entry]) -> int:
    """Bytes of entries that are in memory."""
    return sum(len(entry.data or b"") + sum(len(data) for _, data in entry.sidecars) for entry in part)


class RunError(Exception):
    """An error that is none of an entry."""


def ending_the_run(function: Callable[[T], R], value: T) -> R:
    """A function of a value, whose errors end the run."""
    try:
        return function(value)
    except DcuError as error:
        raise RunError from error


def every_entry(sources: Iterable[Source], report: Report) -> Iterator[Entry]:
    """The bitstreams that inputs hold, one by one; shards that are damaged are reported."""
    for source in sources:
        with report.of(source.name, counted=False):
            yield from entries(source, BITSTREAMS)


def units(sources: Sequence[Source]) -> Iterator[Sequence[Source]]:
    """Shards one by one, and the files between them together."""
    files: list[Source] = []
    for source in sources:
        if not source.shard:
            files.append(source)
            continue
        if files:
            yield files
            files = []
        yield [source]
    if files:
        yield files
