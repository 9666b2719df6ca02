"""What the training of classifiers has in common: the network, what it sees, and how far it is.

The network is a :class:`~dcu.nets.latent.LatentClassifier` that reads a codec's latents; for comparison the RGB network
on the images that the codec decodes. Its teachers see the same views as images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dcu.cards import Input
from dcu.codec import Codec
from dcu.data import Item
from dcu.errors import UnavailableError, UsageError
from dcu.evaluate.classifier import standard_view
from dcu.geometry import BLOCK, CROP, LATENT_CROP, POINTS
from dcu.image import ImageArray, standard_resize
from dcu.labels import IMAGENET, indices_by_key, label_set
from dcu.nets import channels_last
from dcu.nets.efficientnet import EfficientNetLite, check_shortcuts
from dcu.nets.latent import LatentClassifier
from dcu.nets.norms import NORM_BATCHES, fold_norms, measure_norms
from dcu.schema import Between, Name, Share
from dcu.tasks import rgb
from dcu.train import init
from dcu.train.inputs import Streams, default_points, network_input, point_of, points_of, random_points
from dcu.train.optimizers import ParameterGroup
from dcu.train.recipe import Depth, Width, check_size
from dcu.train.teacher import SHARPER, Teacher
from dcu.train.views import Sampler, ViewData, fewer, hold_out, large_enough, mixed, random_crop, random_view

STARTED = 4
"""Batches from which the scale of latents and features is taken."""


@dataclass(frozen=True)
class ClassifierRecipe:
    """The network, the codec whose latents it reads, and what is asked of it."""

    name: Name
    codec: str
    input: Input = "latent"  # or decoded: the RGB network, fine-tuned on the codec's images, for comparison
    width: Width = 64
    depth: Depth = 2
    hidden: Annotated[int, Between(0, 1024)] = 0  # width inside fused blocks; 0: plain ones
    anchors: Annotated[int, Between(0, 64)] = 0  # planes that tell the operating point, of codecs that have several
    streams: Streams = "both"  # those for people and those for machines, of codecs that make the latter
    without: Annotated[tuple[int, ...], Between(0, 16)] = ()  # blocks of the backbone, from the split point
    feature_weight: Annotated[float, Between(0, 1e6)] = 1.0  # alpha
    backbone_scale: Annotated[float, Between(0, 1e3)] = 0.3  # the backbone's learning rate, relative to the adapter's
    lite2: Share = 0.5  # Lite2's share in the target, beside Lite0's
    label_weight: Share = 0.0  # share of an image's own class, where its directory is a WNID, in the target
    labelled_from: tuple[str, ...] = ()  # data sets whose directories are labels; () for all
    folded: bool = False  # the adapter learns as it runs, without batch norms: from a trained network only
    whole: bool = False  # the depthwise kernels and the last layer learn too: for GPUs

    def __post_init__(self) -> None:
        check_shortcuts(self.without)
        check_size(self.depth * self.width * (10 * self.hidden or 18 * self.width))


class LabeledViews(NamedTuple):
    """Views (n, side, side, 3) uint8.

    Of each its class, (n,), -1 where unknown or not alone, and the operating point at which the codec gets it, (n,).
    """

    images: Tensor
    classes: Tensor
    points: Tensor


def let_learn(network: nn.Module, whole: bool) -> None:
    """Let a network's weights learn, in place: the whole, or all but two kinds.

    The classifier layer stays as it is, so that features keep their meaning for classes that are rare in training; the
    depthwise kernels stay because oneDNN computes their gradient in bf16 ten times slower than all else.
    """
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(whole or ("depthwise" not in name and not name.startswith("backbone.classifier")))


def student_groups(network: LatentClassifier | EfficientNetLite, backbone_scale: float) -> list[ParameterGroup]:
    """Parameter groups: the adapter, and the backbone at its share of the adapter's learning rate."""
    backbone = [p for p in network.backbone.parameters() if p.requires_grad]
    adapter = [p for name, p in network.named_parameters() if p.requires_grad and not name.startswith("backbone.")]
    return [ParameterGroup(adapter), ParameterGroup(backbone, backbone_scale)]


def divergence_from(target: Tensor, logits: Tensor) -> Tensor:
    """KL(target || student) of each image; the logits are on Lite0's scale, as the student's last layer is."""
    return F.kl_div(F.log_softmax(SHARPER["lite0"] * logits, 1), target, reduction="none").sum(1)


def agreement(
    teacher: Teacher, held_out: Sequence[Item], points: range, predict: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, float]:
    """Agreement of a network with the teacher on held-out images, over operating points, and its KL divergence.

    ``predict``: logits (1, classes) of a view (1, 224, 224, 3) uint8 at an operating point (1,).
    """
    agree = divergence = 0.0
    for number, item in enumerate(held_out):
        view = standard_view(item.image()).to(teacher.device)
        q = point_of(points, number, len(held_out)).to(teacher.device)
        logits, target = predict(view, q).float(), teacher(view).target
        agree += float(logits.argmax(1) == target.argmax(1))
        divergence += float(divergence_from(target, logits))
    count = max(1, len(held_out))
    return {"held_agreement": agree / count, "held_divergence": divergence / count}


class StudentTask:
    """A classifier that is trained: the part that does not depend on how."""

    def __init__(self, recipe: ClassifierRecipe, data: ViewData, codec: Codec, items: list[Item], seed: int) -> None:
        self.recipe, self.data, self.codec, self.device = recipe, data, codec, codec.device
        try:
            codec.planes(codec.channels + recipe.anchors, recipe.name)
        except UnavailableError as error:
            raise UsageError(f"anchors = {recipe.anchors}: {error}") from error
        self.points = points_of(codec, recipe.streams)
        train, self.held_out = hold_out(items, data.held_out, data.held_out_from)
        self.sampler = Sampler(train, data.weights, seed)
        self.larger = Sampler(large_enough(train, data), data.weights, seed)
        self.teacher = Teacher(self.device, recipe.lite2)
        self.numbers = indices_by_key(label_set(IMAGENET))
        torch.manual_seed(seed)
        network: LatentClassifier | EfficientNetLite
        if recipe.input != "latent":
            network = rgb.rgb_network()
        else:
            network = init.student_network(codec.channels + recipe.anchors, recipe.width, recipe.depth, recipe.hidden)
            network.backbone.remove_blocks(recipe.without)
        let_learn(network, recipe.whole)
        self.module = channels_last(network).to(self.device)
        self.scalars: dict[str, float] = {}
        self.start()
        if recipe.folded:
            fold_norms(self.module)

    @property
    def folded(self) -> bool:
        """Whether the network has no norms while it is trained."""
        return self.recipe.folded

    @torch.no_grad()
    def start(self) -> None:
        """Bring the latent's channels to one scale; measure how much the teacher's features vary."""
        drawn = [self.views(-1 - step) for step in range(STARTED)]
        views = torch.cat([each.images for each in drawn]).to(self.device)
        if self.recipe.input == "latent":
            spread = self.seen(views, torch.cat([each.points for each in drawn])).std((0, 2, 3)).clamp(min=0.1)
            self.module.stem.convolution.weight.mul_(2 / spread[None, :, None, None])  # type: ignore[operator, union-attr]
        self.spread = self.teacher.rgb(views).features.var((0, 2, 3), keepdim=True)

    def look(self, index: int) -> None:
        """Send views that nothing is learned from as far as the split point."""
        views = self.views(-1 - index)
        self.module.split_features(self.seen(views.images.to(self.device), views.points))

    @torch.no_grad()
    def seen_beside(self, codec: Codec, planes: int, index: int) -> tuple[Tensor, Tensor]:
        """Of views that nothing is learned from what the network gets, and what one of another codec does.

        ``planes``: that the other network reads beside the latents. Operating points are the same, of streams for
        people where the other codec makes no others; of a codec of many beside one of one rate the default.
        """
        views = self.views(-1 - index)
        images, points = views.images.to(self.device), views.points.to(self.device)
        alike = codec.points == self.codec.points
        there = points % (POINTS * codec.kinds) if alike else default_points(codec, images)
        return self.seen(images, views.points), network_input(codec, "latent", images, there, planes)

    def seen(self, views: Tensor, points: Tensor) -> Tensor:
        """What the network gets of views (B, side, side, 3) uint8 at operating points (B,)."""
        return network_input(self.codec, self.recipe.input, views, points.to(self.device), self.recipe.anchors)

    def views(self, step: int, scale: float = 1.0) -> LabeledViews:
        """A step's own views; their side is ``scale`` times 224, as a multiple of the latent's stride."""
        sampler = self.larger if scale > 1 else self.sampler
        chosen, rng = sampler.draw(step, fewer(self.data.batch - self.data.again, scale))
        side = round(LATENT_CROP * scale) * BLOCK
        views = np.stack([self.view(item.image(), rng, side) for item in chosen])
        views, alone = mixed(views, rng)
        classes = np.where(alone, [self.number(item) for item in chosen], -1)
        points = random_points(self.points, len(views), rng)
        return LabeledViews(torch.from_numpy(views), torch.from_numpy(classes), points)

    def number(self, item: Item) -> int:
        """The class that an image's directory says it shows, -1 where it says none."""
        told_of = self.recipe.labelled_from
        return -1 if told_of and item.dataset not in told_of else self.numbers.get(item.label, -1)

    def view(self, image: ImageArray, rng: np.random.Generator, side: int = CROP) -> ImageArray:
        """One view of an image, before it is mixed with another; larger ones are never at the standard size."""
        share = self.data.at_standard_size if side == CROP else 0.0
        if share and rng.random() < share:  # 0 draws nothing: earlier runs' views stay
            return random_crop(standard_resize(image), CROP, rng)
        return random_view(image, self.data.smallest, rng, side)

    def validate(self) -> dict[str, float]:
        """Agreement with the teacher on images that are held out, over all operating points."""
        return agreement(self.teacher, self.held_out, self.points, lambda view, q: self.module(self.seen(view, q)))

    def measure_norms(self) -> None:
        """Set the adapter's norms for the weights as they are now."""
        measure_norms(self.module, self.look, NORM_BATCHES)
