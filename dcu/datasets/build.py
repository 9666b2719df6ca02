"""Builds data sets and compares them with what is recorded of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path

import PIL

from dcu.datasets.builders import LABELED, Builder, Member
from dcu.datasets.files import Clones, TarWriter, sha256
from dcu.datasets.photographs import imagenet50, training_windows
from dcu.datasets.table import MORE_PHOTO_SOURCES, PHOTO_SOURCES, PILLOW, DataSet, Purpose, TarFile

BUILDERS: dict[str, Builder] = LABELED | {
    "imagenet50": imagenet50,
    "codec-windows": partial(training_windows, name="codec-windows", sources=PHOTO_SOURCES),
    "codec-windows2": partial(training_windows, name="codec-windows2", sources=MORE_PHOTO_SOURCES, known=PHOTO_SOURCES),
}


@dataclass
class BuiltTar:
    """A tar that was built: its record, where it is, and what is in it."""

    record: TarFile
    path: Path
    images: int = 0
    sha256: str = ""
    contents: Counter[str] = field(default_factory=Counter)
    """The number of occurrences of each content, by its digest."""

    @property
    def as_recorded(self) -> bool:
        """Whether it is byte for byte the recorded tar."""
        return self.sha256 == self.record.sha256


def build(dataset: DataSet, clones: Clones, out: Path) -> list[BuiltTar]:
    """Write the tars of a data set into the directory ``out``; they appear there together, when all are complete.

    Raises
    ------
    MissingInputError, InvalidInputError, UnavailableError
        As :meth:`Clones.files`.
    OutputError
        ``out`` cannot be written.
    """
    tars = {record.name: BuiltTar(record, out / record.name) for record in dataset.tars}
    with ExitStack() as stack:
        writers = {name: stack.enter_context(TarWriter(tar.path)) for name, tar in tars.items()}
        for member in BUILDERS[dataset.name](clones):
            writers[member.tar].add(member.name, member.data)
            count(tars[member.tar], member)
    for tar in tars.values():
        tar.sha256 = sha256(tar.path)
    return list(tars.values())


def count(tar: BuiltTar, member: Member) -> None:
    """Count a file of a tar; label maps are no images."""
    if not member.name.startswith("labels/"):
        tar.images += 1
        tar.contents[hashlib.sha256(member.data).hexdigest()] += 1


def up_to_date(dataset: DataSet, out: Path) -> bool:
    """Whether all tars of a data set are there as recorded."""
    return all((out / tar.name).is_file() and sha256(out / tar.name) == tar.sha256 for tar in dataset.tars)


def differences(dataset: DataSet, tars: list[BuiltTar], clones: Clones) -> Iterator[str]:
    """In what the tars differ from the recorded ones, and what may be the reason; nothing where they do not."""
    if all(tar.as_recorded for tar in tars):
        return
    for tar in tars:
        if tar.images != tar.record.images:
            yield f"{tar.record.name} has {tar.images:,} images; {tar.record.images:,} are recorded"
        elif not tar.as_recorded:
            yield f"{tar.record.name} has SHA-256 {tar.sha256[:12]}; {tar.record.sha256[:12]} is recorded"
    for repository in dataset.repositories:
        commit = clones.commit(repository)
        if commit != repository.commit:
            yield f"the clone of {repository.name} is at {commit[:12]}; {repository.commit[:12]} is recorded"
    if dataset.encoded and PIL.__version__ != PILLOW:
        yield f"images were encoded by Pillow {PIL.__version__}; {PILLOW} is recorded"


def duplicates(tars: list[BuiltTar]) -> Iterator[str]:
    """Files of the same content: within a tar, and between those that train and those that do not."""
    for tar in tars:
        if repeated := sum(tar.contents.values()) - len(tar.contents):
            yield f"{tar.record.name}: {repeated} images occur more than once"
    training = [tar for tar in tars if tar.record.purpose is Purpose.TRAIN]
    others = [tar for tar in tars if tar.record.purpose is not Purpose.TRAIN]
    for train, other in product(training, others):
        if shared := len(train.contents.keys() & other.contents.keys()):
            yield f"{shared} images of {other.record.name} are also in {train.record.name}"
