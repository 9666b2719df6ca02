"""What takes long to make is made once and kept: in the user's cache directory, checked before it is used."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dcu import paths
from dcu.io import write_atomic

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
    with locked(place, title) as trouble:
        if (data := complete(place)) is not None:
            return data
        log.warning("preparing %s, once", title)
        data = make()
        if not trouble:
            try:
                write_atomic(place, data)
                write_atomic(digest_of(place), f"{hashlib.sha256(data).hexdigest()}\n".encode())
            except OSError as error:
                trouble = reason(error)
    if trouble:
        log.warning("%s could not be kept in %s: %s", title, place.parent, trouble)
    return data


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


def check_ours(directory: Path) -> None:
    """Refuse a directory whose files others may replace; raises OSError."""
    status = directory.stat()
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(errno.EPERM, "other users may write there")


@contextmanager
def locked(place: Path, title: str) -> Iterator[str]:
    """Hold the lock of a file, which ends with the process, in a directory that is created for its owner alone.

    Yields why nothing can be written there; nothing, where it can.
    """
    with ExitStack() as held:
        trouble = ""
        try:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_ours(place.parent)
            lock = held.enter_context(place.with_name(f"{place.name}.lock").open("ab"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.warning("waiting for another process that prepares %s", title)
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError:
                pass  # a file system without locks
        except OSError as error:
            trouble = reason(error)
        yield trouble


def reason(error: OSError) -> str:
    """What an error says."""
    return error.strerror or str(error)
