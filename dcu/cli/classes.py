"""Files of classes that can occur, and of class priors."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dcu.errors import InvalidInputError, MissingInputError
from dcu.labels import indices_by_name

if TYPE_CHECKING:
    from torch import Tensor

    from dcu.tasks.classify import Classifier

MOST_BYTES = 2**23
"""Of a file; 50,000 classes with weights have 1 MB."""


@dataclass(frozen=True)
class Entry:
    """A class as a file names it, where that stands, and its weight."""

    place: str
    name: str
    weight: float = 1.0


@dataclass(frozen=True)
class KnownClasses:
    """What the user says of the classes of images; None for nothing."""

    classes: Sequence[Entry] | None
    prior: Sequence[Entry] | None

    def described(self) -> str:
        """What is said, in a few characters; nothing where nothing is."""
        said = [
            None if each is None else [(entry.name, entry.weight) for entry in each]
            for each in (self.classes, self.prior)
        ]
        return f" classes={hashlib.sha256(repr(said).encode()).hexdigest()[:16]}" if any(said) else ""

    def weights(self, classifier: Classifier) -> Tensor | None:
        """The weight of each class of a network, see :mod:`dcu.tasks.prior`; raises InvalidInputError.

        None where nothing is said of the classes.
        """
        from dcu.tasks.prior import class_weights

        if self.classes is None and self.prior is None:
            return None
        names = indices_by_name(classifier.labels)
        for entry in (*(self.classes or ()), *(self.prior or ())):
            if entry.name.casefold() not in names:
                raise InvalidInputError(f"{entry.place}: {entry.name!r} is not a class of {classifier.name}")
        classes = None if self.classes is None else [entry.name for entry in self.classes]
        prior = None if self.prior is None else {entry.name: entry.weight for entry in self.prior}
        try:
            return class_weights(classifier.labels, classes, prior)
        except ValueError as error:
            raise InvalidInputError(f"{(self.prior or ())[0].place.rpartition(':')[0]}: {error}") from error


def known_classes(classes: Path | None, prior: Path | None) -> KnownClasses:
    """What files say of the classes.

    Raises
    ------
    MissingInputError
        A file that cannot be read.
    InvalidInputError
        Not UTF-8 text, too large, without classes; a class without a weight or with a negative one, or twice.
    """
    return KnownClasses(
        None if classes is None else [Entry(place, line) for place, line in lines(classes)],
        None if prior is None else weighted(prior),
    )


def weighted(path: Path) -> list[Entry]:
    """The classes and weights of a file of lines or CSV, label,weight."""
    entries: dict[str, Entry] = {}
    for number, (place, line) in enumerate(lines(path)):
        try:
            cells = next(csv.reader([line], skipinitialspace=True))
        except csv.Error as error:
            raise InvalidInputError(f"{place}: not CSV ({error})") from error
        if number == 0 and [cell.strip().casefold() for cell in cells] == ["label", "weight"]:
            continue
        if len(cells) != 2:
            raise InvalidInputError(f"{place}: expected label,weight")
        name = cells[0].strip()
        if name.casefold() in entries:
            raise InvalidInputError(f"{place}: duplicate class {name!r}")
        entries[name.casefold()] = Entry(place, name, weight_of(place, cells[1]))
    if not entries:
        raise InvalidInputError(f"{path}: no classes")
    return list(entries.values())


def weight_of(place: str, text: str) -> float:
    """A weight; raises InvalidInputError."""
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight >= 0):
        raise InvalidInputError(f"{place}: {text.strip()!r} is not a weight (a number of at least 0)")
    return weight


def lines(path: Path) -> list[tuple[str, str]]:
    """Place (file and number) and text of each line that is neither empty nor a comment (#)."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise MissingInputError(f"{path}: {error.strerror}") from error
    if len(data) > MOST_BYTES:
        raise InvalidInputError(f"{path}: larger than {MOST_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path}: not UTF-8 text") from error
    stripped = [(f"{path}:{number}", line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    found = [(place, line) for place, line in stripped if line and not line.startswith("#")]
    if not found:
        raise InvalidInputError(f"{path}: no classes")
    return found
