"""Atomic file output: a reader sees the old file or the complete new one, after a loss of power too where asked for."""

from __future__ import annotations

import errno
import fcntl
import functools
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PART = re.compile(r"\.dcu-[0-9a-f]{16}\.part")
"""Names of files that are being written; who writes one holds its lock."""


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield an empty temporary file in the same directory; it is renamed to ``path`` on success, removed on failure.

    What processes that were killed left in that directory is removed first. ``durable`` waits until file and name are
    on the disk, some 10 to 20 ms.

    Raises
    ------
    OSError
        The temporary file cannot be made or renamed; what is there is no regular file.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file")
    remove_stale(path.parent)
    part, lock = path.with_name(f".dcu-{secrets.token_hex(8)}.part"), -1
    try:
        lock = made_and_locked(part)
        yield part
        if durable:
            sync(part)
        os.replace(part, path)
        if durable:
            sync(path.parent)
    finally:
        part.unlink(missing_ok=True)
        if lock >= 0:
            os.close(lock)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # what some file systems say of directories
            raise
    finally:
        os.close(descriptor)


def made_and_locked(part: Path) -> int:
    """Make a temporary file; the descriptor that holds its lock."""
    while True:
        lock = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with suppress(OSError):  # a file system without locks: nobody can take it for stale there
            fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:  # else another process considered it stale before it was locked
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


def write_atomic(path: Path, data: bytes, durable: bool = True) -> None:
    """Write ``data`` to ``path``, as :func:`replacing` says; raises OSError."""
    with replacing(path, durable) as part, part.open("wb") as file:
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
def waiting(directory: Path) -> Iterator[None]:
    """Hold the lock of a directory, once whoever holds it is done; raises OSError where it cannot be opened."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, temporary: bool = False) -> Iterator[None]:
    """Hold a lock file, which is made where it is missing; the lock of a process ends with it.

    ``temporary`` removes the file at the end.

    Raises
    ------
    BlockingIOError
        Another process holds it.
    OSError
        The file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise
            except OSError as error:  # a file system without locks
                if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                    raise
            if not os.fstat(file.fileno()).st_nlink:  # whoever held it has just removed it
                continue
            try:
                yield
            finally:
                if temporary:
                    path.unlink(missing_ok=True)
            return


def lock_of(path: Path) -> Path:
    """The temporary lock file of a path; one that a killed process left is removed as its other files are."""
    return path.with_name(f".dcu-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.part")
