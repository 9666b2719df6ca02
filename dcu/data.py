"""Images with labels, from directories and tars, read when they are needed."""

from __future__ import annotations

import logging
import os
import tarfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dcu import paths, shards
from dcu.errors import DcuError, InvalidInputError, MissingInputError, UnavailableError, named
from dcu.image import SUFFIXES, ImageArray, check_size, open_image, read_image
from dcu.walk import BITSTREAMS, LeftOut, checked_walk

log = logging.getLogger(__name__)
LABELLED = SUFFIXES | BITSTREAMS
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
        return PurePosixPath(self.name).suffix.lower() in BITSTREAMS

    def named(self) -> AbstractContextManager[None]:
        """Put the item's name before what is said of its content."""
        return named(f"{self.dataset}/{self.name}")

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


def items(source: Path, suffixes: Collection[str] = SUFFIXES) -> list[Item]:
    """Every file of a directory, or of a tar, whose name has one of the endings, sorted by name.

    A directory that holds tars alone (WebDataset shards) is all of them, one after the other. What is left out is
    logged on one line.

    Raises
    ------
    MissingInputError
        No such directory or file, or nothing of that kind in it; a directory in it that cannot be opened.
    InvalidInputError
        A file that is no tar.
    """
    left_out = LeftOut()
    if os.path.isdir(source):
        found = directory_items(source, suffixes, left_out)
    elif os.path.isfile(source):
        found = tar_items(source, dataset_name(source), suffixes, left_out)
    else:
        raise MissingInputError(f"{source}: no such file or directory")
    said = ", ".join(left_out.described())
    if not found:
        raise MissingInputError(f"{source}: no images found{said and f' ({said})'}")
    if said:
        log.info("%s: %s", source, said)
    return found


def directory_items(source: Path, suffixes: Collection[str], left_out: LeftOut) -> list[Item]:
    """The items of a directory, or of the tars that are all that it holds."""
    dataset, found = dataset_name(source), []
    for path in checked_walk(source, suffixes, left_out):
        size = os.path.getsize(path) if os.path.exists(path) else 0  # a link to nothing fails when it is read
        found.append(Item(dataset, path.relative_to(source).as_posix(), path, 0, size))
    if not found and (tars := sorted(source.glob("*.tar"))):  # shards keep their order
        left_out.extensions.clear()
        return [item for tar in tars for item in tar_items(tar, dataset, suffixes, left_out)]
    return sorted(found, key=lambda item: item.name)


def tar_items(source: Path, dataset: str, suffixes: Collection[str], left_out: LeftOut) -> list[Item]:
    """The items of a tar."""
    found = []
    try:
        with tarfile.open(source, "r:") as archive:
            for member in members(archive, source.stat().st_size):
                suffix = PurePosixPath(member.name).suffix.lower()
                if member.isdir():
                    continue
                if suffix not in suffixes:
                    left_out.extensions[suffix] += 1
                elif member.isfile():
                    found.append(Item(dataset, member.name, source, member.offset_data, member.size))
                else:
                    left_out.reasons["not regular files"] += 1
            check_end(source, archive.offset)
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise InvalidInputError(f"{source}: neither a directory nor a whole, uncompressed tar") from error
    except OSError as error:
        raise MissingInputError(f"{source}: {error.strerror}") from error
    return sorted(found, key=lambda item: item.name)


def members(archive: tarfile.TarFile, size: int) -> Iterator[tarfile.TarInfo]:
    """The members of a tar of ``size`` bytes whose headers do not lie about where they are; raises TarError."""
    end = 0
    for member in archive:
        whole = 0 <= member.size <= size - member.offset_data and not member.issparse()
        if member.offset < end or (member.isfile() and not whole):
            raise tarfile.TarError("a member is not where its header says")
        end = member.offset_data
        yield member


def check_end(source: Path, offset: int) -> None:
    """Raise TarError unless a tar ends from an offset on with zeros: else it is cut, or a header is damaged."""
    with source.open("rb") as file:
        file.seek(offset)
        block = file.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE:
            raise tarfile.TarError("its end is missing")
        shards.check_zeros(block, file)


FAULTS = (InvalidInputError, MissingInputError, UnavailableError)
"""Errors that are one image's."""


@dataclass(frozen=True)
class Replaceable(Item):
    """An image of a training: where it cannot be read, the next one of its directory takes its place.

    Which one that is does not depend on what was read before, so that a resumed run is the same run.
    """

    peers: list[Replaceable] = field(compare=False, repr=False)
    number: int = field(compare=False)
    failures: dict[tuple[Path, int], DcuError] = field(compare=False, repr=False)
    """Why images of the training cannot be read, by where they are: of all of them."""

    def own(self) -> ImageArray | None:
        """Its image; None where it cannot be read, which is tried once."""
        place = self.path, self.offset
        if place not in self.failures:
            try:
                return super().image()
            except FAULTS as error:
                self.failures[place] = error
                log.warning("%s; left out", error)
        return None

    def image(self) -> ImageArray:
        """Its image or that of the next that can be read; raises its own error where none can."""
        for item in (*self.peers[self.number :], *self.peers[: self.number]):
            if (image := item.own()) is not None:
                return image
        raise self.failures[self.path, self.offset]


def replaceable(found: Sequence[Item]) -> list[Item]:
    """Items that do not end a training where they cannot be read; :func:`failures` tells which."""
    failed: dict[tuple[Path, int], DcuError] = {}
    peers: dict[tuple[str, PurePosixPath], list[Replaceable]] = {}
    out: list[Item] = []
    for item in found:
        group = peers.setdefault((item.dataset, PurePosixPath(item.name).parent), [])
        group.append(Replaceable(**vars(item), peers=group, number=len(group), failures=failed))
        out.append(group[-1])
    return out


def apart(found: Sequence[Item]) -> list[Item]:
    """The same items; none takes the place of another one but those among them."""
    peers: dict[int, list[Replaceable]] = {}
    out: list[Item] = []
    for item in found:
        if isinstance(item, Replaceable):
            group = peers.setdefault(id(item.peers), [])
            item = replace(item, peers=group, number=len(group))
            group.append(item)
        out.append(item)
    return out


def readable(found: Sequence[Pair]) -> list[Pair]:
    """The pairs whose image can be read; :func:`failures` tells of which it cannot.

    Raises
    ------
    InvalidInputError, MissingInputError, UnavailableError
        None can be read.
    """
    failed: dict[tuple[Path, int], DcuError] = {}
    whole = []
    for pair in found:
        peers: list[Replaceable] = []
        peers.append(Replaceable(**vars(pair.image), peers=peers, number=0, failures=failed))
        if is_readable(peers[0]):
            whole.append(Pair(peers[0], pair.label))
    if not whole:
        raise next(iter(failed.values()))
    return whole


def is_readable(item: Item) -> bool:
    """Whether an image of a training can be read; of others it is not known."""
    return not isinstance(item, Replaceable) or item.own() is not None


def failures(found: Sequence[Item]) -> list[DcuError]:
    """Why images of a training could not be read, in the order in which that was found."""
    return [error for item in found[:1] if isinstance(item, Replaceable) for error in item.failures.values()]


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
            raise InvalidInputError(f"{name}: label map must be indexed or gray, not {mode}")
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
        key = str(name.parent.parent / name.stem)
        for directory, side in zip(("images", "labels"), sides, strict=True):
            if name.parent.name != directory:
                continue
            if key in side:
                raise InvalidInputError(f"{source}: {side[key].name} and {item.name} have one name")
            side[key] = item
    images, labels = sides
    if not images and not labels:
        raise MissingInputError(f"{source}: no images/ or labels/ found")
    if alone := set(images) ^ set(labels):
        first = min(alone)
        lacking = "label map" if first in images else "image"
        raise InvalidInputError(f"{source}: {first} has no {lacking}; {len(alone)} such names in total")
    return [Pair(images[name], labels[name]) for name in sorted(images)]


def sample_items() -> list[Item]:
    """The photographs that dcu carries."""
    return directory_items(paths.shipped("samples"), SUFFIXES, LeftOut())


def shown(found: Sequence[Item], most: int | None) -> list[Item]:
    """At most so many items of a data set, spread over it, or all; without one, the photographs that dcu carries."""
    found = found or sample_items()
    return [found[i] for i in np.linspace(0, len(found) - 1, min(most or len(found), len(found))).astype(int)]


def gather(sources: Sequence[Path]) -> list[Item]:
    """The items of several sources, one after the other."""
    return [item for source in sources for item in items(source)]
