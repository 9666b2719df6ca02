"""Inputs and outputs of the commands: files, directories and pipes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dcu.cli import notes
from dcu.cli.app import complain, out_of_memory
from dcu.errors import DcuError, InvalidInputError, MissingInputError, OutputError, UsageError
from dcu.io import write_atomic

BIN = frozenset({".bin"})
WIDE = 1000
"""Columns of tables that are no terminal's: no cell is wrapped."""
T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """One input: the name to print, where it is (None: standard input), its place under the directory it came from."""

    name: str
    path: Path | None
    relative: Path

    def read(self) -> bytes:
        """All its bytes."""
        if self.path is None and sys.stdin is None:
            raise MissingInputError("-: standard input is closed")
        try:
            return sys.stdin.buffer.read() if self.path is None else self.path.read_bytes()
        except OSError as error:
            raise MissingInputError(f"{self.name}: {error.strerror}") from error


def sources(inputs: Sequence[str], suffixes: frozenset[str], kind: str) -> list[Source]:
    """The inputs in order, directories opened: every file below with one of the endings, sorted.

    A missing file, or a directory that cannot be opened, stays in the list and fails when it is read; a directory
    without any such file is an error at once.
    """
    found = []
    for name in inputs:
        path = Path(name)
        if name == "-":
            found.append(Source("-", None, Path("stdin")))
        elif os.path.isdir(name):  # unlike Path.is_dir, never raises
            below = walk(path, suffixes)
            if not below:
                raise MissingInputError(f"{name}: holds no {kind}")
            found += [Source(str(p), p, p.relative_to(path)) for p in below]
        else:
            found.append(Source(name, path, Path(path.name)))
    if sum(source.path is None for source in found) > 1:
        raise UsageError("standard input can be read only once")
    return found


def walk(top: Path, suffixes: frozenset[str]) -> list[Path]:
    """Every file below with one of the endings, and every directory that cannot be opened, sorted."""
    shut: list[Path] = []
    below = [
        Path(directory, file)
        for directory, _, files in os.walk(top, onerror=lambda error: shut.append(Path(error.filename)))
        for file in files
        if Path(file).suffix.lower() in suffixes
    ]
    whole = [path for path in below if os.path.isfile(path) or not os.path.exists(path)]  # no pipes: they may not end
    return sorted(whole + shut)


def targets(inputs: Sequence[str], found: Sequence[Source], output: str | None, suffix: str) -> list[Path | None]:
    """Where each result goes; None is standard output.

    Raises
    ------
    UsageError
        No output named, a terminal, or two inputs with one output name.
    """
    alone = len(inputs) == 1 and not os.path.isdir(inputs[0])
    if output is None and inputs == ["-"]:
        output = "-"
    if output is None:
        raise UsageError("-o FILE or DIR is needed")
    if output == "-":
        if not alone:
            raise UsageError("standard output takes the result of one input only")
        if sys.stdout.isatty():
            raise UsageError("will not write binary data to a terminal: name a file with -o")
        return [None]
    place = Path(output)
    if alone and not os.path.isdir(place) and not output.endswith(os.sep):
        return [place]
    if os.path.exists(place) and not os.path.isdir(place):
        raise UsageError(f"{output}: not a directory, and there are several inputs")
    chosen = [place / source.relative.with_suffix(suffix) for source in found]
    taken: dict[Path, str] = {}
    for source, target in zip(found, chosen, strict=True):
        if target in taken:
            raise UsageError(f"{taken[target]} and {source.name} would both become {target}")
        taken[target] = source.name
    return list(chosen)


def put(target: Path | None, data: bytes, force: bool) -> None:
    """Write a result beside its place and rename it; None is standard output.

    Raises
    ------
    OutputError
        It cannot be written, or another file is there already.
    """
    if target is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        if target.is_file() and target.read_bytes() == data:
            return
        check_free(target, force)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, data)
    except OSError as error:
        raise OutputError(f"{target}: {error.strerror}") from error


def check_free(target: Path, force: bool) -> None:
    """Raise OutputError where something is there that is not to be overwritten."""
    if target.exists():
        if not target.is_file():
            raise OutputError(f"{target}: not a regular file")
        if not force:
            raise OutputError(f"{target}: exists already; --force overwrites it")


class Failures:
    """Reports inputs that failed and goes on; keeps the exit code of the first."""

    def __init__(self) -> None:
        self.exit_code = 0

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Report an error of one input under its name."""
        try:
            with notes.about(name):
                yield
        except DcuError as error:
            message = str(error)
            self.exit_code = self.exit_code or error.exit_code
            complain(
                message if message.startswith(f"{name}:") or isinstance(error, OutputError) else f"{name}: {message}"
            )
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            self.exit_code = self.exit_code or 1
            complain(f"{name}: not enough memory")


def streams(found: Iterable[Source], failures: Failures) -> Iterator[tuple[Source, Any]]:
    """(source, parsed stream) of every bitstream; standard input may hold several, one after the other.

    A broken one is reported; it ends its pipe, the other inputs go on.
    """
    from dcu import bitstream

    for source in found:
        with failures.of(source.name):
            data = source.read()
            if source.path is None:
                yield from ((source, stream) for stream in bitstream.split(data))
                continue
            stream = bitstream.read(data)
            if stream.size != len(data):
                raise InvalidInputError("bytes after the end of the stream")
            yield source, stream


def batched(values: Iterable[T], size: int, weigh: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """Lists of at most ``size`` values that weigh at most ``most`` together, or of one that weighs more alone."""
    batch: list[T] = []
    weight = 0
    for value in values:
        more = weigh(value)
        if batch and (len(batch) == size or weight + more > most):
            yield batch
            batch, weight = [], 0
        batch.append(value)
        weight += more
    if batch:
        yield batch


def progress(values: Sequence[T], what: str, quiet: bool) -> Iterable[T]:
    """The values behind a progress bar, where there are several and standard error is a terminal."""
    if quiet or len(values) < 2 or not sys.stderr.isatty():
        return values
    from rich.console import Console
    from rich.progress import track

    return track(values, what, console=Console(stderr=True), transient=True)


def print_json(value: dict[str, Any], error: bool = False) -> None:
    """One JSON object on a line of standard output, or of standard error."""
    print(json.dumps(value), file=sys.stderr if error else sys.stdout, flush=True)


def print_rows(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Rows of equal keys on standard output: one JSON object a line, or a table for people."""
    if as_json:
        for row in rows:
            print_json(row)
        return
    if rows:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for name, value in rows[0].items():
            table.add_column(Text(name), justify="right" if isinstance(value, int | float) else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text("" if value is None else str(value)) for value in row.values()))
        console = Console() if sys.stdout.isatty() else Console(width=WIDE, color_system=None)
        console.print(table)
        console.print()
