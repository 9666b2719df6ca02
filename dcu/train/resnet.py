"""Training a ResNet from class labels: a cResNet on a codec's latents, a ResNet on decoded or original images.

What is compared (docs/paper.md) differs in the network's input alone: images, their order, views, steps and learning
rates are the same functions of seed and step. The codec does not learn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dcu.cards import Input
from dcu.codec import Codec
from dcu.data import Item
from dcu.errors import UsageError
from dcu.geometry import BLOCK
from dcu.image import standard_crop
from dcu.labels import IMAGENET, indices_by_key, label_set
from dcu.nets import channels_last, resnet
from dcu.nets.norms import NORM_BATCHES, measure_norms
from dcu.nets.rgb import to_input
from dcu.schema import Between, Share
from dcu.schema import Name as ModelName
from dcu.train import parallel
from dcu.train.classifier import at_side
from dcu.train.head import class_names
from dcu.train.inputs import default_points, latent_of, rebuilt, symbols_of
from dcu.train.kept import KeptArrays
from dcu.train.optimizers import ParameterGroup
from dcu.train.recipe import Batch, DatasetWeights, HeldOut, Schedule, Side, check_crop, check_size
from dcu.train.teacher import Teacher
from dcu.train.views import Sampler, generator_of, hold_out, random_view

AT_ONCE = 32
"""Images that the codec gets together."""


@dataclass(frozen=True)
class ResNetRecipe:
    """The network, what it gets, and of which codec."""

    name: ModelName
    network: resnet.Name
    input: Input
    codec: str = "codec-0.0983"
    width: Annotated[float, Between(1 / 64, resnet.MOST_WIDTH)] = 1.0  # factor on the channels of all layers
    stride_in: resnet.StrideIn = "3x3"  # torchvision's; 1x1: the paper's
    soft_labels: Share = 0.0  # of the RGB network's probabilities among the classes, beside the label

    def __post_init__(self) -> None:
        resnet.check_input(self.network, self.input)
        check_size(resnet.parameters(self.network, self.width))


@dataclass(frozen=True)
class ResNetData:
    """Views, and the frequency of each data set (by the name of its tar; 1 if not said)."""

    crop: Side = 224
    batch: Batch = 64
    kept: Annotated[int, Between(0, 1024)] = 0  # views of each image, made once and kept in a file; 0: all are new
    smallest: Annotated[float, Between(1e-3, 1)] = 0.25  # smallest share of the image's area that a view shows
    held_out: HeldOut = 500  # images on which accuracy is measured, at most: see hold_out
    held_out_from: tuple[str, ...] = ()
    weights: DatasetWeights = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_crop(self.crop, self.batch, BLOCK)
        if self.held_out < 1:
            raise ValueError("held_out must be at least 1")


@dataclass(frozen=True)
class ResNetTraining:
    """A recipe of ``dcu train classifier`` for the networks of :mod:`dcu.nets.resnet`."""

    resnet: ResNetRecipe
    schedule: Schedule
    data: ResNetData = field(default_factory=ResNetData)


class ResNetBatch(NamedTuple):
    """Images by their places, and their views: the numbers of kept ones, or new ones (B, crop, crop, 3) uint8."""

    places: list[int]
    numbers: list[int]
    views: Tensor


class ResNetTask:
    """The classifier as the training loop sees it; kept views are in ``directory``."""

    def __init__(
        self, recipe: ResNetRecipe, data: ResNetData, codec: Codec, items: list[Item], seed: int, directory: Path
    ) -> None:
        self.recipe, self.data, self.codec, self.device, self.seed = recipe, data, codec, codec.device, seed
        self.names = class_names(items)
        self.items, self.held_out = hold_out(items, data.held_out, data.held_out_from)
        self.sampler = Sampler(self.items, data.weights, seed)
        place_of = {name: place for place, name in enumerate(self.names)}
        self.classes = torch.tensor([place_of[item.label] for item in self.items])
        self.held_classes = torch.tensor([place_of[item.label] for item in self.held_out])
        self.teacher = Teacher(self.device, 0.0) if recipe.soft_labels else None
        self.taught = self.among_imagenet() if recipe.soft_labels else []
        torch.manual_seed(seed)
        shape = resnet.shape_by_name(recipe.network, codec.channels, recipe.width, recipe.stride_in)
        network = resnet.ResNet(shape, len(self.names))
        network.initialize()
        self.module = channels_last(network).to(self.device)
        self.scalars: dict[str, float] = {}
        self.kept = self.keeping(directory, "views", self.encoded) if data.kept else None
        self.kept_answers = self.keeping(directory, "answers", self.answers) if data.kept and self.teacher else None
        self.held_inputs: list[Tensor] = []

    def among_imagenet(self) -> list[int]:
        """The number of each class among ImageNet's; raises UsageError where one is not among them."""
        known = indices_by_key(label_set(IMAGENET))
        if strange := sorted(set(self.names) - set(known)):
            raise UsageError(f"soft_labels: {strange[0]!r} is not one of the RGB network's classes")
        return [known[name] for name in self.names]

    def keeping(self, directory: Path, what: str, make: Callable[[Tensor], Tensor]) -> KeptArrays:
        """A file of what is made of each kept view, named after all that it depends on; each process has its own."""
        codec = self.codec.model.card.sha256 if self.codec.model else self.codec.fingerprint
        facts = [codec, self.recipe.input, self.data.crop, self.data.smallest, self.data.kept, self.device]
        listed = [(item.dataset, item.name, item.size) for item in self.items]
        key = hashlib.sha256(repr((facts, self.seed, parallel.rank(), listed)).encode()).hexdigest()[:16]
        example = make(torch.zeros(1, self.data.crop, self.data.crop, 3, dtype=torch.uint8, device=self.device))
        count = len(self.items) * self.data.kept
        return KeptArrays(directory / f"{what}-{key}", count, example.shape[1:], example.dtype)

    def load_matching(self, tensors: Mapping[str, Tensor]) -> None:
        """Begin with the tensors that fit."""
        self.module.load_matching(tensors)

    def groups(self) -> list[ParameterGroup]:
        """All weights alike."""
        return [ParameterGroup(list(self.module.parameters()))]

    def batch(self, step: int) -> ResNetBatch:
        """Random images, and random views of them."""
        places, rng = self.sampler.places(step, self.data.batch)
        if not self.data.kept:
            return ResNetBatch(places, [], self.views(places, rng))
        numbers = [place * self.data.kept + int(rng.integers(self.data.kept)) for place in places]
        return ResNetBatch(places, numbers, torch.empty(0, dtype=torch.uint8))

    def views(self, places: Sequence[int], rng: np.random.Generator) -> Tensor:
        """Random views (n, crop, crop, 3) uint8 of images."""
        side, smallest = self.data.crop, self.data.smallest
        views = [random_view(self.items[place].image(), smallest, rng, side) for place in places]
        return torch.from_numpy(np.stack(views))

    def encoded(self, views: Tensor) -> Tensor:
        """What is kept of views (n, side, side, 3) uint8: symbols, or images of that shape, decoded or original."""
        if self.recipe.input == "original":
            return views
        points = default_points(self.codec, views)
        symbols = symbols_of(self.codec, views, points)
        if self.recipe.input == "latent":
            return symbols
        return rebuilt(self.codec, latent_of(self.codec, symbols, points), points).byte()

    def network_input(self, encoded: Tensor) -> Tensor:
        """What the network gets of what is kept."""
        if self.recipe.input == "latent":
            return latent_of(self.codec, encoded, default_points(self.codec, encoded))
        return to_input(encoded).contiguous(memory_format=torch.channels_last)

    def answers(self, views: Tensor) -> Tensor:
        """The RGB network's probabilities (n, classes) among the classes, for views (n, side, side, 3) uint8."""
        assert self.teacher is not None
        among = self.teacher(at_side(views)).target[:, self.taught]
        return (among / among.sum(1, keepdim=True)).half()

    def of_kept(self, make: Callable[[Tensor], Tensor], numbers: list[int]) -> Tensor:
        """What is made of kept views."""
        found = []
        for first in range(0, len(numbers), AT_ONCE):
            views = [
                self.views([number // self.data.kept], generator_of(self.seed, number))
                for number in numbers[first : first + AT_ONCE]
            ]
            with torch.autocast(self.device, enabled=False):  # the same for all runs
                found.append(make(torch.cat(views).to(self.device)).cpu())
        return torch.cat(found)

    def made(self, batch: ResNetBatch, kept: KeptArrays | None, make: Callable[[Tensor], Tensor]) -> Tensor:
        """What is made of a batch's views, new ones or kept ones."""
        if kept is None:
            return make(batch.views.to(self.device))
        return kept(batch.numbers, partial(self.of_kept, make)).to(self.device)

    def seen(self, batch: ResNetBatch) -> Tensor:
        """What the network gets of a batch."""
        return self.network_input(self.made(batch, self.kept, self.encoded))

    def target(self, batch: ResNetBatch) -> Tensor:
        """Probabilities (B, classes): the labels, or with ``soft_labels`` a mean of those and the RGB network's."""
        labels = F.one_hot(self.classes[batch.places], len(self.names)).float().to(self.device)
        if self.teacher is None:
            return labels
        return labels.lerp(self.made(batch, self.kept_answers, self.answers).float(), self.recipe.soft_labels)

    def loss(self, batch: ResNetBatch) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy."""
        logits = self.module(self.seen(batch)).float()
        correct = (logits.argmax(1).cpu() == self.classes[batch.places]).float().mean()
        return F.cross_entropy(logits, self.target(batch)), {"accuracy": float(correct)}

    def validate(self) -> dict[str, float]:
        """Top-1 accuracy and cross-entropy on images that are held out, of their center."""
        side = self.data.crop
        if not self.held_inputs:
            for first in range(0, len(self.held_out), AT_ONCE):
                views = [standard_crop(item.image(), side) for item in self.held_out[first : first + AT_ONCE]]
                self.held_inputs.append(self.encoded(torch.from_numpy(np.stack(views)).to(self.device)))
        logits = torch.cat([self.module(self.network_input(each)).float().cpu() for each in self.held_inputs])
        correct = (logits.argmax(1) == self.held_classes).float().mean()
        return {"held_top1": float(correct), "held_loss": float(F.cross_entropy(logits, self.held_classes))}

    def measure_norms(self) -> None:
        """Set the norms for the weights as they are now."""

        def see(index: int) -> None:
            self.module(self.seen(self.batch(index)))

        measure_norms(self.module, see, NORM_BATCHES)
