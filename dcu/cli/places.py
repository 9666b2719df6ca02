"""Where results go: one file each, never onto an input, never two in one place."""

from __future__ import annotations

import functools
import os
import re
import stat
import sys
import unicodedata
from collections.abc import Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from dcu.cli.files import Inputs, Source
from dcu.errors import UsageError
from dcu.remote import is_url, local
from dcu.shards import SUFFIX
from dcu.walk import identity

Place = Path | str | None
"""A path, a URL, or standard output."""
PROBED = 64
"""Names of a directory that are looked at to learn whether its file system knows case."""


@dataclass(frozen=True)
class Places:
    """Where the results of one kind go: one file or standard output (None), or a directory with the inputs' names.

    Both may be URLs (str). ``keep`` keeps the input's extension: ``a.jpg.bin``, not ``a.bin``. Results of a shard are
    in one with ``shard_suffix``.
    """

    option: str
    suffix: str
    directory: Path | str | None = None
    file: Path | str | None = None
    keep: bool = False
    shard_suffix: str = SUFFIX

    @property
    def alone(self) -> bool:
        """Whether there is room for one result only."""
        return self.directory is None

    @property
    def piped(self) -> bool:
        """Whether the result goes to standard output."""
        return self.directory is None and self.file is None

    def of(self, source: Source) -> Place:
        """The file of an input's result; None is standard output."""
        if self.directory is None:
            return self.file
        inside = self.inside(source)
        return f"{self.directory}{inside.as_posix()}" if isinstance(self.directory, str) else self.directory / inside

    def inside(self, source: Source) -> Path:
        """The name of an input's result below the directory, or in a shard."""
        name = source.relative
        if source.shard:
            return name.with_suffix(self.shard_suffix)
        return name.with_name(name.name + self.suffix) if self.keep else name.with_suffix(self.suffix)


def choose(
    found: Inputs,
    output: str | None,
    suffix: str,
    keep: bool = False,
    option: str = "-o",
    shard_suffix: str = SUFFIX,
) -> Places:
    """The places that an option names.

    Raises
    ------
    UsageError
        No output named, or a terminal, or one file for several inputs.
    """
    if output is None and list(found.names) == ["-"]:
        output = "-"
    if output is None:
        raise UsageError(f"{option} FILE or DIR is needed")
    if not output:
        raise UsageError(f"{option}: the name is empty")
    if output == "-":
        if not found.alone:
            raise UsageError("standard output takes the result of one input only")
        if sys.stdout.isatty():
            raise UsageError("will not write binary data to a terminal: name a file with -o")
        return Places(option, suffix, keep=keep)
    output = local(output)
    if found.alone and found.shards_only and (file := file_of_shard(output)):
        raise UsageError(f"{option}: {file} is not a .tar, and the input is a shard")
    if is_url(output):
        if found.alone and not output.endswith("/"):
            return Places(option, suffix, file=output, keep=keep, shard_suffix=shard_suffix)
        return Places(option, suffix, output.rstrip("/") + "/", keep=keep, shard_suffix=shard_suffix)
    place = Path(output)
    if found.alone and not os.path.isdir(place) and not output.endswith(os.sep):
        return Places(option, suffix, file=place, keep=keep, shard_suffix=shard_suffix)
    if os.path.exists(place) and not os.path.isdir(place):
        raise UsageError(f"{output}: not a directory, and there are several inputs")
    return Places(option, suffix, place, keep=keep, shard_suffix=shard_suffix)


def file_of_shard(output: str) -> str | None:
    """The output where its extension is that of a file, and no shard's."""
    suffix = Path(output).suffix.lower()
    return (
        output
        if suffix[1:].isalpha() and suffix != SUFFIX and not os.path.isdir(output) and output[-1] != "/"
        else None
    )


def check(found: Inputs, *chosen: Places, keepable: bool = False) -> None:
    """Refuse, before any work, results that would replace an input or one another.

    ``keepable`` says that the command can keep extensions, which may tell names apart.

    Raises
    ------
    UsageError
        With the first such place, and how many inputs have a name that is taken.
    """
    forget()
    given = {place_key(origin(source)): source.name for source in found.sources}
    given.pop(None, None)
    taken: dict[Hashable, tuple[str, Places]] = {}
    clashes: list[str] = []
    for places in chosen:
        for source in found.sources:
            target = places.of(source)
            key = place_key(1 if target is None else target)
            if key is None:
                continue
            if key in given:
                raise UsageError(f"{target or 'standard output'} is the input {given[key]}: it would be overwritten")
            if key not in taken:
                taken[key] = source.name, places
                continue
            first, owner = taken[key]
            if owner is not places:
                raise UsageError(f"{owner.option} and {places.option} both name {target}")
            clashes.append(f"{first} and {source.name} would both become {target}")
    clashes += [f"{name} has a name that streams of standard input get" for name in reserved(found)]
    if clashes:
        count = f"{len(clashes)} name clash{'es' if len(clashes) > 1 else ''}"
        raise UsageError(f"{count}: {clashes[0]}{advice(found, chosen[0]) if keepable else ''}")


def reserved(found: Inputs) -> list[str]:
    """The files among the inputs whose results are called as those of standard input's later streams."""
    if all(source.path is not None for source in found.sources):
        return []
    return [source.name for source in found.sources if re.fullmatch(r"stdin-\d+", str(source.relative.with_suffix("")))]


def advice(found: Inputs, places: Places) -> str:
    """What to do about clashes, where it helps."""
    kept = replace(places, keep=True)
    names = [kept.of(source) for source in found.sources]
    if places.keep or len({folded(str(name.parent), str(name)) for name in names if isinstance(name, Path)}) < len(
        names
    ):
        return ""
    return f"; --keep-extension tells them apart ({found.sources[0].relative.name}{places.suffix})"


def refuse(output: Path, inputs: Iterable[Path], option: str) -> None:
    """Raise UsageError where an output is one of the inputs."""
    forget()
    key = place_key(output)
    for path in inputs:
        if place_key(path) == key:
            raise UsageError(f"{option}: {output} is the input {path}: it would be overwritten")


def origin(source: Source) -> str | Path | int:
    """Where an input is: a path, a URL, or the number of standard input."""
    if source.path is None:
        return source.name if is_url(source.name) else 0
    return source.path


def place_key(place: str | Path | int) -> Hashable:
    """Equal for all spellings of one place: links, hard links, and case where the file system has none.

    Of a standard stream, by its number: None where it is no file.
    """
    if isinstance(place, int):
        with suppress(OSError):
            status = os.fstat(place)
            return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None
        return None
    if isinstance(place, str) and is_url(place):
        return place
    if there := identity(place):
        return there
    parent, name = os.path.split(place if not os.path.islink(place) else os.path.realpath(place))
    return directory_key(parent), folded(parent, name)


def forget() -> None:
    """Look at directories afresh: they are as they are now while one call is checked."""
    directory_key.cache_clear()
    ignores_case.cache_clear()


@functools.lru_cache(maxsize=2**12)
def directory_key(directory: str) -> Hashable:
    """The key of a directory, which need not exist."""
    real = os.path.realpath(directory)
    parent, name = os.path.split(real)
    return identity(real) or ((directory_key(parent), folded(parent, name)) if name else real)


def folded(directory: str, name: str) -> str:
    """A name as the file system of a directory compares it."""
    return unicodedata.normalize("NFC", name.casefold()) if ignores_case(os.path.realpath(directory)) else name


@functools.lru_cache(maxsize=2**12)
def ignores_case(directory: str) -> bool:
    """Whether a directory, or the nearest one above it that exists, takes ``a`` and ``A`` for one name."""
    try:
        with os.scandir(directory) as entries:
            inside = [entry.name for entry, _ in zip(entries, range(PROBED), strict=False)]
    except OSError:
        inside = []
    for place in (*(os.path.join(directory, name) for name in inside), directory):
        parent, name = os.path.split(place)
        if name.swapcase() != name and (there := identity(place)):
            return identity(os.path.join(parent, name.swapcase())) == there
    return directory != os.path.dirname(directory) and ignores_case(os.path.dirname(directory))
