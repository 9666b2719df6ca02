"""Images with labels, from directories and tars, read when they are needed."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dcu import paths
from dcu.errors import InvalidInputError, MissingInputError, UnavailableError
from dcu.image import SUFFIXES, ImageArray, check_size, open_image, read_image

BITSTREAM = ".bin"
LABELLED = SUFFIXES | {BITSTREAM}
"""What networks on latents learn from and are measured on."""
LABEL_MAPS = ("BMP", "GIF", "PNG", "PPM", "TIFF")
"""Formats of label maps."""


@dataclass(frozen=True)
class Item:
    """One file of a data set: where its bytes are, its name inside the set, and the set's name."""

    dataset: str
    name: str
    path: Path
    offset: int
    size: int

    @property
    def label(self) -> str:
        """The directory that holds it: its class, where subdirectories are classes."""
        return PurePosixPath(self.name).parent.name

    @property
    def is_bitstream(self) -> bool:
        """Whether it holds a bitstream, by its name."""
        return self.name.lower().endswith(BITSTREAM)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Put the item's name before what is said of its content."""
        try:
            yield
        except (InvalidInputError, UnavailableError) as error:
            raise type(error)(f"{self.dataset}/{self.name}: {error}") from error

    def image(self) -> ImageArray:
        """The image that it holds; raises InvalidInputError with its name."""
        with self.named():
            return read_image(self.read())

    def read(self) -> bytes:
        """The file's bytes."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                return file.read(self.size)
        except OSError as error:
            raise MissingInputError(f"{self.path}: {error.strerror}") from error


def dataset_name(source: Path) -> str:
    """What a data set is called: a directory by its name, a tar by its name without the ending."""
    return source.resolve().name if os.path.isdir(source) else source.stem


def items(source: Path, suffixes: Iterable[str] = SUFFIXES) -> list[Item]:
    """Every file of a directory, or of a tar, whose name has one of the endings, sorted by name.

    A directory that holds tars alone (WebDataset shards) is all of them, one after the other.

    Raises
    ------
    MissingInputError
        No such directory or file, or nothing of that kind in it.
    InvalidInputError
        A file that is no tar.
    """
    wanted, dataset = tuple(suffixes), dataset_name(source)
    if os.path.isdir(source):
        found = [
            Item(dataset, path.relative_to(source).as_posix(), path, 0, path.stat().st_size)
            for directory, _, names in os.walk(source, onerror=unreadable)
            for path in (Path(directory, name) for name in names)
            if path.suffix.lower() in wanted and os.path.isfile(path)
        ]
        if not found and (tars := sorted(source.glob("*.tar"))):  # shards keep their order
            return [replace(item, dataset=dataset) for tar in tars for item in items(tar, wanted)]
    elif os.path.isfile(source):
        try:
            with tarfile.open(source, "r:") as archive:
                found = [
                    Item(dataset, member.name, source, member.offset_data, member.size)
                    for member in members(archive, source.stat().st_size)
                    if member.isfile() and PurePosixPath(member.name).suffix.lower() in wanted
                ]
        except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
            raise InvalidInputError(f"{source}: neither a directory nor an uncompressed tar") from error
        except OSError as error:
            raise MissingInputError(f"{source}: {error.strerror}") from error
    else:
        raise MissingInputError(f"{source}: no such file or directory")
    if not found:
        raise MissingInputError(f"{source}: holds no images")
    return sorted(found, key=lambda item: item.name)


def unreadable(error: OSError) -> None:
    """A directory inside a data set that cannot be opened: what it holds must not go missing unseen."""
    raise MissingInputError(f"{error.filename}: {error.strerror}") from error


def members(archive: tarfile.TarFile, size: int) -> Iterator[tarfile.TarInfo]:
    """The members of a tar of ``size`` bytes whose headers do not lie about where they are; raises TarError."""
    end = 0
    for member in archive:
        whole = 0 <= member.size <= size - member.offset_data and not member.issparse()
        if member.offset < end or (member.isfile() and not whole):
            raise tarfile.TarError("a member is not where its header says")
        end = member.offset_data
        yield member


@dataclass(frozen=True)
class Pair:
    """An image and the class of each of its pixels."""

    image: Item
    label: Item

    def classes(self) -> NDArray[np.uint8]:
        """The label map (H, W): an indexed or gray PNG; raises InvalidInputError with its name."""
        name = f"{self.label.dataset}/{self.label.name}"
        try:
            with open_image(self.label.read(), LABEL_MAPS) as image:
                check_size(*image.size)
                numbers, mode = np.asarray(image), image.mode
        except (InvalidInputError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InvalidInputError(f"{name}: not a label map") from error
        if mode not in ("P", "L"):
            raise InvalidInputError(f"{name}: a label map is indexed or gray, not {mode}")
        return numbers


def pairs(source: Path) -> list[Pair]:
    """The images of ``images/`` and the label maps of ``labels/``, of a directory or a tar, joined by their names.

    Raises
    ------
    MissingInputError, InvalidInputError
        As :func:`items`; an image without label map, or the reverse.
    """
    found = items(source)
    sides: tuple[dict[str, Item], ...] = ({}, {})
    for item in found:
        name = PurePosixPath(item.name)
        for directory, side in zip(("images", "labels"), sides, strict=True):
            if name.parent.name == directory:
                side[name.stem] = item
    images, labels = sides
    if not images and not labels:
        raise MissingInputError(f"{source}: has neither images/ nor labels/")
    if alone := set(images) ^ set(labels):
        first = min(alone)
        lacking = "label map" if first in images else "image"
        raise InvalidInputError(f"{source}: {first} has no {lacking}; {len(alone)} in all")
    return [Pair(images[name], labels[name]) for name in sorted(images)]


def sample_items() -> list[Item]:
    """The photographs that dcu carries."""
    return items(paths.shipped("samples"))


def shown(found: Sequence[Item], most: int) -> list[Item]:
    """At most so many items of a data set, spread over it; without one, the photographs that dcu carries."""
    found = found or sample_items()
    return [found[i] for i in np.linspace(0, len(found) - 1, min(most, len(found))).astype(int)]


def gather(sources: Sequence[Path]) -> list[Item]:
    """The items of several sources, one after the other."""
    return [item for source in sources for item in items(source)]
