"""Training an adapter alone: from a latent to the RGB network's features at the split point.

    loss = mean((adapter(latent) - early(decoded))^2 / var(early))

The backbone stays that of the RGB network, or both targets and backbone are those of an installed network
(``imitate``): the RGB network fine-tuned on decoded images, or a classifier whose adapter a smaller one replaces. The
target is a function of a few positions of the latent, 784 examples per image without noise, so that minutes of one
core suffice (FitNets' hints, arXiv 1412.6550). Latents and targets are computed once and kept in memory: a step costs
a fifth of one of the complete network. A classifier run continues from the checkpoint (``--init``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor

from dcu.codec import Codec
from dcu.data import Item
from dcu.errors import UnavailableError, UsageError
from dcu.nets.efficientnet import EfficientNetLite
from dcu.nets.latent import LatentClassifier
from dcu.schema import Between
from dcu.train.init import installed_network
from dcu.train.inputs import rebuilt_input
from dcu.train.optimizers import ParameterGroup
from dcu.train.recipe import Schedule
from dcu.train.student import ClassifierRecipe, StudentTask, student_groups
from dcu.train.views import ViewData, generator_of


@dataclass(frozen=True)
class AdapterRecipe:
    """How many views are kept, 0.14 MB each at 48 channels; 0 trains the whole classifier instead."""

    views: Annotated[int, Between(0, 10**5)] = 0
    imitate: str = ""  # an installed classifier or rgb-classifier of the codec; or the RGB network on decoded images


@dataclass(frozen=True)
class ClassifierTraining:
    """A recipe of ``dcu train classifier``."""

    classifier: ClassifierRecipe
    schedule: Schedule
    adapter: AdapterRecipe = AdapterRecipe()
    data: ViewData = field(default_factory=ViewData)


class AdapterBatch(NamedTuple):
    """Latents (B, C, 28, 28) and what is wanted of them (B, 40, 28, 28), float16."""

    latents: Tensor
    wanted: Tensor


class AdapterTask(StudentTask):
    """A classifier's adapter as the training loop sees it."""

    def __init__(
        self,
        recipe: ClassifierRecipe,
        adapter: AdapterRecipe,
        data: ViewData,
        codec: Codec,
        items: list[Item],
        seed: int,
    ) -> None:
        if recipe.input != "latent" or recipe.folded:
            raise UsageError("[adapter] requires a network on latents, with norms")
        super().__init__(recipe, data, codec, items, seed)
        self.adapter = adapter
        self.imitated: LatentClassifier | EfficientNetLite = self.teacher.rgb.network
        self.imitated_input = "decoded"
        if adapter.imitate:
            try:
                self.imitated, model = installed_network(adapter.imitate, codec)
            except UnavailableError as error:
                raise UnavailableError(f"adapter.imitate: {error}; train it first (docs/training.md)") from error
            self.imitated_input = "decoded" if model.kind == "rgb-classifier" else "latent"
            reads = getattr(self.imitated, "channels", codec.channels + recipe.anchors)
            if self.imitated_input == "latent" and reads != codec.channels + recipe.anchors:
                raise UsageError(f"adapter.imitate: {adapter.imitate} reads other planes than the recipe's network")
        self.module.backbone.blocks.load_state_dict(self.imitated.backbone.blocks.state_dict(), strict=False)
        self.module.backbone.head.load_state_dict(self.imitated.backbone.head.state_dict())
        self.module.backbone.requires_grad_(False)
        self.kept = self.computed(-(-adapter.views // data.batch))
        wanted = self.kept.wanted.float()
        self.variance = wanted.var((0, 2, 3), keepdim=True).to(self.device)
        join: Any = self.module.join  # starts at the scale of what is wanted
        join.norm.weight.data.copy_(self.variance.flatten().sqrt())
        join.norm.bias.data.copy_(wanted.mean((0, 2, 3)))

    @torch.no_grad()
    def computed(self, batches: int) -> AdapterBatch:
        """Latents of all views and what is wanted of them."""
        latents, wanted = [], []
        for step in range(batches):
            views = self.views(step)
            latent = self.seen(views.images.to(self.device), views.points)
            seen = latent
            if self.imitated_input != "latent":
                points = views.points.to(self.device)
                seen = rebuilt_input(self.codec, latent[:, : self.codec.channels], points)
            latents.append(latent.half().cpu())
            wanted.append(self.imitated.split_features(seen).half().cpu())
        return AdapterBatch(torch.cat(latents), torch.cat(wanted))

    def groups(self) -> list[ParameterGroup]:
        """The adapter."""
        return student_groups(self.module, 1.0)[:1]

    def batch(self, step: int) -> AdapterBatch:
        """Some of the views that are kept."""
        rng = generator_of(self.sampler.seed, step)
        chosen = torch.from_numpy(rng.integers(len(self.kept.latents), size=self.data.batch))
        return AdapterBatch(self.kept.latents[chosen], self.kept.wanted[chosen])

    def loss(self, batch: AdapterBatch) -> tuple[Tensor, dict[str, float]]:
        """Distance at the split point, in units of the variance there."""
        latents = batch.latents.float().contiguous(memory_format=torch.channels_last)
        distance = self.module.split_features(latents).float() - batch.wanted.float()
        return (distance.square() / self.variance).mean(), {}
