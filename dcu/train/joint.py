"""Training a codec on together with a classifier that reads its latents.

    loss = mean squared error + lambda * bits + weight * (divergence + distance)

The last two are those of :mod:`dcu.train.classifier`: what the codec spends its bits on is then also what names things.
Of each view a window of the recipe's ``crop`` is synthesized: distortion needs fewer pixels than names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dcu.codec import analysis_input
from dcu.data import Item
from dcu.errors import UsageError
from dcu.geometry import BLOCK, CROP, LATENT_CROP
from dcu.schema import Between
from dcu.train.classifier import distillation
from dcu.train.codec import CodecData, CodecNetwork, CodecRecipe, RateTask
from dcu.train.init import student_network
from dcu.train.optimizers import ParameterGroup
from dcu.train.recipe import Batch, Depth, Schedule, Width, check_size
from dcu.train.student import STARTED, let_learn, student_groups
from dcu.train.teacher import Teacher
from dcu.train.views import mixed, random_view

PLAIN = 0.4
"""Smallest share of an image's area that the codec sees; smaller ones are enlarged and have less detail."""


@dataclass(frozen=True)
class ReaderRecipe:
    """The classifier that reads along, and how much it counts; 0 trains the codec alone."""

    weight: Annotated[float, Between(0, 1e6)] = 0.0
    width: Width = 64
    depth: Depth = 2
    hidden: Annotated[int, Between(0, 1024)] = 0  # width inside fused blocks; 0: plain ones
    backbone_scale: Annotated[float, Between(0, 1e3)] = 0.4
    views: Batch = 20  # that it reads beside the codec's batch
    smallest: Annotated[float, Between(1e-3, 1)] = 0.15  # smallest share of the image's area that they show

    def __post_init__(self) -> None:
        check_size(self.depth * self.width * (10 * self.hidden or 18 * self.width))


@dataclass(frozen=True)
class CodecTraining:
    """A recipe of ``dcu train codec`` for one rate."""

    codec: CodecRecipe
    schedule: Schedule
    reader: ReaderRecipe = ReaderRecipe()
    data: CodecData = field(default_factory=CodecData)


class JointNetwork(CodecNetwork):
    """A codec and its reader."""

    def __init__(self, recipe: CodecRecipe, reader: ReaderRecipe) -> None:
        super().__init__(recipe)
        self.reader = student_network(len(self.quantizer.centers), reader.width, reader.depth, reader.hidden)
        let_learn(self.reader, whole=False)


class JointBatch(NamedTuple):
    """Views (B, 224, 224, 3) uint8, first the codec's, then what only the reader sees; the window's corner (2,)."""

    views: Tensor
    corner: Tensor


class JointTask(RateTask):
    """Codec and reader as the training loop sees them."""

    module: JointNetwork
    start_batches = STARTED

    def __init__(
        self, recipe: CodecRecipe, reader: ReaderRecipe, data: CodecData, items: list[Item], seed: int, device: str
    ) -> None:
        self.reader = reader
        self.window = data.crop // BLOCK
        if not 0 < self.window <= LATENT_CROP:
            raise UsageError(f"crop = {data.crop}: {BLOCK} to {CROP} pixels of each view are synthesized")
        super().__init__(recipe, data, items, seed, device)
        self.teacher = Teacher(device)
        views = torch.cat([self.images(step) for step in range(STARTED)]).to(device)
        self.spread = self.teacher.rgb(views).features.var((0, 2, 3), keepdim=True)

    def network(self) -> CodecNetwork:
        return JointNetwork(self.recipe, self.reader)

    def groups(self) -> list[ParameterGroup]:
        """The codec, and those of the reader."""
        codec = [p for name, p in self.module.named_parameters() if not name.startswith("reader.") and p.requires_grad]
        return [ParameterGroup(codec), *student_groups(self.module.reader, self.reader.backbone_scale)]

    def images(self, step: int) -> Tensor:
        """A step's views."""
        return self.batch(step).views

    def batch(self, step: int) -> JointBatch:
        """Views of random images, and a random window."""
        count = self.data.batch
        chosen, rng = self.sampler.draw(step, count + self.reader.views)
        smallest = [PLAIN] * count + [self.reader.smallest] * self.reader.views
        views = [random_view(item.image(), part, rng) for item, part in zip(chosen, smallest, strict=True)]
        corner = torch.from_numpy(rng.integers(LATENT_CROP - self.window + 1, size=2))
        shown = np.concatenate([views[:count], mixed(np.stack(views[count:]), rng)[0]])
        return JointBatch(torch.from_numpy(shown), corner)

    def loss(self, batch: JointBatch) -> tuple[Tensor, dict[str, float]]:
        """The codec's and the reader's."""
        x, rest = (analysis_input(part) for part in batch.views.tensor_split([self.data.batch]))
        latent, assignment = self.module.quantizer(self.module.analysis(x))
        with torch.no_grad():  # after the above: older versions of autocast keep what they first cast without gradient
            others = self.module.quantizer.latent(self.module.quantizer.symbols(self.module.analysis(rest).float()))
        bpp = self.module.context.bits(latent, assignment).mean() / (x.shape[2] * x.shape[3])
        top, left = batch.corner.tolist()
        window = latent[:, :, top : top + self.window, left : left + self.window]
        shown = x[:, :, BLOCK * top : BLOCK * (top + self.window), BLOCK * left : BLOCK * (left + self.window)]
        loss, metrics = self.rate_distortion(shown, self.module.synthesis(window), bpp)
        targets = self.teacher(batch.views)
        divergence, distance = distillation(self.module.reader, torch.cat([latent, others]), *targets, self.spread)
        metrics |= {"divergence": float(divergence.detach()), "distance": float(distance.detach())}
        return loss + self.reader.weight * (divergence + distance), metrics
