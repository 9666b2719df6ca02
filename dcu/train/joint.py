"""Training a codec of many operating points together with a classifier that reads its latents.

    loss = (MSE + lambda bpp) (lambda_0 / lambda)^balance + weight (divergence + distance)

The first part is that of :mod:`dcu.train.variable_rate`, the second that of :mod:`dcu.train.classifier`. Streams for
machines change alone: the adapter of the analysis, and the vectors of each operating point. The weights that streams
for people need stay as they are. Of each view a window is synthesized: distortion needs fewer pixels than names.
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
STEM = f"{READER}stem.convolution.weight"
"""Of the reader, which reads the planes."""


@dataclass(frozen=True)
class ReaderRecipe:
    """The classifier, and how much it counts beside rate and distortion."""

    weight: Annotated[float, Between(0, 1e6)] = 0.3
    width: Width = 64
    depth: Depth = 2
    hidden: Annotated[int, Between(0, 1024)] = 0  # width inside fused blocks; 0: plain ones
    scale: Annotated[float, Between(0, 1e3)] = 1.0  # its learning rate, relative to the codec's
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
    """Views (B, 224, 224, 3) uint8, operating points (B,), and the window's corner in latent positions (2,)."""

    views: Tensor
    points: Tensor
    corner: Tensor


class JointTask(VariableRateTask):
    """Codec and reader as the training loop sees them; begins with a codec's checkpoint."""

    module: JointNetwork
    first = POINTS

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
        for parameter in self.shared():
            parameter.requires_grad_(False)

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

    def shared(self) -> list[torch.nn.Parameter]:
        """What streams for people are made of, too."""
        own = set(map(id, self.own()))
        named = self.module.named_parameters()
        return [p for name, p in named if not name.startswith("reader.") and id(p) not in own]

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
        """What streams for machines have of their own, and the reader's groups."""
        reader = student_groups(self.module.reader, self.reader.backbone_scale)
        return [ParameterGroup(self.own()), *(ParameterGroup(g.params, self.reader.scale * g.scale) for g in reader)]

    def batch(self, step: int) -> JointBatch:  # type: ignore[override]
        """Views of random images at operating points for machines, and a random window."""
        chosen, rng = self.sampler.draw(step, self.views.batch)
        views = [random_view(item.image(), self.views.smallest, rng) for item in chosen]
        shown, _ = mixed(np.stack(views), rng)
        points = POINTS + spread_points(len(views), rng)
        corner = torch.from_numpy(rng.integers(LATENT_CROP - self.views.window // BLOCK + 1, size=2))
        return JointBatch(torch.from_numpy(shown), points, corner)

    @torch.no_grad()
    def look(self, index: int) -> None:
        """Send views that nothing is learned from through the reader."""
        batch = self.batch(-1 - index)
        x, q = (part.to(self.device) for part in (analysis_input(batch.views), batch.points))
        self.module.reader.split_features(self.read(self.module.scaled(x, q).round(), q))

    def read(self, symbols: Tensor, q: Tensor) -> Tensor:
        """What the reader gets of symbols at operating points."""
        latent = symbols * per_channel(self.module.log_ungain(q).exp())
        return with_point(latent, q, KINDS * self.recipe.anchors, KINDS)

    def validate(self) -> dict[str, float]:
        """The codec's metrics, and the reader's agreement with the teacher, of streams for machines."""

        def predict(view: Tensor, q: Tensor) -> Tensor:
            logits: Tensor = self.module.reader(self.read(self.module.scaled(analysis_input(view), q).round(), q))
            return logits

        points = range(POINTS, KINDS * POINTS)
        return super().validate() | agreement(self.teacher, self.held_out, points, predict)

    def loss(self, batch: JointBatch) -> tuple[Tensor, dict[str, float]]:  # type: ignore[override]
        """Rate and distortion, and what the reader misses; raises UsageError where no codec's checkpoint was loaded."""
        if not self.scalars["begun"]:
            raise UsageError("--init: the checkpoint of a codec is required")
        x, q = analysis_input(batch.views), batch.points
        symbols, bits = self.module.coded(x, self.module.scaled(x, q), q)
        top, left = batch.corner.tolist()
        side = self.views.window // BLOCK
        window = self.module.reconstruct(symbols[:, :, top : top + side, left : left + side], q).float()
        shown = x[:, :, BLOCK * top : BLOCK * (top + side), BLOCK * left : BLOCK * (left + side)]
        error = (window - shown).square().mean((1, 2, 3))
        bpp = bits / (x.shape[2] * x.shape[3])
        coding = ((error + self.recipe.lambda_of(q - POINTS) * bpp) * self.recipe.weight(q - POINTS)).mean()
        seen = self.read(symbols, q)
        divergence, distance = distillation(self.module.reader, seen, *self.teacher(batch.views), self.spread)
        metrics = {"crop_bpp": float(bpp.detach().mean()), "coding": float(coding.detach())}
        metrics |= {"divergence": float(divergence.detach()), "distance": float(distance.detach())}
        return coding + self.reader.weight * (divergence + distance), metrics
