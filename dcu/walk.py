"""Files in directories: one rule for what is taken, what is left out, and how that is reported."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from dcu.errors import MissingInputError

IMAGE_LIKE = frozenset(
    {".arw", ".avif", ".bmp", ".cr2", ".cr3", ".dng", ".eps", ".gif", ".heic", ".heif", ".hif", ".ico", ".jfif"}
    | {".jp2", ".jpe", ".jpeg", ".jpg", ".jxl", ".jxr", ".nef", ".orf", ".png", ".psd", ".qoi", ".raf", ".raw"}
    | {".rw2", ".svg", ".tif", ".tiff", ".webp", ".xcf"}
)
"""Extensions of files that people take for images, whether dcu reads them or not."""
BITSTREAMS = frozenset({".bin", ".dcu"})
"""Extensions of bitstreams."""
LISTED = 5
"""Extensions that a summary names."""


@dataclass(frozen=True)
class LeftOut:
    """How many files and directories were left out, by reason, and of files by their extension."""

    reasons: Counter[str] = field(default_factory=Counter)
    extensions: Counter[str] = field(default_factory=Counter)

    def described(self) -> list[str]:
        """Counts with words; empty where nothing was left out."""
        parts = [f"{count} skipped: {reason}" for reason, count in sorted(self.reasons.items())]
        looks = {e: n for e, n in self.extensions.items() if e in IMAGE_LIKE}
        others = {e: n for e, n in self.extensions.items() if e not in IMAGE_LIKE}
        for kind, counts in (("images of other formats", looks), ("other extensions", others)):
            if counts:
                parts.append(f"{sum(counts.values())} skipped: {kind} ({listed(counts)})")
        return parts


def listed(counts: dict[str, int]) -> str:
    """The most frequent extensions and how many there are of each."""
    frequent = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    named = [f"{extension or 'none'} {count}" for extension, count in frequent[:LISTED]]
    return ", ".join([*named, *(["..."] if len(frequent) > LISTED else [])])


def checked_walk(top: Path, suffixes: Collection[str], left_out: LeftOut) -> list[Path]:
    """The files that :func:`walk` finds; raises MissingInputError where a directory cannot be opened."""
    found = walk(top, suffixes, left_out)
    for path in found:
        if os.path.isdir(path):  # what it holds must not go missing unseen
            raise MissingInputError(f"{path}: cannot be opened")
    return found


def walk(top: Path, suffixes: Collection[str], left_out: LeftOut) -> list[Path]:
    """Every file below with one of the extensions, and every directory that cannot be opened, sorted.

    Links to directories are followed once, after all else, and never upward; what is left out is counted.
    """
    paths: list[Path] = []
    seen = {key for parent in Path(os.path.realpath(top)).parents if (key := identity(parent))}
    directories, links = [top], list[Path]()
    while directories or links:
        directory = directories.pop() if directories else links.pop(0)
        if (key := identity(directory)) in seen and key:
            left_out.reasons["circular or repeated links to directories"] += 1
            continue
        seen.add(key or (0, 0))
        try:
            with os.scandir(directory) as entries:
                names = sorted(entry.name for entry in entries)
        except OSError:
            paths.append(directory)
            continue
        for path in (directory / name for name in names):
            if os.path.isdir(path):
                (links if os.path.islink(path) else directories).append(path)
            elif path.suffix.lower() not in suffixes:
                left_out.extensions[path.suffix.lower()] += 1
            elif os.path.isfile(path) or not os.path.exists(path):
                paths.append(path)
            else:  # a pipe may never end
                left_out.reasons["not regular files"] += 1
    return sorted(paths)


def identity(path: str | Path | int) -> tuple[int, int] | None:
    """What all names of one file or directory have in common; None where there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
