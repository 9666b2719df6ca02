"""What a run says of its inputs: which failed and why, and at its end how many of them did what."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dcu import tables
from dcu.cli import notes
from dcu.cli.console import check_stdout, complain, note, print_json, say
from dcu.cli.files import Inputs
from dcu.errors import DcuError, OutputError, UsageError, out_of_memory
from dcu.remote import URL

TROUBLE = (DcuError, MemoryError, RuntimeError)
"""What may be the fault of one input; of RuntimeError only what torch says where memory is short."""


SCHEMA = {
    "input": "string",
    "status": "string",
    "exit_code": "int",
    "message": "string",
    "output": "string",
    "codec": "string",
    "precision": "string",
    "width": "int",
    "height": "int",
    "bytes": "int",
    "seconds": "double",
    "sha256": "string",
}
"""Columns of ``--report``; status is done, skipped or failed."""


class Report:
    """Reports inputs that failed and counts the others, their pixels and bytes; keeps the first failure's exit code.

    Parameters
    ----------
    found : Inputs
        What the run works on; where a directory, a list or a shard is among them, the run ends with a summary.
    json : bool
        Failed inputs are JSON objects too, on standard output.
    quiet : bool
        No summary.
    prints : bool
        Results go to standard output, so that it must be there.
    json_to_stderr : bool
        Standard output holds data; what is printed as JSON goes to standard error.
    path : path, optional
        The table to write, a row for each input.
    retried : path, optional
        The table of an earlier run, of which only what failed is to be done.
    """

    def __init__(
        self,
        found: Inputs,
        json: bool,
        quiet: bool,
        prints: bool = True,
        json_to_stderr: bool = False,
        path: Path | None = None,
        retried: Path | None = None,
    ) -> None:
        self.found, self.json, self.quiet, self.json_to_stderr, self.path = found, json, quiet, json_to_stderr, path
        self.exit_code = self.done = self.failed = self.skipped = self.bytes = self.pixels = 0
        self.failed_before = None if retried is None else failures(retried)
        self.seen: set[str] = set()
        self.settled: set[str] = set()
        self.unreached: set[str] = set()
        """Shards that failed, with the samples that may be in them."""
        self.held: list[dict[str, Any]] | None = None
        self.table: tables.Writer | None = None
        self.rows = 0
        if prints:
            check_stdout()

    @property
    def retries(self) -> bool:
        """Whether only what failed before is to be done."""
        return self.failed_before is not None

    @contextmanager
    def recorded(self, in_part: bool) -> Iterator[None]:
        """Write the table, where there is to be one, as far as the run goes; raises OutputError.

        Without ``in_part``, of a run whose results are there together or not at all, only that of a whole run.
        What failed in an earlier run and was not reached is recorded as it was.
        """
        if self.path is None:
            yield
            return
        ending: BaseException | None = None
        with tables.writing(self.path, SCHEMA) as self.table:
            try:
                yield
            except BaseException as error:
                if not (self.rows and in_part):  # nothing has been done: an earlier report stays
                    raise
                ending = error
                for name in sorted((self.failed_before or frozenset()) - self.settled):
                    self.record(name, "failed", {"exit_code": 1, "message": "not reached"})
        if ending:
            raise ending

    def wanted(self, name: str, shard: str | None = None, key: str = "") -> bool:
        """Whether an input, or an entry of a shard, is to be worked on.

        A sample of a shard that failed as a whole is known by its key.
        """
        if self.failed_before is None:
            return True
        own = {spelled(name)} | ({spelled(shard), spelled(f"{shard}/{key}")} if shard else set())
        self.seen |= own
        return not own.isdisjoint(self.failed_before)

    def wanted_shard(self, name: str) -> bool:
        """Whether a shard, or an entry of it, is to be worked on."""
        before, own = self.failed_before, spelled(name)
        self.seen.add(own)
        return before is None or own in before or any(failed.startswith(f"{own}/") for failed in before)

    def failed_whole(self, name: str) -> bool:
        """Whether a shard as a whole failed before."""
        return spelled(name) in (self.failed_before or ())

    @contextmanager
    def holding(self, name: str) -> Iterator[None]:
        """Record the entries of a shard once it is complete; of one that is not, that it failed."""
        self.held, before = [], (self.done, self.bytes, self.pixels)
        try:
            yield
        except BaseException as error:
            self.held, (self.done, self.bytes, self.pixels) = None, before
            if not isinstance(error, TROUBLE):
                self.record(name, "failed", {"exit_code": 1, "message": "interrupted"})
            raise
        held, self.held = self.held, None
        for row in held:
            self.add(row)

    @contextmanager
    def of(self, name: str, counted: bool = True) -> Iterator[dict[str, Any]]:
        """Count and record an input that is done; report an error under its name. Yields its row."""
        row: dict[str, Any] = {}
        try:
            with notes.about(name):
                yield row
            if counted:
                self.done += 1
                self.bytes += row.get("bytes", 0)
                self.pixels += row.get("width", 0) * row.get("height", 0)
                self.record(name, "done", row)
        except TROUBLE as error:
            self.fail(name, error, row)

    def skip(self, name: str) -> None:
        """Count and record an input whose results are there already."""
        self.skipped += 1
        self.record(name, "skipped", {})

    def fail(self, name: str, error: Exception, row: dict[str, Any] | None = None) -> None:
        """Report the error of an input; raises it where it is none of an input."""
        if isinstance(error, DcuError):
            message, code = str(error).removeprefix(f"{name}: "), error.exit_code
        elif out_of_memory(error):
            message, code = "not enough memory", 1
        else:
            raise error
        self.failed += 1
        self.unreached.add(f"{spelled(name)}/")
        self.exit_code = self.exit_code or code
        self.complain(message if isinstance(error, OutputError) else f"{name or repr(name)}: {message}")
        if self.json:
            self.print_json({"input": name, "error": message, "exit_code": code})
        self.record(name, "failed", (row or {}) | {"exit_code": code, "message": message})

    def complain(self, message: str) -> None:
        """Say why an input failed."""
        complain(message)

    def print_json(self, facts: dict[str, Any]) -> None:
        """Print a result for programs."""
        print_json(facts, error=self.json_to_stderr)

    def show(self, facts: dict[str, Any], lines: Sequence[str]) -> None:
        """Print a result, for programs or for people."""
        if self.json and facts:
            self.print_json(facts)
        elif not self.json and lines:
            say(*lines)

    def record(self, name: str, status: str, row: dict[str, Any]) -> None:
        """Add a row to the table, where there is one."""
        if self.table:
            row = dict.fromkeys(SCHEMA) | {"exit_code": 0} | row | {"input": name, "status": status}
            if self.held is None:
                self.add(row)
            else:
                self.held.append(row)

    def add(self, row: dict[str, Any]) -> None:
        """Add a row to the table; raises OutputError."""
        assert self.table is not None
        self.rows += 1
        if self.failed_before is not None:
            self.settled.add(spelled(row["input"]))
        try:
            self.table.add(row)
        except OSError as error:
            raise OutputError(f"--report: {error.strerror or error}") from error

    def within_unreached(self, name: str) -> bool:
        """Whether a sample is of a shard that failed, perhaps before the sample was read."""
        return any(f"{name[:at]}/" in self.unreached for at, letter in enumerate(name) if letter == "/")

    def finish(self, facts: str = "") -> int:
        """End a run over a directory with a summary, which ends with ``facts``; the exit code."""
        missing = sorted(
            name for name in (self.failed_before or frozenset()) - self.seen if not self.within_unreached(name)
        )
        if missing:
            complain(f"--retry: {len(missing)} that failed are not among the inputs, such as {missing[0]}")
            self.exit_code = self.exit_code or UsageError.exit_code
        if self.found.many and not self.quiet:
            skipped = [f"{self.skipped} skipped: done before"] if self.skipped else []
            counts = [f"{self.done} done", f"{self.failed} failed", *skipped, *self.found.left_out.described()]
            note(", ".join(counts) + (f"; {facts}" if facts else ""))
        return self.exit_code


def failures(path: Path) -> frozenset[str]:
    """The inputs that failed in a run, by its table; raises as :func:`dcu.tables.read`."""
    rows = tables.read(path, ["input", "status"])
    return frozenset(
        spelled(row["input"]) for row in rows if row["status"] == "failed" and isinstance(row["input"], str)
    )


def spelled(name: str) -> str:
    """The name of an input as reports are compared: one spelling of a path, in text that tables hold."""
    return tables.text(name if URL.match(name) or not name else os.path.normpath(name))
