"""Standard output and standard error: how lines are written, and what happens when nobody reads them."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO, TypeVar

from dcu.errors import OutputError

T = TypeVar("T")
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""Control characters, separators of lines, marks that turn the direction of text, and bytes that are no text."""
WIDE = 1000
"""Columns of tables that are no terminal's: no cell is wrapped."""
REDRAWN = 0.1
"""Seconds between two states of the progress line."""


class Descriptor(io.FileIO):
    """A standard stream; once writing fails in a way that is forgiven, what follows goes nowhere."""

    forgiven: Callable[[OSError], bool] = staticmethod(lambda error: False)

    def write(self, data: Any) -> int:
        """Write, or pretend to."""
        try:
            return super().write(data)
        except OSError as error:
            if not self.forgiven(error):
                raise
            return len(data)


class ClosedOutput(io.TextIOBase):
    """Standard output that was closed when dcu started: results that go there are an error."""

    def write(self, text: str) -> int:
        """Raise OutputError."""
        raise OutputError("standard output is closed")

    @property
    def buffer(self) -> Any:
        """Raise OutputError."""
        raise OutputError("standard output is closed")


def open_streams() -> None:
    """Prepare the standard streams of this process.

    Closed descriptors are taken, so that no file gets their number; errors on standard error are forgiven: nothing that
    is said there changes the result.
    """
    stdout, stderr = sys.stdout, sys.stderr
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = ClosedOutput() if stdout is None else text_stream(Descriptor(1, "w", closefd=False), stdout)
    sys.stderr = text_stream(Descriptor(2, "w", closefd=False), stderr)
    sys.stderr.buffer.raw.forgiven = lambda error: True  # type: ignore[attr-defined]


def text_stream(raw: Descriptor, like: TextIO | None) -> TextIO:
    """A stream of lines; what its encoding lacks is escaped."""
    encoding = like.encoding if like else "utf-8"
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=True)


@contextmanager
def stderr_alone() -> Iterator[None]:
    """Send what libraries write to the descriptor of standard error nowhere; lines of dcu still get there."""
    own = sys.stderr
    raw = getattr(getattr(own, "buffer", None), "raw", None)
    if not isinstance(raw, Descriptor):
        yield
        return
    number = os.dup(2)
    moved = Descriptor(number, "w", closefd=False)
    moved.forgiven = raw.forgiven
    own.flush()
    sys.stderr = text_stream(moved, own)
    silence(2)
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = own
        os.dup2(number, 2)
        os.close(number)


def outlive_stdout() -> None:
    """From now on a closed pipe ends only the lines on standard output: files are still to be written."""
    raw = None if isinstance(sys.stdout, ClosedOutput) else getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, Descriptor):
        raw.forgiven = lambda error: error.errno == errno.EPIPE


def check_stdout() -> None:
    """Raise OutputError where results would go to a standard output that is closed."""
    if isinstance(sys.stdout, ClosedOutput):
        raise OutputError("standard output is closed")


def silence(descriptor: int) -> None:
    """Send the rest of a standard stream nowhere, the interpreter's own last flush with it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def printable(text: str) -> str:
    r"""Text for people on one line: control characters and bytes that are no text as ``\x1b``."""

    def escaped(found: re.Match[str]) -> str:
        code = ord(found[0])
        code -= 0xDC00 if 0xDC80 <= code <= 0xDCFF else 0  # a byte, as Python's file names hold it
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

    return UNPRINTABLE.sub(escaped, text)


def say(*lines: str) -> None:
    """Lines for people on standard output."""
    clear()
    print("\n".join(map(printable, lines)), flush=True)


def note(line: str) -> None:
    """A line for people on standard error."""
    clear()
    print(printable(line), file=sys.stderr, flush=True)


def complain(message: str) -> None:
    """An error, a warning or a remark as one line on standard error."""
    note(f"dcu: {message}")


def print_json(value: Mapping[str, object], error: bool = False) -> None:
    """One JSON object on a line of standard output, or of standard error."""
    clear()
    print(json.dumps(value), file=sys.stderr if error else sys.stdout, flush=True)


def print_rows(rows: Sequence[Mapping[str, object]], as_json: bool) -> None:
    """Rows of equal keys on standard output: one JSON object a line, or a table for people.

    In the latter a value that is a mapping has a table of its own, below.
    """
    if as_json:
        for row in rows:
            print_json(row)
        return
    if rows:
        print_table([{name: value for name, value in row.items() if not isinstance(value, Mapping)} for row in rows])
    for row in rows:
        for name, value in row.items():
            if isinstance(value, Mapping):
                print_table([{name: key, "value": inner} for key, inner in value.items()])


def print_table(rows: Sequence[Mapping[str, object]]) -> None:
    """A table for people; cells are wrapped between words, and not at all where the terminal is too narrow for that."""
    from rich import box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name, value in rows[0].items():
        table.add_column(Text(name), justify="right" if isinstance(value, int | float) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if value is None else printable(str(value))) for value in row.values()))
    clear()
    console = Console() if sys.stdout.isatty() else Console(width=WIDE, color_system=None)
    width = Measurement.get(console, console.options.update(max_width=WIDE), table)
    if width.minimum > console.width:
        console.width = width.maximum
    console.print(table)
    console.print()


class Counter:
    """How many inputs are done, on a line of the terminal; standard output is left alone.

    ``total`` is None where that is not known before the end.
    """

    def __init__(self, total: int | None, doing: str, visible: bool) -> None:
        self.total, self.doing, self.visible, self.done = total, doing, visible, 0
        self.started, self.shown = time.monotonic(), -REDRAWN

    def count(self) -> None:
        """One more is done."""
        now = time.monotonic()
        if self.visible and now - self.shown >= REDRAWN:
            rate = self.done / (now - self.started) if self.done else 0.0
            if self.total is None:
                draw(f"{self.doing} {self.done}" + (f", {rate:.1f} images per second" if rate else ""))
            else:
                left = f", {(self.total - self.done) / rate:.0f} s left" if rate else ""
                draw(f"{self.doing} {self.done}/{self.total}{left}")
            self.shown = now
        self.done += 1


@contextmanager
def counting(total: int | None, doing: str, quiet: bool) -> Iterator[Counter]:
    """A counter, visible where there is more than one input and standard error is a terminal; gone at the end."""
    terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    try:
        yield Counter(total, doing, terminal and not quiet and total != 1)
    finally:
        clear()


def progress(values: Sequence[T], doing: str, quiet: bool) -> Iterator[T]:
    """The values one by one, counted on the terminal."""
    with counting(len(values), doing, quiet) as counter:
        for value in values:
            counter.count()
            yield value


LINE = {"drawn": False}


def draw(text: str) -> None:
    """Show the progress line in the place of the one before."""
    columns = shutil.get_terminal_size().columns
    print(f"\r{printable(text)[: columns - 1]}\x1b[K", end="", file=sys.stderr, flush=True)
    LINE["drawn"] = True


def clear() -> None:
    """Take the progress line away, before anything else is written to the terminal."""
    if LINE["drawn"]:
        LINE["drawn"] = False
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
