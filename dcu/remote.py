"""Files at URLs, by fsspec: the one place where dcu uses a network, and only where a URL is named."""

from __future__ import annotations

import errno
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from dcu.errors import MissingInputError, OutputError, UnavailableError

LOCAL = re.compile(r"(file|local)://", re.IGNORECASE)
OBJECTS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "memory"}
"""Protocols of object stores: a file is there once all of it is."""
URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


class Guarded(io.RawIOBase):
    """A file at a URL whose errors, of as many kinds as there are stores, are MissingInputError."""

    def __init__(self, url: str, file: Any) -> None:
        self.url, self.file = url, file

    def read(self, count: int = -1) -> bytes:
        """The next bytes."""
        try:
            data: bytes = self.file.read(count)
        except Exception as error:
            raise MissingInputError(f"{self.url}: {one_line(error)}") from error
        return data


def is_url(name: str) -> bool:
    """Whether a name is a URL (``s3://bucket/a.tar``) of another place than this machine's files."""
    return URL.match(name) is not None and not LOCAL.match(name)


def local(name: str) -> str:
    """The path that a ``file://`` URL names; other names as they are."""
    return LOCAL.sub("", name)


def path_of(url: str) -> str:
    """The path of a URL, without what follows ``?``."""
    return "/" + url.partition("://")[2].partition("?")[0].partition("/")[2]


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it; raises UnavailableError."""
    try:
        import fsspec
    except ImportError as error:
        raise UnavailableError(f"{url}: URLs need fsspec: pip install 'dcu-codec[cloud]'") from error
    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UnavailableError(f"{url}: {one_line(error)}") from error
    return system, path


def one_line(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error) or type(error).__name__).partition("\n")[0]


def matching(url: str) -> list[str]:
    """The URLs that a pattern with ``*`` matches, sorted; raises MissingInputError, UnavailableError."""
    system, path = file_system(url)
    try:
        return [system.unstrip_protocol(found) for found in sorted(system.glob(path))]
    except Exception as error:  # of as many kinds as there are stores
        raise MissingInputError(f"{url}: {one_line(error)}") from error


@contextmanager
def opened(url: str) -> Iterator[BinaryIO]:
    """The bytes at a URL, from the first on; raises MissingInputError, UnavailableError."""
    system, path = file_system(url)
    try:
        file = system.open(path, "rb")
    except Exception as error:
        raise MissingInputError(f"{url}: {one_line(error)}") from error
    with file:
        yield cast(BinaryIO, Guarded(url, file))


def exists(url: str) -> bool:
    """Whether there is a file at a URL; raises OutputError, UnavailableError."""
    system, path = file_system(url)
    try:
        return bool(system.exists(path))
    except Exception as error:
        raise OutputError(f"{url}: {one_line(error)}") from error


def upload(part: Path, url: str) -> None:
    """Put a complete file at a URL; raises OutputError, UnavailableError."""
    system, path = file_system(url)
    try:
        if url.partition("://")[0] in OBJECTS:
            system.put_file(str(part), path)
        else:
            system.makedirs(path.rpartition("/")[0], exist_ok=True)
            system.put_file(str(part), f"{path}.part")
            rename(system, f"{path}.part", path)
    except Exception as error:
        raise OutputError(f"{url}: {one_line(error)}") from error


def rename(system: Any, part: str, path: str) -> None:
    """Give a complete file its name; where a store does not rename onto a file, that one is moved first."""
    try:
        system.mv(part, path)
    except OSError as error:
        if not (isinstance(error, FileExistsError) or error.errno == errno.EEXIST):
            raise
    if not system.exists(part):
        return
    old = f"{path}.old"
    system.mv(path, old)
    try:
        system.mv(part, path)
    except Exception:
        system.mv(old, path)
        raise
    system.rm_file(old)


def write(url: str, data: bytes, force: bool) -> None:
    """Put bytes at a URL; raises OutputError where another file is there and is not to be replaced."""
    system, path = file_system(url)
    try:
        if not force and system.exists(path):
            if system.cat_file(path) == data:
                return
            raise OutputError(f"{url}: exists already; --force overwrites it")
        if url.partition("://")[0] in OBJECTS:
            system.pipe_file(path, data)
        else:
            system.makedirs(path.rpartition("/")[0], exist_ok=True)
            system.pipe_file(f"{path}.part", data)
            rename(system, f"{path}.part", path)
    except OutputError:
        raise
    except Exception as error:
        raise OutputError(f"{url}: {one_line(error)}") from error
