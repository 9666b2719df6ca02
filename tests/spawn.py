"""The command line in a process of its own, forked from one that has imported everything: with terminals and pipes."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import pty
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["dcu.cli.app", "dcu.codec", "dcu.tasks.classify", "dcu.tasks.segment"])
LIMIT = 300
"""Seconds that a run may take."""


@dataclass
class Ran:
    """What a run left."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


def child(arguments: list[str], environment: dict[str, str], directory: str, streams: Any) -> None:
    """Run dcu with these standard streams; None is a closed one."""
    for number, stream in enumerate(streams):
        if stream is None:
            os.close(number)
        else:
            os.dup2(stream.detach(), number)
    sys.stdin, sys.stdout, sys.stderr = (
        None if stream is None else io.TextIOWrapper(open(number, "rb" if number == 0 else "wb", closefd=False))  # noqa: SIM115
        for number, stream in enumerate(streams)
    )
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    sys.argv = ["dcu", *arguments]
    from dcu.__main__ import main

    main()


class Descriptors:
    """Open files, or None, on their way to the child, where they are a list."""

    def __init__(self, numbers: list[int | None]) -> None:
        self.numbers = numbers

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        return list, ([None if number is None else DupFd(number) for number in self.numbers],)


class Stream:
    """Standard output or standard error: pipe, terminal, file, gone (a pipe that nobody reads) or closed."""

    def __init__(self, kind: str, scratch: Path) -> None:
        self.kind, self.ours, self.theirs, self.data = kind, -1, -1, b""
        self.path = scratch / f"stream-{os.urandom(4).hex()}"
        if kind == "terminal":
            self.ours, self.theirs = pty.openpty()
        elif kind in ("pipe", "gone"):
            self.ours, self.theirs = os.pipe()
        elif kind == "file":
            self.theirs = os.open(self.path, os.O_WRONLY | os.O_CREAT)
        elif kind == "full":
            self.theirs = os.open("/dev/full", os.O_WRONLY)
        if kind == "gone":
            os.close(self.ours)
        self.reader = threading.Thread(target=self.read)

    def read(self) -> None:
        """Read until the other end is closed."""
        while self.kind in ("terminal", "pipe"):
            try:
                part = os.read(self.ours, 2**16)
            except OSError:  # what a terminal says at its end
                break
            if not part:
                break
            self.data += part

    def text(self) -> str:
        """All that came, lines ended as in a file."""
        if self.kind in ("terminal", "pipe"):
            self.reader.join(LIMIT)
            os.close(self.ours)
        data = self.path.read_bytes() if self.kind == "file" else self.data
        return data.decode("utf-8", "surrogateescape").replace("\r\n", "\n")


def run(
    *arguments: object,
    scratch: Path,
    data: bytes | None = b"",
    out: str = "pipe",
    err: str = "pipe",
    meanwhile: Callable[[int], None] | None = None,
) -> Ran:
    """Run dcu in ``scratch``; ``data`` is what standard input holds, None a closed one."""
    stdin = scratch / f"stdin-{os.urandom(4).hex()}"
    stdin.write_bytes(data or b"")
    streams = [Stream(out, scratch), Stream(err, scratch)]
    with stdin.open("rb") as input:
        given = [None if data is None else input.fileno(), *(s.theirs if s.theirs >= 0 else None for s in streams)]
        words = [os.fsdecode(word) if isinstance(word, bytes) else str(word) for word in arguments]
        process = CONTEXT.Process(target=child, args=(words, dict(os.environ), str(scratch), Descriptors(given)))
        process.start()
    stdin.unlink()
    for stream in streams:
        if stream.theirs >= 0:
            os.close(stream.theirs)
        stream.reader.start()
    if meanwhile and process.pid:
        meanwhile(process.pid)
    process.join(LIMIT)
    assert process.exitcode is not None, "it hangs"
    return Ran(process.exitcode, *(stream.text() for stream in streams))
