"""What a run says of its inputs: which failed and why, and at its end how many of them did what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dcu import tables
from dcu.cli import notes
from dcu.cli.console import check_stdout, complain, note, print_json
from dcu.cli.files import Inputs
from dcu.errors import DcuError, OutputError, out_of_memory

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
        retried: Path | None = None,
    ) -> None:
        self.found, self.json, self.quiet, self.json_to_stderr = found, json, quiet, json_to_stderr
        self.exit_code = self.done = self.failed = self.skipped = self.bytes = self.pixels = 0
        self.failed_before = None if retried is None else failures(retried)
        self.table: tables.Writer | None = None
        if prints:
            check_stdout()

    @property
    def retries(self) -> bool:
        """Whether only what failed before is to be done."""
        return self.failed_before is not None

    @contextmanager
    def recorded(self, path: Path | None) -> Iterator[None]:
        """Write a table with a row for each input, as far as the run goes; raises OutputError."""
        if path is None:
            yield
            return
        try:
            with tables.writing(path, SCHEMA) as self.table:
                try:
                    yield
                except BaseException as error:  # what was done is recorded nevertheless
                    ending: BaseException | None = error
                else:
                    ending = None
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror}") from error
        if ending:
            raise ending

    def wanted(self, name: str, shard: str | None = None) -> bool:
        """Whether an input, or an entry of a shard, is to be worked on."""
        return self.failed_before is None or name in self.failed_before or shard in self.failed_before

    def wanted_shard(self, name: str) -> bool:
        """Whether a shard, or an entry of it, is to be worked on."""
        before = self.failed_before
        return before is None or name in before or any(failed.startswith(f"{name}/") for failed in before)

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
        self.exit_code = self.exit_code or code
        complain(message if isinstance(error, OutputError) else f"{name or repr(name)}: {message}")
        if self.json:
            print_json({"input": name, "error": message, "exit_code": code}, error=self.json_to_stderr)
        self.record(name, "failed", (row or {}) | {"exit_code": code, "message": message})

    def record(self, name: str, status: str, row: dict[str, Any]) -> None:
        """Add a row to the table, where there is one."""
        if self.table:
            self.table.add(dict.fromkeys(SCHEMA) | {"exit_code": 0} | row | {"input": name, "status": status})

    def finish(self, facts: str = "") -> int:
        """End a run over a directory with a summary, which ends with ``facts``; the exit code."""
        if self.found.many and not self.quiet:
            skipped = [f"{self.skipped} skipped: done before"] if self.skipped else []
            counts = [f"{self.done} done", f"{self.failed} failed", *skipped, *self.found.left_out.described()]
            note(", ".join(counts) + (f"; {facts}" if facts else ""))
        return self.exit_code


def failures(path: Path) -> frozenset[str]:
    """The inputs that failed in a run, by its table; raises as :func:`dcu.tables.read`."""
    rows = tables.read(path, ["input", "status"])
    return frozenset(row["input"] for row in rows if row["status"] == "failed" and isinstance(row["input"], str))
