"""Atomic file output: a reader sees the old file or the complete new one."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same directory; it is renamed to ``path`` on success and removed on failure.

    Raises
    ------
    OSError
        The temporary file cannot be renamed.
    """
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``; raises OSError."""
    with replacing(path) as part, part.open("xb") as file:
        file.write(data)


def read_regular(path: Path, most: int) -> bytes:
    """The bytes of a regular file of at most ``most`` bytes; of nothing else a byte is read.

    Raises
    ------
    OSError
        It cannot be opened.
    ValueError
        It is larger, or a device, pipe or directory.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")
        if status.st_size > most:
            raise ValueError(f"larger than {most} bytes")
        return file.read(most)
