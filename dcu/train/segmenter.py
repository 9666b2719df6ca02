"""Training a segmenter on latents, from the classifier of the same codec; or its RGB counterpart, for comparison.

Scaled, cut, mirrored and in other light as images; then the codec's latent of what came out. The loss is the
cross-entropy of every pixel that is not void, rare classes weighing more (Paszke et al., ENet, arXiv 1606.02147).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from dcu.cards import MOST_COLORS, Input
from dcu.codec import Codec
from dcu.data import Pair
from dcu.errors import UsageError
from dcu.evaluate.segmenter import check_labels, confusion, intersection_over_union
from dcu.geometry import BLOCK
from dcu.image import ImageArray, pad
from dcu.labels import Color
from dcu.nets import channels_last, resnet
from dcu.nets.norms import NORM_BATCHES, measure_norms
from dcu.nets.segmenter import LatentSegmenter, RgbSegmenter
from dcu.schema import Between, Name
from dcu.tasks.segment import enlarged
from dcu.train.init import segmenter_network
from dcu.train.inputs import Streams, network_input, point_of, points_of, random_points
from dcu.train.optimizers import ParameterGroup
from dcu.train.recipe import Batch, HeldOut, Schedule, Side, check_crop, check_size
from dcu.train.views import generator_of, hold_out, other_light

VOID = 255
"""What void becomes in a batch."""
NEW = ("head.", "pyramid.", "aspp.")
"""How the names of weights begin that a classifier does not have."""


@dataclass(frozen=True)
class Label:
    """A class: its name, and its color in segmentation maps."""

    label: str
    color: Color


@dataclass(frozen=True)
class SegmenterRecipe:
    """The network, the codec whose latents it reads, the classes."""

    name: Name
    codec: str
    labels: Annotated[tuple[Label, ...], Between(2, MOST_COLORS)]
    void: Annotated[int, Between(0, 255)] = VOID  # the number in label maps that is no class
    input: Input = "latent"  # or decoded, or original: the RGB counterpart
    streams: Streams = "both"  # those for people and those for machines, of codecs that make the latter
    network: Literal["efficientnet"] | resnet.DilatedName = "efficientnet"
    width: Annotated[float, Between(1 / 64, resnet.MOST_WIDTH)] = 1.0  # of a ResNet: factor on the channels
    stride_in: resnet.StrideIn = "3x3"  # of a ResNet
    pyramid: Annotated[int, Between(2, 1024)] = 128
    backbone_scale: Annotated[float, Between(0, 1e3)] = (
        0.2  # learning rate of what comes from the classifier, relative to the head's
    )

    def __post_init__(self) -> None:
        if self.void < len(self.labels):
            raise ValueError(
                f"void is {self.void}, the number of '{self.labels[self.void].label}': choose one of no class"
            )
        if self.network != "efficientnet":
            resnet.check_input(self.network, self.input)
            check_size(resnet.parameters(self.network, self.width))


@dataclass(frozen=True)
class SegmentData:
    """Crops of scaled images."""

    batch: Batch = 8
    crop: Side = 288  # pixels, a multiple of 16
    smallest: Annotated[float, Between(0.05, 8)] = 0.5  # scales
    largest: Annotated[float, Between(0.05, 8)] = 2.0
    held_out: HeldOut = 40  # images on which mIoU is measured, at most: see hold_out

    def __post_init__(self) -> None:
        check_crop(self.crop, self.batch, 2 * BLOCK)
        if self.smallest > self.largest:
            raise ValueError(f"smallest = {self.smallest:g} is larger than largest = {self.largest:g}")


@dataclass(frozen=True)
class SegmenterTraining:
    """A recipe of ``dcu train segmenter``."""

    segmenter: SegmenterRecipe
    schedule: Schedule
    data: SegmentData = field(default_factory=SegmentData)


class SegmenterBatch(NamedTuple):
    """Images (B, crop, crop, 3) uint8, their classes (B, crop, crop) uint8, 255 where void, operating points (B,)."""

    images: Tensor
    classes: Tensor
    points: Tensor


def random_part(
    image: ImageArray, numbers: NDArray[np.uint8], data: SegmentData, rng: np.random.Generator
) -> tuple[ImageArray, NDArray[np.uint8]]:
    """A square of a scaled image and of its label map, mirrored half of the time, in other light; void around it."""
    scale = float(np.exp(rng.uniform(np.log(data.smallest), np.log(data.largest))))
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    numbers = np.asarray(Image.fromarray(numbers).resize(size, Image.Resampling.NEAREST))
    lacking = [max(0, data.crop - side) for side in numbers.shape]
    image = np.pad(image, ((0, lacking[0]), (0, lacking[1]), (0, 0)), mode="symmetric")
    numbers = np.pad(numbers, ((0, lacking[0]), (0, lacking[1])), constant_values=VOID)
    top, left = (int(rng.integers(side - data.crop + 1)) for side in numbers.shape)
    cut = (slice(top, top + data.crop), slice(left, left + data.crop))
    image, numbers = other_light(image[cut], rng), numbers[cut]
    return (image[:, ::-1], numbers[:, ::-1]) if rng.random() < 0.5 else (image, numbers)


class SegmenterTask:
    """The segmenter as the training loop sees it."""

    def __init__(self, recipe: SegmenterRecipe, data: SegmentData, codec: Codec, pairs: list[Pair], seed: int) -> None:
        self.recipe, self.data, self.codec, self.device, self.seed = recipe, data, codec, codec.device, seed
        self.points = points_of(codec, recipe.streams)
        counts = check_labels(pairs, len(recipe.labels), recipe.void)
        if not counts.all():
            raise UsageError(f"no label map contains {recipe.labels[int(np.argmin(counts))].label}")
        self.weights = torch.from_numpy(1 / np.log(1.02 + counts / counts.sum())).float().to(self.device)
        images = [pair.image for pair in pairs]
        train, held = hold_out(images, data.held_out)
        pair_of = {pair.image: pair for pair in pairs}
        self.pairs, self.held_out = [pair_of[item] for item in train], [pair_of[item] for item in held]
        torch.manual_seed(seed)
        network = self.network()
        for name, parameter in network.named_parameters():
            if "depthwise" in name:  # oneDNN computes their gradient in bf16 ten times slower than all else
                parameter.requires_grad_(False)
        self.planes = 0
        if recipe.input == "latent" and not isinstance(network, RgbSegmenter):
            self.planes = codec.planes(network.channels, recipe.name)
        self.module = channels_last(network).to(self.device)
        self.scalars: dict[str, float] = {}

    def network(self) -> LatentSegmenter | RgbSegmenter | resnet.DilatedResNet:
        """The network of the recipe; a ResNet's weights are random before those of a classifier are loaded."""
        recipe, classes = self.recipe, len(self.recipe.labels)
        if recipe.network == "efficientnet":
            return segmenter_network(recipe.input, recipe.pyramid, classes, self.codec)
        shape = resnet.shape_by_name(recipe.network, self.codec.channels, recipe.width, recipe.stride_in)
        network = resnet.DilatedResNet(shape, classes)
        network.initialize()
        return network

    def load_matching(self, tensors: Mapping[str, Tensor]) -> None:
        """Begin with the tensors that fit a ResNet; raises ValueError."""
        if not isinstance(self.module, resnet.DilatedResNet):
            raise ValueError("not a ResNet")
        self.module.load_matching(tensors)

    def groups(self) -> list[ParameterGroup]:
        """The head and the pyramid, and the rest at its share of their learning rate."""
        named = [(name, p) for name, p in self.module.named_parameters() if p.requires_grad]
        new = [p for name, p in named if name.startswith(NEW)]
        old = [p for name, p in named if not name.startswith(NEW)]
        return [ParameterGroup(new), ParameterGroup(old, self.recipe.backbone_scale)]

    def batch(self, step: int) -> SegmenterBatch:
        """Parts of random images."""
        rng = generator_of(self.seed, step)
        parts = []
        for index in rng.integers(len(self.pairs), size=self.data.batch):
            numbers = self.pairs[index].classes()
            numbers = np.where(numbers == self.recipe.void, VOID, numbers).astype(np.uint8)
            parts.append(random_part(self.pairs[index].image.image(), numbers, self.data, rng))
        images, classes = (np.stack(side) for side in zip(*parts, strict=True))
        points = random_points(self.points, len(images), rng)
        return SegmenterBatch(torch.from_numpy(images), torch.from_numpy(classes), points)

    def seen(self, images: Tensor, points: Tensor) -> Tensor:
        """What the network gets of images (B, 8h, 8w, 3) uint8 at operating points (B,)."""
        return network_input(self.codec, self.recipe.input, images, points.to(self.device), self.planes)

    def loss(self, batch: SegmenterBatch) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of the pixels that are not void."""
        logits = enlarged(self.module(self.seen(batch.images, batch.points)))
        return F.cross_entropy(logits, batch.classes.long(), self.weights, ignore_index=VOID), {}

    def validate(self) -> dict[str, float]:
        """Mean intersection over union of held-out images."""
        classes = len(self.recipe.labels)
        counts = np.zeros((classes, classes), np.int64)
        for number, pair in enumerate(self.held_out):
            truth = pair.classes()
            image = torch.from_numpy(pad(pair.image.image(), BLOCK).copy())[None].to(self.device)
            seen = self.seen(image, point_of(self.points, number, len(self.held_out)))
            answer = enlarged(self.module(seen)).argmax(1)[0].to(torch.uint8).cpu().numpy()
            counts += confusion(truth, answer[: truth.shape[0], : truth.shape[1]], classes)
        return {"held_miou": float(np.nanmean(intersection_over_union(counts))) if self.held_out else float("nan")}

    def measure_norms(self) -> None:
        """Set the head's norms for the weights as they are now."""

        def see(index: int) -> None:
            batch = self.batch(-1 - index)
            self.module(self.seen(batch.images.to(self.device), batch.points))

        measure_norms(self.module, see, NORM_BATCHES)
