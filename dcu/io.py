"""Atomic file output: a reader sees the old file or the complete new one."""

from __future__ import annotations

import fcntl
import functools
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PART = re.compile(r"\.dcu-[0-9a-f]{16}\.part")
"""Names of files that are being written; who writes one holds its lock."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file in the same directory; it is renamed to ``path`` on success, removed on failure.

    What processes that were killed left in that directory is removed first.

    Raises
    ------
    OSError
        The temporary file cannot be made or renamed.
    """
    remove_stale(path.parent)
    part, lock = path.with_name(f".dcu-{secrets.token_hex(8)}.part"), -1
    try:
        lock = locked(part)
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
        if lock >= 0:
            os.close(lock)


def locked(part: Path) -> int:
    """Make a temporary file; the descriptor that holds its lock."""
    while True:
        lock = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with suppress(OSError):  # a file system without locks: nobody can take it for stale there
            fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:  # else another process took it for stale before it was locked
            return lock
        os.close(lock)


@functools.lru_cache(maxsize=2**12)
def remove_stale(directory: Path) -> None:
    """Remove the temporary files of processes that were killed, once in each directory: those that nobody locks."""
    with suppress(OSError), os.scandir(directory) as entries:
        for part in [entry.path for entry in entries if PART.fullmatch(entry.name) and entry.is_file()]:
            with suppress(OSError):
                lock = os.open(part, os.O_WRONLY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(part)
                finally:
                    os.close(lock)


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``; raises OSError."""
    with replacing(path) as part, part.open("wb") as file:
        file.write(data)
