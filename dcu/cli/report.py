"""What a run says of its inputs: which failed and why, and at its end how many of them did what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dcu.cli import notes
from dcu.cli.console import check_stdout, complain, note, print_json
from dcu.cli.files import Inputs
from dcu.errors import DcuError, OutputError

TROUBLE = (DcuError, MemoryError, RuntimeError)
"""What may be the fault of one input; of RuntimeError only what torch says where memory is short."""


def out_of_memory(error: Exception) -> bool:
    """Whether there was not enough memory, as Python or torch say it."""
    return isinstance(error, MemoryError) or any(
        said in str(error) for said in ("not enough memory", "allocate memory", "out of memory")
    )


class Report:
    """Reports inputs that failed and counts the others; keeps the exit code of the first that failed.

    Parameters
    ----------
    found : Inputs
        What the run works on; where a directory is among them, the run ends with a summary.
    json : bool
        Failed inputs are JSON objects too, on standard output.
    quiet : bool
        No summary.
    prints : bool
        Results go to standard output, so that it must be there.
    json_to_stderr : bool
        Standard output holds data; what is printed as JSON goes to standard error.
    """

    def __init__(
        self, found: Inputs, json: bool, quiet: bool, prints: bool = True, json_to_stderr: bool = False
    ) -> None:
        self.found, self.json, self.quiet, self.json_to_stderr = found, json, quiet, json_to_stderr
        self.exit_code = self.done = self.failed = 0
        if prints:
            check_stdout()

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Count an input that is done; report an error under its name."""
        try:
            with notes.about(name):
                yield
            self.done += 1
        except TROUBLE as error:
            self.fail(name, error)

    def fail(self, name: str, error: Exception) -> None:
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

    def finish(self, facts: str = "") -> int:
        """End a run over a directory with a summary, which ends with ``facts``; the exit code."""
        if self.found.directories and not self.quiet:
            counts = [f"{self.done} done", f"{self.failed} failed", *self.found.left_out.described()]
            note(", ".join(counts) + (f"; {facts}" if facts else ""))
        return self.exit_code
