"""What a step of training sees: images drawn, cut, mirrored and mixed, as functions of (seed, step)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dcu.data import Item, apart, is_readable
from dcu.datasets.table import DATA_SETS, VALIDATION
from dcu.errors import UsageError
from dcu.geometry import CROP
from dcu.image import ImageArray
from dcu.schema import Between, Share
from dcu.train.recipe import Batch, DatasetWeights, HeldOut

PART = (40, 184)
"""Sides in pixels of the box that cut-mix takes from another view of 224x224."""
AGE = 64
"""Steps after which views are seen again, at least."""
ONE_IN = 10
"""Of so many images one at most is held out, where any may be."""


@dataclass(frozen=True)
class ViewData:
    """Views, and the frequency of each data set (by the name of its tar; 1 if not said)."""

    batch: Batch = 32
    again: Annotated[int, Between(0, 4096)] = (
        0  # of which so many are of an earlier step's: codec and teacher have been asked already
    )
    smallest: Annotated[float, Between(1e-3, 1)] = 0.15  # smallest share of the image's area that a view shows
    at_standard_size: Share = 0.0  # share of views that are 224x224 of the image as the field has it, short side 256
    scales: tuple[Annotated[float, Between(1, 4)], ...] = (
        1.0,
    )  # sides of views over 224, step by step in turn; the teacher sees all at 224
    larger_from: tuple[str, ...] = ()  # data sets whose images are large enough for scales above 1, as held_out_from
    held_out: HeldOut = 250  # images on which agreement with the teacher is measured, at most: see hold_out
    held_out_from: tuple[str, ...] = ()
    weights: DatasetWeights = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= 2 * self.again <= self.batch:
            raise ValueError(f"again = {self.again}: at most half of a batch of {self.batch} (set data.again too)")
        if not 0 <= self.at_standard_size <= 1:
            raise ValueError(f"at_standard_size = {self.at_standard_size} must be between 0 and 1")
        if not self.scales or AGE % len(self.scales) or not all(1 <= scale <= 4 for scale in self.scales):
            raise ValueError(f"scales = {list(self.scales)}: numbers of 1 to 4, as many as divide {AGE}")

    def age(self, processes: int) -> int:
        """Steps after which views are seen again: ``AGE``, or more, so that one process, and one scale, sees both."""
        period = math.lcm(processes, len(self.scales))
        return -(-AGE // period) * period

    def scale(self, step: int) -> float:
        """The scale of a step's views, and of those that it sees again."""
        return self.scales[step % len(self.scales)]


def fewer(count: int, scale: float) -> int:
    """How many views of a scale have as many pixels as ``count`` of 224x224; one at least."""
    return max(1, round(count / scale**2))


def generator_of(seed: int, step: int) -> np.random.Generator:
    """What is random in a step, as a function of (seed, step); negative steps are for what is measured."""
    return np.random.default_rng((seed, abs(step), int(step < 0)))


def spread(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Numbers (count,) in [0, 1), one in each of as many equal parts, in random order."""
    return (rng.permutation(count) + rng.random(count)) / count


class Sampler:
    """Draws items, data sets weighted, as a function of (seed, step)."""

    def __init__(self, items: list[Item], weights: dict[str, float], seed: int) -> None:
        self.items, self.seed = items, seed
        chance = np.array([weights.get(item.dataset, 1.0) for item in items])
        if not chance.sum():
            raise UsageError("weights: all data sets have weight 0")
        self.chance = chance / chance.sum()

    def draw(self, step: int, count: int) -> tuple[list[Item], np.random.Generator]:
        """``count`` items for a step, and the step's random generator for what else is random."""
        places, rng = self.places(step, count)
        return [self.items[place] for place in places], rng

    def places(self, step: int, count: int) -> tuple[list[int], np.random.Generator]:
        """The same, items by their places in the list."""
        rng = generator_of(self.seed, step)
        return rng.choice(len(self.items), count, p=self.chance).tolist(), rng


def check_training_data(items: Sequence[Item]) -> None:
    """Refuse the tars of validation sets that ``dcu data build`` writes; raises UsageError."""
    validation = {tar.name for each in DATA_SETS.values() for tar in each.tars if tar.purpose is VALIDATION}
    if refused := {item.path.name for item in items} & validation:
        raise UsageError(f"{min(refused)}: validation sets are not allowed as training data")


def hold_out(items: list[Item], count: int, datasets: Sequence[str] = ()) -> tuple[list[Item], list[Item]]:
    """The items to train on, and at most so many that are held out.

    The latter can be read, and are of some data sets; where none of these is among the items, of all, and then a tenth
    of them at most. Which ones does not depend on a seed: a run that goes on from another one must not learn from what
    judged that one.

    Raises
    ------
    UsageError
        None is left to train on; some are of a validation set.
    """
    check_training_data(items)
    eligible = [i for i, item in enumerate(items) if item.dataset in datasets]
    if not eligible:
        eligible, count = list(range(len(items))), min(count, max(1, len(items) // ONE_IN))
    order = (i for i in np.random.default_rng(1).permutation(eligible).tolist() if is_readable(items[i]))
    held = set(islice(order, count))
    train = [item for i, item in enumerate(items) if i not in held]
    if not train:
        raise UsageError(f"all {len(items)} images are held out: none left for training")
    return apart(train), apart([items[i] for i in sorted(held)])


def large_enough(items: list[Item], data: ViewData) -> list[Item]:
    """The items that views at scales above 1 are made of: of some data sets, or of all where none of these is there."""
    return [item for item in items if item.dataset in data.larger_from] or items


def random_crop(image: ImageArray, side: int, rng: np.random.Generator) -> ImageArray:
    """A random square, mirrored half of the time; smaller images are padded first."""
    height, width = image.shape[:2]
    short = (max(0, side - height), max(0, side - width))
    if any(short):
        image = np.pad(image, ((0, short[0]), (0, short[1]), (0, 0)), mode="symmetric")
        height, width = image.shape[:2]
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    crop = image[top : top + side, left : left + side]
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def random_view(image: ImageArray, smallest: float, rng: np.random.Generator, side: int = CROP) -> ImageArray:
    """A random part of the image, of ratio 3/4 to 4/3, at side x side, mirrored half of the time."""
    height, width = image.shape[:2]
    area = height * width * rng.uniform(smallest, 1.0)
    ratio = float(np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3))))
    w, h = min(width, round((area * ratio) ** 0.5)), min(height, round((area / ratio) ** 0.5))
    left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
    resized = Image.fromarray(image[top : top + h, left : left + w]).resize((side, side), Image.Resampling.BICUBIC)
    view = np.asarray(resized)
    return view[:, ::-1] if rng.random() < 0.5 else view


def mixed(views: NDArray[np.uint8], rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Views (B, side, side, 3) mixed with one another, half of them in other light and color; which show one image.

    A quarter get a box of the next view (cut-mix, arXiv 1905.04899), a quarter are blended with it (mix-up, arXiv
    1710.09412). The teacher is asked about what came out: no answer has to be mixed (Beyer et al., arXiv 2106.05237).
    """
    out, alone = views.copy(), np.zeros(len(views), bool)
    side = views.shape[1]
    smallest, largest = (part * side // CROP for part in PART)
    for index, other in enumerate(np.roll(views, -1, axis=0)):
        kind = rng.random()
        if kind < 0.25:
            h, w = rng.integers(smallest, largest, 2)
            top, left = rng.integers(side - h + 1), rng.integers(side - w + 1)
            cut = (slice(top, top + h), slice(left, left + w))
            out[index][cut] = other[cut]
        elif kind < 0.5:
            share = rng.uniform(0.5, 1)
            out[index] = np.rint(share * views[index].astype(np.float32) + (1 - share) * other)
        else:
            alone[index] = True
        if rng.random() < 0.5:
            out[index] = other_light(out[index], rng)
    return out, alone


def other_light(image: ImageArray, rng: np.random.Generator) -> ImageArray:
    """The image in other light and color: contrast, brightness, and a shift of each channel."""
    shift = rng.uniform(-25, 25) + rng.uniform(-12, 12, 3)
    light = (image.astype(np.float32) - 127) * rng.uniform(0.7, 1.3) + 127 + shift
    other: ImageArray = np.rint(light.clip(0, 255)).astype(np.uint8)
    return other
