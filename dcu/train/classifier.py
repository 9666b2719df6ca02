"""Distilling a classifier on latents from RGB networks on the original image.

Both see the same view, made afresh for every step; the student gets the view's latent, the teacher its pixels.

    loss = KL(target || student) + alpha * mean((f_student - f_teacher)^2 / var(f_teacher))

The target is the teacher's answer, mixed with the image's own class where that is known and the view shows nothing
else; f are the features of the last block, 320 x 7 x 7, which say at 49 places what a single answer cannot.

The adapter begins with what :mod:`dcu.train.adapter` taught it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dcu import store
from dcu.cards import Input
from dcu.codec import Codec
from dcu.data import Item
from dcu.errors import UnavailableError
from dcu.evaluate.classifier import standard_view
from dcu.geometry import BLOCK, CROP, LATENT_CROP
from dcu.image import ImageArray, standard_resize
from dcu.labels import IMAGENET, indices_by_key, label_set
from dcu.nets import channels_last
from dcu.nets.efficientnet import EfficientNetLite, check_shortcuts
from dcu.nets.latent import LatentClassifier
from dcu.nets.norms import NORM_BATCHES, add_norms, fold_norms, measure_norms, restore_norms
from dcu.schema import Between, Name, Share
from dcu.tasks.classify import Classifier, undiluted
from dcu.tasks.rgb import RgbClassifier, rgb_network
from dcu.train import parallel
from dcu.train.inputs import network_input
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
    without: Annotated[tuple[int, ...], Between(0, 16)] = ()  # blocks of the backbone, from the split point
    begin: str = ""  # an installed classifier of the codec and of the same shape, whose weights are its first
    feature_weight: Annotated[float, Between(0, 1e6)] = 1.0  # alpha
    backbone_scale: Annotated[float, Between(0, 1e3)] = 0.3  # the backbone's learning rate, relative to the adapter's
    lite2: Share = 0.5  # Lite2's share in the target, beside Lite0's
    label_weight: Share = 0.0  # share of an image's own class, where its directory is a WNID, in the target
    labelled_from: tuple[str, ...] = ()  # data sets of which classes are told; () for all
    folded: bool = False  # of a network to begin with, the adapter learns as it runs: without batch norms
    whole: bool = False  # the depthwise kernels and the last layer learn too: for GPUs

    def __post_init__(self) -> None:
        if self.folded and not self.begin:
            raise ValueError("folded: norms are only in what a network begins with, and begin names none")
        check_shortcuts(self.without)
        check_size(self.depth * self.width * (10 * self.hidden or 18 * self.width))


def student(channels: int, width: int, depth: int, hidden: int) -> LatentClassifier:
    """A classifier whose backbone is the RGB network's and whose adapter has batch norms and is yet to learn."""
    network = LatentClassifier(channels, width, depth, hidden, 1000)
    add_norms(network)
    network.backbone = rgb_network().backbone
    return network


def let_learn(network: nn.Module, whole: bool) -> None:
    """Let a network's weights learn, in place: the whole, or all but two kinds.

    The classifier layer stays as it is, so that features keep their meaning for classes that are rare in training; the
    depthwise kernels stay because oneDNN computes their gradient in bf16 ten times slower than all else.
    """
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(whole or ("depthwise" not in name and not name.startswith("backbone.classifier")))


def student_groups(network: LatentClassifier | EfficientNetLite, backbone_scale: float) -> list[dict[str, Any]]:
    """Parameter groups: the adapter, and the backbone at its share of the adapter's learning rate."""
    backbone = [p for p in network.backbone.parameters() if p.requires_grad]
    adapter = [p for name, p in network.named_parameters() if p.requires_grad and not name.startswith("backbone.")]
    return [{"params": adapter}, {"params": backbone, "scale": backbone_scale}]


def distillation(
    network: LatentClassifier | EfficientNetLite, seen: Tensor, target: Tensor, wanted: Tensor, spread: Tensor
) -> tuple[Tensor, Tensor]:
    """Divergence from target probabilities, and distance from the wanted features in units of their variance.

    Of latents larger than the field's square the logits are brought to its scale, and features are means over places.
    """
    split_features = network.split_features(seen.contiguous(memory_format=torch.channels_last))
    features = network.backbone.blocks(split_features)
    logits = undiluted(
        network.backbone.classifier(network.backbone.pool(features)).float(), split_features[0, 0].numel()
    )
    at_wanted = F.adaptive_avg_pool2d(features.float(), (wanted.shape[-2], wanted.shape[-1]))
    distance = ((at_wanted - wanted).square() / spread).mean()
    return divergence_from(target, logits), distance


def divergence_from(target: Tensor, logits: Tensor) -> Tensor:
    """KL(target || student), the mean over a batch; its logits are on Lite0's scale, as its last layer is."""
    return F.kl_div(F.log_softmax(SHARPER["lite0"] * logits, 1), target, reduction="batchmean")


def at_side(views: Tensor) -> Tensor:
    """Square views (B, side, side, 3) uint8 at 224x224."""
    if views.shape[1] == CROP:
        return views
    pixels = views.permute(0, 3, 1, 2).float()
    small = F.interpolate(pixels, size=(CROP, CROP), mode="bicubic", antialias=True)
    return small.round().clamp(0, 255).byte().permute(0, 2, 3, 1)


def mixed_with_labels(probabilities: Tensor, numbers: Tensor, weight: float) -> Tensor:
    """The teacher's probabilities (B, classes), mixed with the right class where its number (B,) is known, not -1."""
    known = torch.nonzero(numbers >= 0)[:, 0]
    target = probabilities.clone()
    target[known] *= 1 - weight
    target[known, numbers[known]] += weight
    return target


def installed_network(name: str, codec: Codec, device: str) -> tuple[LatentClassifier | EfficientNetLite, store.Model]:
    """The network of an installed classifier or rgb-classifier of a codec, and its model.

    Raises
    ------
    UnavailableError
        It is not installed, not a classifier, or of another codec.
    """
    model = store.find(name)
    if model.kind != "rgb-classifier":
        return Classifier(store.find(name, "classifier"), codec, device).network, model
    if model.fingerprint != codec.fingerprint:
        raise UnavailableError(f"{model.name}: was taught images of another codec than {codec.name}")
    return RgbClassifier(device, model.weights()).network, model


class Distillation(NamedTuple):
    """What the student sees of views, and what it is to say of them: probabilities and features."""

    seen: Tensor
    target: Tensor
    features: Tensor


class ClassifierTask:
    """The classifier as the training loop sees it."""

    def __init__(self, recipe: ClassifierRecipe, data: ViewData, codec: Codec, items: list[Item], seed: int) -> None:
        self.recipe, self.data, self.codec, self.device = recipe, data, codec, codec.device
        train, self.held_out = hold_out(items, data.held_out_from, data.held_out)
        self.sampler = Sampler(train, data.weights, seed)
        self.larger = Sampler(large_enough(train, data), data.weights, seed)
        self.teacher = Teacher(self.device, recipe.lite2)
        self.numbers = indices_by_key(label_set(IMAGENET))
        torch.manual_seed(seed)
        network: LatentClassifier | EfficientNetLite
        if recipe.input != "latent":
            network = rgb_network()
        else:
            network = student(len(codec.levels), recipe.width, recipe.depth, recipe.hidden)
            network.backbone.remove_blocks(recipe.without)
        let_learn(network, recipe.whole)
        self.module = channels_last(network).to(self.device)
        self.scalars: dict[str, float] = {}
        self.distilled_by_step: dict[int, Distillation] = {}  # by step, what is to be seen again
        self.start()
        if recipe.begin:
            self.begin(recipe.begin)

    @torch.no_grad()
    def start(self) -> None:
        """Bring the latent's channels to one scale; measure how much the teacher's features vary."""
        views = torch.cat([self.views(-1 - step)[0] for step in range(STARTED)]).to(self.device)
        if self.recipe.input == "latent":
            spread = self.seen(views).std((0, 2, 3)).clamp(min=0.1)
            self.module.stem.convolution.weight.mul_(2 / spread[None, :, None, None])  # type: ignore[operator, union-attr]
        self.spread = self.teacher.rgb(views).features.var((0, 2, 3), keepdim=True)

    def begin(self, name: str) -> None:
        """Take an installed network's weights; the adapter's norms leave them alone at first, or there are none.

        Of one that names other classes all but its last layer.

        Raises
        ------
        UnavailableError
            It is not installed, not a classifier, of another codec or of another shape.
        """
        network, model = installed_network(name, self.codec, self.device)
        found = network.state_dict()
        if self.recipe.folded:
            fold_norms(self.module)
        same = model.card.labels == IMAGENET
        wanted = {
            n: t
            for n, t in self.module.state_dict().items()
            if ".norm." not in n and (same or not n.startswith("backbone.classifier."))
        }
        taken = {n: found.get(n.replace(".convolution.", ".")) for n in wanted}
        if any(t is None or t.shape != wanted[n].shape for n, t in taken.items()):
            raise UnavailableError(f"{name}: of another shape than {self.recipe.name}")
        self.module.load_state_dict(taken, strict=False)
        restore_norms(self.module, self.look, NORM_BATCHES)

    def look(self, index: int) -> None:
        """Send views that nothing is learnt from as far as the split point."""
        self.module.split_features(self.seen(self.views(-1 - index)[0].to(self.device)))

    def seen(self, views: Tensor) -> Tensor:
        """What the network gets of views (B, side, side, 3) uint8."""
        return network_input(self.codec, self.recipe.input, views)

    def groups(self) -> list[dict[str, Any]]:
        return student_groups(self.module, self.recipe.backbone_scale)

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """What a step sees: its :meth:`views`; those of an earlier step, if due and not kept; its number."""
        earlier = step - self.data.age(parallel.count())
        due = self.data.again > 0 and earlier >= 0 and earlier not in self.distilled_by_step
        scale = self.data.scale(step)
        return *self.views(step, scale), *(self.views(earlier, scale) if due else ()), torch.tensor(step)

    def views(self, step: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """A step's own views (n, side, side, 3) uint8; the class each shows, (n,), -1 where unknown or not alone.

        Their side is ``scale`` times 224, as a multiple of the latent's stride.
        """
        sampler = self.larger if scale > 1 else self.sampler
        chosen, rng = sampler.draw(step, fewer(self.data.batch - self.data.again, scale))
        side = round(LATENT_CROP * scale) * BLOCK
        views = np.stack([self.view(item.image(), rng, side) for item in chosen])
        views, alone = mixed(views, rng)
        return torch.from_numpy(views), torch.from_numpy(np.where(alone, [self.number(item) for item in chosen], -1))

    def number(self, item: Item) -> int:
        """The class that an image's directory says it shows, -1 where none is told."""
        told_of = self.recipe.labelled_from
        return -1 if told_of and item.dataset not in told_of else self.numbers.get(item.label, -1)

    def view(self, image: ImageArray, rng: np.random.Generator, side: int = CROP) -> ImageArray:
        """One view of an image, before it is mixed with another; larger ones are never at the field's size."""
        share = self.data.at_standard_size if side == CROP else 0.0
        if share and rng.random() < share:  # 0 draws nothing: earlier runs' views stay
            return random_crop(standard_resize(image), CROP, rng)
        return random_view(image, self.data.smallest, rng, side)

    def distilled(self, views: Tensor, numbers: Tensor) -> Distillation:
        """Codec and teacher asked about views, the teacher at 224x224."""
        targets = self.teacher(at_side(views))
        target = mixed_with_labels(targets.target, numbers, self.recipe.label_weight)
        return Distillation(self.seen(views), target, targets.features)

    def loss(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
        *views, last = batch
        step = int(last)
        again = fewer(self.data.again, self.data.scale(step)) if self.data.again else 0
        distilled = self.distilled(*views[:2])
        if again:
            self.distilled_by_step[step] = Distillation(*(part[:again].clone() for part in distilled))
        earlier = self.distilled_by_step.pop(step - self.data.age(parallel.count()), None)
        if views[2:]:  # after a resume
            earlier = self.distilled(*(part[:again] for part in views[2:]))
        if earlier:
            distilled = Distillation(*(torch.cat(parts) for parts in zip(distilled, earlier, strict=True)))
        divergence, distance = distillation(self.module, *distilled, self.spread)
        metrics = {"divergence": float(divergence.detach()), "distance": float(distance.detach())}
        return divergence + self.recipe.feature_weight * distance, metrics

    def validate(self) -> dict[str, float]:
        """Agreement with the teacher on images it was not taught with, and their divergence."""
        agree = divergence = 0.0
        for item in self.held_out:
            view = standard_view(item.image()).to(self.device)
            answer, target = self.module(self.seen(view)).float(), self.teacher(view).target
            agree += float(answer.argmax(1) == target.argmax(1))
            divergence += float(divergence_from(target, answer))
        count = max(1, len(self.held_out))
        return {"held_agreement": agree / count, "held_divergence": divergence / count}

    def measure_norms(self) -> None:
        """Set the adapter's norms for the weights as they are now."""
        measure_norms(self.module, self.look, NORM_BATCHES)
