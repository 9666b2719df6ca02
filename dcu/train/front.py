"""Teaching a front end alone: to give at the joint, of a latent, what is wanted there of the same view.

    loss = mean((front(latent) - wanted)^2 / var(wanted))

At first that is what the RGB network has there of the picture rebuilt. What is behind the joint stays the RGB
network's, with all that it learnt from a million pictures; and what is wanted is a function of a few places of the
latent, 784 examples a picture and no noise: minutes of one core teach it (hints: FitNets, arXiv 1412.6550). A
classifier goes on from there (``--start``).

A front end of stride 2, for larger pictures, is added to a classifier that is trained: of a view of 448x448 it is to
give what the classifier's own front end has of the view at half its size.

Latents and what is wanted of them are made once and kept in memory: a step costs a fifth of one of the whole network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dcu import store
from dcu.codec import Codec
from dcu.data import Item
from dcu.errors import UsageError
from dcu.nets.efficientnet import EfficientNetLite0, LatentClassifier
from dcu.nets.norms import add_norms, measure_norms
from dcu.tasks.classify import build_network
from dcu.train.classifier import MEASURED, ClassifierRecipe, ClassifierTask, reduced
from dcu.train.inputs import network_input
from dcu.train.views import ViewData


@dataclass(frozen=True)
class FrontRecipe:
    """How many views are kept, in memory; 0 trains the whole classifier instead."""

    views: int = 0
    stride: int = 1

    def __post_init__(self) -> None:
        if self.stride not in (1, 2):
            raise ValueError(f"stride = {self.stride} is neither 1 nor 2")


class FrontTask(ClassifierTask):
    """A classifier's front end as the training loop sees it."""

    def __init__(
        self, recipe: ClassifierRecipe, front: FrontRecipe, data: ViewData, codec: Codec, items: list[Item], seed: int
    ) -> None:
        if recipe.sees != "latent":
            raise UsageError("[front] is of networks on latents")
        self.stride = front.stride
        self.base: store.Model | None = None
        """The classifier to which a front end is added."""
        super().__init__(recipe, data, codec, items, seed)
        self.module.requires_grad_(False)
        learning = [part for name, part in self.front.named_children() if name not in ("halving", "trunk")]
        for part in learning:
            part.requires_grad_(True)
        self.latents, self.targets = self.kept(-(-front.views // data.batch))
        self.variance = self.targets.float().var((0, 2, 3), keepdim=True).to(self.device)
        norm = self.front.join.norm  # begins at the scale of what is wanted
        norm.weight.data.copy_(self.variance.flatten().sqrt())
        norm.bias.data.copy_(self.targets.float().mean((0, 2, 3)))

    def beginning(self) -> LatentClassifier | EfficientNetLite0:
        if self.stride == 1:
            return super().beginning()
        self.base = model = store.find(self.recipe.name, "classifier")
        if model.fingerprint != self.codec.fingerprint:
            raise UsageError(f"{model.name} reads latents of another codec than {self.codec.name}")
        whole = build_network(model)
        shape = (whole.stem.in_channels, self.recipe.width, self.recipe.depth)
        network = LatentClassifier(*shape, whole.trunk.classifier.out_features, halving=True)
        known = {name: tensor for name, tensor in whole.state_dict().items() if not name.startswith("halving.")}
        network.load_state_dict(network.state_dict() | known)
        assert network.halving is not None
        add_norms(network.halving)
        return network

    @property
    def front(self) -> Any:
        return self.module if self.stride == 1 else self.module.halving

    @torch.no_grad()
    def kept(self, batches: int) -> tuple[Tensor, Tensor]:
        """Latents (n, C, 28 s, 28 s) of n views and what is wanted of them, (n, 40, 28, 28); float16."""
        latents, targets = [], []
        for step in range(batches):
            views = self.views(step)[0].to(self.device)
            latents.append(self.seen(views).half().cpu())
            targets.append(self.wanted(views).half().cpu())
        return torch.cat(latents), torch.cat(targets)

    def wanted(self, views: Tensor) -> Tensor:
        """What views (B, 224 s, 224 s, 3) are to give at the joint, (B, 40, 28, 28)."""
        if self.stride == 1:
            return self.teacher.network.joint(network_input(self.codec, "decoded", views))
        joint: Tensor = self.module.joint(self.seen(reduced(views, self.stride)))
        return joint

    def groups(self) -> list[dict[str, Any]]:
        """The front end."""
        return [{"params": [p for p in self.front.parameters() if p.requires_grad]}]

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Latents (B, C, 28 s, 28 s) and what is wanted of them, (B, 40, 28, 28); float16."""
        rng = np.random.default_rng((self.sampler.seed, abs(step), int(step < 0)))
        chosen = torch.from_numpy(rng.integers(len(self.latents), size=self.data.batch))
        return self.latents[chosen], self.targets[chosen]

    def loss(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
        latents, targets = (part.float() for part in batch)
        joint = self.front.joint(latents.contiguous(memory_format=torch.channels_last))
        return ((joint.float() - targets).square() / self.variance).mean(), {}

    def measure_norms(self) -> None:
        """Set the front end's norms for the weights as they are now."""
        measure_norms(self.front, lambda index: self.front.joint(self.batch(-1 - index)[0].float()), MEASURED)
