"""Distilling a classifier on latents from RGB networks on the original image.

Both see the same view, made anew for every step; the student gets the view's latent, the teacher its pixels.

    loss = KL(target || student) + alpha * mean((f_student - f_teacher)^2 / var(f_teacher))

The target is the teacher's answer, mixed with the image's own class where that is known and the view shows nothing
else; f are the features of the last block, 320 x 7 x 7, which say at 49 places what a single answer cannot.

The adapter begins with what :mod:`dcu.train.adapter` taught it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dcu.codec import Codec
from dcu.data import Item
from dcu.geometry import CROP
from dcu.nets.efficientnet import EfficientNetLite
from dcu.nets.latent import LatentClassifier
from dcu.tasks.classify import undiluted
from dcu.train import parallel
from dcu.train.optimizers import ParameterGroup
from dcu.train.student import ClassifierRecipe, LabeledViews, StudentTask, divergence_from, student_groups
from dcu.train.views import ViewData, fewer


def distillation(
    network: LatentClassifier | EfficientNetLite, seen: Tensor, target: Tensor, wanted: Tensor, spread: Tensor
) -> tuple[Tensor, Tensor]:
    """Of each image the divergence from target probabilities, and the distance from the wanted features.

    The distance is in units of the features' variance.

    Of latents larger than the standard square the logits are brought to its scale, and features are means over places.
    """
    split_features = network.split_features(seen.contiguous(memory_format=torch.channels_last))
    features = network.backbone.blocks(split_features)
    logits = undiluted(
        network.backbone.classifier(network.backbone.pool(features)).float(), split_features[0, 0].numel()
    )
    at_wanted = F.adaptive_avg_pool2d(features.float(), (wanted.shape[-2], wanted.shape[-1]))
    distance = ((at_wanted - wanted).square() / spread).mean((1, 2, 3))
    return divergence_from(target, logits), distance


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


class Distillation(NamedTuple):
    """What the student sees of views, and what it is to say of them: probabilities and features."""

    seen: Tensor
    target: Tensor
    features: Tensor


class ClassifierBatch(NamedTuple):
    """A step's number and its views; those of an earlier step, where they are due and not kept."""

    step: int
    views: LabeledViews
    earlier: LabeledViews | None = None


class ClassifierTask(StudentTask):
    """The distillation of a classifier as the training loop sees it."""

    def __init__(self, recipe: ClassifierRecipe, data: ViewData, codec: Codec, items: list[Item], seed: int) -> None:
        super().__init__(recipe, data, codec, items, seed)
        self.distilled_by_step: dict[int, Distillation] = {}  # by step, what is to be seen again

    def groups(self) -> list[ParameterGroup]:
        """The adapter, and the backbone."""
        return student_groups(self.module, self.recipe.backbone_scale)

    def batch(self, step: int) -> ClassifierBatch:
        """What a step sees."""
        earlier = step - self.data.age(parallel.count())
        due = self.data.again > 0 and earlier >= 0 and earlier not in self.distilled_by_step
        scale = self.data.scale(step)
        return ClassifierBatch(step, self.views(step, scale), self.views(earlier, scale) if due else None)

    def distilled(self, views: LabeledViews) -> Distillation:
        """Codec and teacher asked about views, the teacher at 224x224."""
        targets = self.teacher(at_side(views.images))
        target = mixed_with_labels(targets.target, views.classes, self.recipe.label_weight)
        return Distillation(self.seen(views.images, views.points), target, targets.features)

    def loss(self, batch: ClassifierBatch) -> tuple[Tensor, dict[str, float]]:
        """The loss of a step's views and of some of an earlier step's."""
        again = fewer(self.data.again, self.data.scale(batch.step)) if self.data.again else 0
        distilled = self.distilled(batch.views)
        if again:
            self.distilled_by_step[batch.step] = Distillation(*(part[:again].clone() for part in distilled))
        earlier = self.distilled_by_step.pop(batch.step - self.data.age(parallel.count()), None)
        if batch.earlier:  # after a resume
            earlier = self.distilled(LabeledViews(*(part[:again] for part in batch.earlier)))
        if earlier:
            distilled = Distillation(*(torch.cat(parts) for parts in zip(distilled, earlier, strict=True)))
        divergence, distance = (part.mean() for part in distillation(self.module, *distilled, self.spread))
        metrics = {"divergence": float(divergence.detach()), "distance": float(distance.detach())}
        return divergence + self.recipe.feature_weight * distance, metrics
