"""Teaching a front end alone: to give at the joint, of a latent, what the RGB network has there of the picture rebuilt.

    loss = mean((front(latent) - early(decoded))^2 / var(early))

What is behind the joint stays the RGB network's, with all that it learnt from a million pictures. Or both are those of
a network that is there already (``like``): the RGB network fine-tuned on such pictures, or a classifier whose front end
a smaller one is to replace. What is wanted is a function of a few places of the latent, 784 examples a picture and no
noise: minutes of one core teach it (FitNets' hints, arXiv 1412.6550). Latents and what is wanted of them are made once
and kept in memory, so that a step costs a fifth of one of the whole network. A classifier goes on from there
(``--start``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dcu.codec import Codec
from dcu.data import Item
from dcu.errors import UsageError
from dcu.nets.efficientnet import EfficientNetLite, LatentClassifier
from dcu.train.classifier import ClassifierRecipe, ClassifierTask, network_like, student_groups
from dcu.train.inputs import rebuilt_input
from dcu.train.views import ViewData, generator_of


@dataclass(frozen=True)
class FrontRecipe:
    """How many views are kept, 0.14 MB each at 48 channels; 0 trains the whole classifier instead."""

    views: int = 0
    like: str = ""  # an installed classifier or rgb-classifier of the codec; or the RGB network on the picture rebuilt


class FrontTask(ClassifierTask):
    """A classifier's front end as the training loop sees it."""

    def __init__(
        self, recipe: ClassifierRecipe, front: FrontRecipe, data: ViewData, codec: Codec, items: list[Item], seed: int
    ) -> None:
        if recipe.sees != "latent":
            raise UsageError("[front] is of networks on latents")
        super().__init__(recipe, data, codec, items, seed)
        self.like: LatentClassifier | EfficientNetLite = self.teacher.rgb.network
        self.like_sees = "decoded"
        if front.like:
            self.like, model = network_like(front.like, codec, self.device)
            self.like_sees = "decoded" if model.kind == "rgb-classifier" else "latent"
        self.module.trunk.blocks.load_state_dict(self.like.trunk.blocks.state_dict(), strict=False)
        self.module.trunk.head.load_state_dict(self.like.trunk.head.state_dict())
        self.module.trunk.requires_grad_(False)
        self.latents, self.wanted = self.kept(-(-front.views // data.batch))
        self.variance = self.wanted.float().var((0, 2, 3), keepdim=True).to(self.device)
        if not recipe.begin:  # starts at the scale of what is wanted
            join: Any = self.module.join
            join.norm.weight.data.copy_(self.variance.flatten().sqrt())
            join.norm.bias.data.copy_(self.wanted.float().mean((0, 2, 3)))

    @torch.no_grad()
    def kept(self, batches: int) -> tuple[Tensor, Tensor]:
        """Latents (n, C, 28, 28) and what is wanted of them at the joint (n, 40, 28, 28), float16, of n views."""
        latents, wanted = [], []
        for step in range(batches):
            views = self.views(step)[0].to(self.device)
            latent = self.seen(views)
            seen = latent if self.like_sees == "latent" else rebuilt_input(self.codec, latent)
            latents.append(latent.half().cpu())
            wanted.append(self.like.joint(seen).half().cpu())
        return torch.cat(latents), torch.cat(wanted)

    def groups(self) -> list[dict[str, Any]]:
        """The front end."""
        return student_groups(self.module, 1.0)[:1]

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Latents (B, C, 28, 28) and what is wanted of them (B, 40, 28, 28), float16."""
        rng = generator_of(self.sampler.seed, step)
        chosen = torch.from_numpy(rng.integers(len(self.latents), size=self.data.batch))
        return self.latents[chosen], self.wanted[chosen]

    def loss(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
        latents, wanted = (part.float() for part in batch)
        joint = self.module.joint(latents.contiguous(memory_format=torch.channels_last))
        return ((joint.float() - wanted).square() / self.variance).mean(), {}
