"""Training a codec of many operating points together with a classifier that reads its latents.

    loss = (d MSE + lambda bpp + w (divergence + distance)) (lambda_0 / lambda)^balance

MSE and lambda bpp are those of :mod:`dcu.train.variable_rate`, divergence and distance those of
:mod:`dcu.train.classifier`; d and w are ``distortion`` and ``weight`` of the recipe. Three quarters of each batch are
compressed for machines: the adapter of the analysis and the vectors of each operating point learn. One quarter is
compressed for people: only the context model, which both kinds of stream share, and the classifier learn from it. Of
each view for machines a window is synthesized: distortion needs fewer pixels than classification.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dcu.codec import analysis_input
from dcu.data import Item
from dcu.errors import UsageError
from dcu.geometry import BLOCK, CROP, LATENT_CROP, POINTS
from dcu.nets.operating_point import AnchorVectors, per_channel, with_point
from dcu.nets.variable_rate import VariableRateCodec
from dcu.schema import Between, Share
from dcu.train.classifier import distillation
from dcu.train.init import READER, student_network
from dcu.train.optimizers import ParameterGroup
from dcu.train.recipe import Batch, DatasetWeights, Depth, HeldOut, Schedule, Side, Width, check_crop, check_size
from dcu.train.student import STARTED, agreement, let_learn, student_groups
from dcu.train.teacher import Teacher
from dcu.train.variable_rate import VariableRateData, VariableRateRecipe, VariableRateTask, spread_points
from dcu.train.views import mixed, random_view

KINDS = 2
"""Of streams: for people, for machines."""
PEOPLE_EVERY = 4
"""One image of so many is compressed for people."""
STEM = f"{READER}stem.convolution.weight"
"""Of the reader, which reads the planes."""


@dataclass(frozen=True)
class ReaderRecipe:
    """The classifier, and how much it counts beside rate and distortion."""

    weight: Annotated[float, Between(0, 1e6)] = 0.014  # of its loss
    distortion: Share = 0.05  # weight of the squared error
    width: Width = 64
    depth: Depth = 2
    hidden: Annotated[int, Between(0, 1024)] = 0  # width inside fused blocks; 0: plain ones
    scale: Annotated[float, Between(0, 1e3)] = 1.0  # its learning rate, relative to that of the codec's adapter
    context_scale: Annotated[float, Between(0, 1e3)] = 0.5  # that of the context model
    backbone_scale: Annotated[float, Between(0, 1e3)] = 0.3  # that of its backbone, relative to its adapter's
    lite2: Share = 0.5  # Lite2's share in the target, beside Lite0's

    def __post_init__(self) -> None:
        check_size(self.depth * self.width * (10 * self.hidden or 18 * self.width))


@dataclass(frozen=True)
class JointData:
    """Views of 224x224, and the frequency of each data set (by the name of its tar; 1 if not said)."""

    batch: Batch = 32
    window: Side = 96  # side in pixels of the part of each view that is synthesized
    smallest: Annotated[float, Between(1e-3, 1)] = 0.25  # smallest share of the image's area that a view shows
    held_out: HeldOut = 64
    held_out_from: tuple[str, ...] = ()
    validate_on: HeldOut = 32  # of which so many are measured, at most
    weights: DatasetWeights = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_crop(self.window, self.batch, BLOCK)
        if self.batch < PEOPLE_EVERY:
            raise ValueError(f"batch = {self.batch} must be {PEOPLE_EVERY} at least: a quarter is for people")
        if self.window > CROP:
            raise ValueError(f"window = {self.window} must be {CROP} at most")
        self.crops()

    def crops(self) -> VariableRateData:
        """What the codec is measured on."""
        return VariableRateData(
            held_out=self.held_out,
            held_out_from=self.held_out_from,
            validate_on=self.validate_on,
            weights=self.weights,
        )


@dataclass(frozen=True)
class JointTraining:
    """A recipe of ``dcu train joint``."""

    variable_rate: VariableRateRecipe
    schedule: Schedule
    reader: ReaderRecipe = ReaderRecipe()
    data: JointData = field(default_factory=JointData)

    def __post_init__(self) -> None:
        if not self.variable_rate.adapter:
            raise ValueError("variable_rate.adapter must be at least 1")
        if self.variable_rate.similarity or self.variable_rate.exponent != 1:
            raise ValueError("variable_rate.similarity must be 0, and variable_rate.exponent 1")
        if self.schedule.optimizer != "adam":  # others change what has no gradient: streams for people
            raise ValueError("schedule.optimizer must be adam")


class JointNetwork(VariableRateCodec):
    """A codec and its reader."""

    def __init__(self, recipe: VariableRateRecipe, reader: ReaderRecipe) -> None:
        super().__init__(*recipe.shape())
        channels = self.log_gain.anchors.shape[1] + KINDS * recipe.anchors
        self.reader = student_network(channels, reader.width, reader.depth, reader.hidden)
        let_learn(self.reader, whole=False)


class JointBatch(NamedTuple):
    """Views (B, 224, 224, 3) uint8, operating points (B,), and the window's corner in latent positions (2,).

    The first ``people`` are for people, the others for machines.
    """

    views: Tensor
    points: Tensor
    corner: Tensor

    @property
    def people(self) -> int:
        """How many are for people."""
        return len(self.points) // PEOPLE_EVERY


def by_kind(batch: JointBatch, function: Callable[[Tensor, Tensor], Tensor], inputs: Tensor) -> Tensor:
    """A function of inputs (B, ...) and their operating points, without gradients where they are for people."""
    people, q = batch.people, batch.points
    with torch.no_grad():
        fixed = function(inputs[:people], q[:people])
    return torch.cat([fixed, function(inputs[people:], q[people:])])


class JointTask(VariableRateTask):
    """Codec and reader as the training loop sees them; begins with a codec's checkpoint."""

    module: JointNetwork

    def __init__(
        self,
        recipe: VariableRateRecipe,
        reader: ReaderRecipe,
        data: JointData,
        items: list[Item],
        seed: int,
        device: str = "cpu",
    ) -> None:
        self.reader, self.views = reader, data
        super().__init__(recipe, data.crops(), items, seed, device)
        self.scalars["begun"] = 0.0
        for transform in (self.module.analysis, self.module.synthesis):
            transform.requires_grad_(False)
        for parameter in self.own():
            parameter.requires_grad_(True)

    def network(self) -> VariableRateCodec:
        return JointNetwork(self.recipe, self.reader)

    def start(self) -> None:
        """What the teacher's features vary by; the codec's weights come from a checkpoint."""
        self.teacher = Teacher(self.device, self.reader.lite2)
        views = torch.cat([self.batch(step).views for step in range(STARTED)]).to(self.device)
        self.spread = self.teacher.rgb(views).features.var((0, 2, 3), keepdim=True)

    def own(self) -> list[torch.nn.Parameter]:
        """What streams for machines have of their own: the adapter, and the vectors of each operating point."""
        vectors = [part for part in self.module.modules() if isinstance(part, AnchorVectors) and part.kinds > 1]
        return [*self.module.analysis.adapter.parameters(), *(p for part in vectors for p in part.parameters())]

    def context(self) -> list[torch.nn.Parameter]:
        """The weights of the context model, which both kinds of stream share."""
        own = set(map(id, self.own()))
        return [parameter for parameter in self.module.context.parameters() if id(parameter) not in own]

    def widened(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A checkpoint's tensors, and those that it lacks: streams for machines begin as those for people.

        A classifier of a codec of streams for people alone has planes for one kind.
        """
        wanted, found = self.module.state_dict(), dict(tensors)
        self.scalars["begun"] = max(self.scalars["begun"], float("log_gain.anchors" in found))
        for name, tensor in wanted.items():
            there = found.get(name)
            if name.startswith("analysis.adapter.") and "log_gain.anchors" in found:
                found.setdefault(name, tensor)
            elif there is not None and name.endswith("anchors") and KINDS * len(there) == len(tensor):
                found[name] = there.repeat(KINDS, 1)
            elif there is not None and name == STEM and there.shape[1] + self.recipe.anchors == tensor.shape[1]:
                found[name] = torch.cat([there, there[:, -self.recipe.anchors :]], 1)
        return found

    def groups(self) -> list[ParameterGroup]:
        """What streams for machines have of their own, the context model, and the reader's groups."""
        reader = student_groups(self.module.reader, self.reader.backbone_scale)
        codec = [ParameterGroup(self.own()), ParameterGroup(self.context(), self.reader.context_scale)]
        return [*codec, *(ParameterGroup(g.params, self.reader.scale * g.scale) for g in reader)]

    def batch(self, step: int) -> JointBatch:  # type: ignore[override]
        """Views of random images, the first quarter at operating points for people, the rest for machines; a window."""
        chosen, rng = self.sampler.draw(step, self.views.batch)
        views = [random_view(item.image(), self.views.smallest, rng) for item in chosen]
        shown, _ = mixed(np.stack(views), rng)
        people = len(views) // PEOPLE_EVERY
        points = torch.cat([spread_points(people, rng), POINTS + spread_points(len(views) - people, rng)])
        corner = torch.from_numpy(rng.integers(LATENT_CROP - self.views.window // BLOCK + 1, size=2))
        return JointBatch(torch.from_numpy(shown), points, corner)

    @torch.no_grad()
    def look(self, index: int) -> None:
        """Send views that nothing is learned from through the reader."""
        batch = JointBatch(*(part.to(self.device) for part in self.batch(-1 - index)))
        symbols = by_kind(batch, self.module.scaled, analysis_input(batch.views)).round()
        self.module.reader.split_features(self.read(symbols, batch.points))

    def read(self, symbols: Tensor, q: Tensor) -> Tensor:
        """What the reader gets of symbols at operating points."""
        latent = symbols * per_channel(self.module.log_ungain(q).exp())
        return with_point(latent, q, KINDS * self.recipe.anchors, KINDS)

    def validate(self) -> dict[str, float]:
        """The codec's metrics, and the reader's agreement with the teacher; streams for machines have a prefix."""

        def predict(view: Tensor, q: Tensor) -> Tensor:
            logits: Tensor = self.module.reader(self.read(self.module.scaled(analysis_input(view), q).round(), q))
            return logits

        found: dict[str, float] = {}
        for prefix, first in (("", 0), ("machines_", POINTS)):
            points = range(first, first + POINTS)
            metrics = self.metrics(first) | agreement(self.teacher, self.held_out, points, predict)
            found |= {f"{prefix}{name}": value for name, value in metrics.items()}
        return found

    def distortion(self, batch: JointBatch, x: Tensor, symbols: Tensor) -> Tensor:
        """Squared error of the window of each view that is for machines, 0 of the others."""
        people, (top, left), side = batch.people, batch.corner.tolist(), self.views.window // BLOCK
        coded = symbols[people:, :, top : top + side, left : left + side]
        shown = x[people:, :, BLOCK * top : BLOCK * (top + side), BLOCK * left : BLOCK * (left + side)]
        error = (self.module.reconstruct(coded, batch.points[people:]).float() - shown).square().mean((1, 2, 3))
        return torch.cat([error.new_zeros(people), error])

    def loss(self, batch: JointBatch) -> tuple[Tensor, dict[str, float]]:  # type: ignore[override]
        """Rate, distortion and the reader's loss; raises UsageError where no codec's checkpoint was loaded."""
        if not self.scalars["begun"]:
            raise UsageError("--init: the checkpoint of a codec is required")
        x, q = analysis_input(batch.views), batch.points
        symbols, bits = self.module.coded(x, by_kind(batch, self.module.scaled, x), q)
        seen = by_kind(batch, self.read, symbols)
        divergence, distance = distillation(self.module.reader, seen, *self.teacher(batch.views), self.spread)
        bpp, at = bits / (x.shape[2] * x.shape[3]), q % POINTS
        distortion = self.reader.distortion * self.distortion(batch, x, symbols)
        reading = self.reader.weight * (divergence + distance)
        loss = (self.recipe.weight(at) * (distortion + self.recipe.lambda_of(at) * bpp + reading)).mean()
        parts = {"crop_bpp": bpp, "divergence": divergence, "distance": distance}
        return loss, {name: float(part.detach().mean()) for name, part in parts.items()}
