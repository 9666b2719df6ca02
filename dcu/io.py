"""Atomic file output: a reader sees the old file or the complete new one."""

from __future__ import annotations

import errno
import fcntl
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


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, which is made where it is missing; the lock of a process ends with it.

    Raises
    ------
    BlockingIOError
        Another process holds it.
    OSError
        The file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError as error:  # a file system without locks
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
        yield
