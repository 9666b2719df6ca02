"""What takes long to make is made once and kept: in the user's cache directory, checked before it is used."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dcu import paths
from dcu.io import replacing

log = logging.getLogger("dcu")


def kept(name: str, title: str, make: Callable[[], bytes]) -> bytes:
    """What ``make`` gives, from the file of that name in the cache where it is there and complete.

    One process makes it while others wait for it. Where it cannot be kept, it is made all the same, with a warning.

    Parameters
    ----------
    name : str
        Names everything that the content depends on.
    title : str
        What it is, for the user.
    """
    place = paths.cache_directory() / name
    if (data := complete(place)) is not None:
        return data
    try:
        make_directory(place.parent)
        with alone(place, title):
            if (data := complete(place)) is None:
                data = made(title, make)
                write_durably(place, data)
                write_durably(digest_of(place), f"{hashlib.sha256(data).hexdigest()}\n".encode())
    except OSError as error:
        log.warning("dcu: %s could not be kept in %s: %s", title, place.parent, error.strerror)
        return data if data is not None else made(title, make)
    return data


def made(title: str, make: Callable[[], bytes]) -> bytes:
    """What ``make`` gives, after a line for those who wait."""
    log.warning("dcu: preparing %s, once", title)
    return make()


def digest_of(place: Path) -> Path:
    """The file that holds the SHA-256 of another."""
    return place.with_name(f"{place.name}.sha256")


def complete(place: Path) -> bytes | None:
    """What a file holds, if it is in a directory of ours and its SHA-256 is the one beside it; else None."""
    try:
        check_ours(place.parent)
        data = place.read_bytes()
        digest = digest_of(place).read_bytes()
    except OSError:
        return None
    return data if digest.split() == [hashlib.sha256(data).hexdigest().encode()] else None


def make_directory(directory: Path) -> None:
    """Create a directory for its owner alone; raises OSError where it cannot be, or is one of others."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_ours(directory)


def check_ours(directory: Path) -> None:
    """Refuse a directory whose files others may replace; raises OSError."""
    status = directory.stat()
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(0, "other users may write there")


@contextmanager
def alone(place: Path, title: str) -> Iterator[None]:
    """Hold the lock of a file; it ends with the process. Raises OSError where the directory is read-only."""
    with place.with_name(f"{place.name}.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("dcu: waiting for another process that prepares %s", title)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_durably(path: Path, data: bytes) -> None:
    """Write a file beside its place and rename it once it is on the disk; raises OSError."""
    with replacing(path) as part, part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
