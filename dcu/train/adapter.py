"""Training an adapter alone: from a latent to the RGB network's features at the split point.

    loss = mean((adapter(latent) - early(decoded))^2 / var(early))

The backbone stays that of the RGB network, or both targets and backbone are those of an installed network
(``imitate``): the RGB network fine-tuned on decoded images, or a classifier whose adapter a smaller one replaces. The
target is a function of a few positions of the latent, 784 examples per image without noise, so that minutes of one
core suffice (FitNets' hints, arXiv 1412.6550). Latents and targets are computed once and kept in memory: a step costs
a fifth of one of the complete network. A classifier run continues from the checkpoint (``--start``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from dcu.codec import Codec
from dcu.data import Item
from dcu.errors import UsageError
from dcu.nets.efficientnet import EfficientNetLite
from dcu.nets.latent import LatentClassifier
from dcu.schema import Between
from dcu.train.classifier import ClassifierRecipe, ClassifierTask, installed_network, student_groups
from dcu.train.inputs import rebuilt_input
from dcu.train.views import ViewData, generator_of


@dataclass(frozen=True)
class AdapterRecipe:
    """How many views are kept, 0.14 MB each at 48 channels; 0 trains the whole classifier instead."""

    views: Annotated[int, Between(0, 10**5)] = 0
    imitate: str = ""  # an installed classifier or rgb-classifier of the codec; or the RGB network on the image rebuilt


class AdapterTask(ClassifierTask):
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
        if recipe.input != "latent":
            raise UsageError("[adapter] is of networks on latents")
        super().__init__(recipe, data, codec, items, seed)
        self.imitated: LatentClassifier | EfficientNetLite = self.teacher.rgb.network
        self.imitated_input = "decoded"
        if adapter.imitate:
            self.imitated, model = installed_network(adapter.imitate, codec, self.device)
            self.imitated_input = "decoded" if model.kind == "rgb-classifier" else "latent"
        self.module.backbone.blocks.load_state_dict(self.imitated.backbone.blocks.state_dict(), strict=False)
        self.module.backbone.head.load_state_dict(self.imitated.backbone.head.state_dict())
        self.module.backbone.requires_grad_(False)
        self.latents, self.wanted = self.kept(-(-adapter.views // data.batch))
        self.variance = self.wanted.float().var((0, 2, 3), keepdim=True).to(self.device)
        if not recipe.begin:  # starts at the scale of what is wanted
            join: Any = self.module.join
            join.norm.weight.data.copy_(self.variance.flatten().sqrt())
            join.norm.bias.data.copy_(self.wanted.float().mean((0, 2, 3)))

    @torch.no_grad()
    def kept(self, batches: int) -> tuple[Tensor, Tensor]:
        """Latents (n, C, 28, 28) and what is wanted of them at the split point (n, 40, 28, 28), float16, of n views."""
        latents, wanted = [], []
        for step in range(batches):
            views = self.views(step)[0].to(self.device)
            latent = self.seen(views)
            seen = latent if self.imitated_input == "latent" else rebuilt_input(self.codec, latent)
            latents.append(latent.half().cpu())
            wanted.append(self.imitated.split_features(seen).half().cpu())
        return torch.cat(latents), torch.cat(wanted)

    def groups(self) -> list[dict[str, Any]]:
        """The adapter."""
        return student_groups(self.module, 1.0)[:1]

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Latents (B, C, 28, 28) and what is wanted of them (B, 40, 28, 28), float16."""
        rng = generator_of(self.sampler.seed, step)
        chosen = torch.from_numpy(rng.integers(len(self.latents), size=self.data.batch))
        return self.latents[chosen], self.wanted[chosen]

    def loss(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
        latents, wanted = (part.float() for part in batch)
        split_features = self.module.split_features(latents.contiguous(memory_format=torch.channels_last))
        return ((split_features.float() - wanted).square() / self.variance).mean(), {}
