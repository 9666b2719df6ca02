"""Reads committed files out of git clones and writes tars whose bytes depend on names and contents alone."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from dcu.datasets.table import Repository
from dcu.errors import InvalidInputError, MissingInputError, OutputError, UnavailableError
from dcu.io import replacing

MAX_FILE_BYTES = 2**26


@dataclass(frozen=True)
class Clones:
    """A directory with one git clone per repository, bare or not.

    The clone of ``owner/name`` is the directory ``name`` or ``name.git``, as ``git clone`` calls it, or ``owner+name``;
    it may also be the directory ``repo`` in that one.
    """

    directory: Path

    def find(self, repository: Repository) -> Path | None:
        """The git directory of a repository's clone; None where there is none."""
        short = repository.name.partition("/")[2]
        for name in (repository.name.replace("/", "+"), short, f"{short}.git"):
            for git in (Path(), Path(".git"), Path("repo"), Path("repo", ".git")):
                candidate = self.directory / name / git
                if (candidate / "HEAD").is_file() and (candidate / "objects").is_dir():
                    return candidate
        return None

    def missing(self, repositories: Iterable[Repository]) -> list[Repository]:
        """The repositories without a clone."""
        return [repository for repository in repositories if self.find(repository) is None]

    def commit(self, repository: Repository) -> str:
        """The hash of the commit that a clone is at."""
        command = ["git", f"--git-dir={self._git(repository)}", "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    def files(self, repository: Repository, *directories: str) -> Iterator[tuple[str, bytes]]:
        """Path and content of every file of a clone's commit below the directories, or of all files, in path order.

        Raises
        ------
        MissingInputError
            No such clone.
        InvalidInputError
            The clone is damaged, or has no such directory.
        UnavailableError
            git is not installed.
        """
        git = self._git(repository)
        command = ["git", f"--git-dir={git}", "archive", "--format=tar", "HEAD", *directories]
        try:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except FileNotFoundError as error:
            raise UnavailableError("git is not installed") from error
        with process:
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                    yield from contents(archive)
            except tarfile.TarError as error:
                process.kill()
                raise InvalidInputError(f"{git}: {said(process.stderr.read()) or error}") from error
            if process.wait():
                raise InvalidInputError(f"{git}: {said(process.stderr.read()) or 'git archive failed'}")

    def _git(self, repository: Repository) -> Path:
        git = self.find(repository)
        if git is None:
            raise MissingInputError(f"{self.directory}: no clone of {repository.name}")
        return git


def said(message: bytes) -> str:
    """The first line of what a program wrote."""
    return message.decode("utf-8", "replace").strip().partition("\n")[0]


def contents(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    """Name and content of every regular file of a tar."""
    for member in archive:
        if member.size > MAX_FILE_BYTES:
            raise tarfile.TarError(f"{member.name} is too large")
        if member.isfile():
            stream = archive.extractfile(member)
            assert stream is not None
            yield member.name, stream.read()


class TarWriter:
    """Writes a tar whose bytes depend on names and contents alone; it gets its name when it is complete.

    Leaving the ``with`` block by an exception removes what was written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as stack:
                part = stack.enter_context(replacing(self.path))
                self._archive = stack.enter_context(tarfile.open(part, "w", format=tarfile.USTAR_FORMAT))
                self._stack = stack.pop_all()
        except OSError as error:
            raise OutputError(f"{self.path}: {error.strerror}") from error
        return self

    def add(self, name: str, data: bytes) -> None:
        """Append a file."""
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644
        try:
            self._archive.addfile(info, io.BytesIO(data))
        except ValueError as error:  # USTAR has room for 100 to 256 characters
            raise InvalidInputError(f"{name}: {error}") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


def sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
