"""Distilling a classifier on latents from the RGB network on the original picture.

Both see the same view (a random crop, mirrored or not); the student gets the view's latent, the teacher its pixels.
Views are made once and kept on disk: symbols, the teacher's logits, and the features of its last block, 320 x 7 x 7,
which say at 49 places what a single answer cannot.

    loss = KL(teacher || student) + alpha * mean((f_student - f_teacher)^2 / var(f_teacher))

Half of the views are mixed by cutting a box out of another (cut-mix, arXiv 1905.04899) on the grid of the features,
the teacher's probabilities and features being mixed likewise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from dcu.codec import Codec
from dcu.nets import channels_last
from dcu.nets.efficientnet import LatentClassifier
from dcu.nets.norms import add_norms
from dcu.train.teachers import rgb_network, trunk_statistics
from dcu.train.views import CHUNK, Cache, ClassifierData

MEASURED = 40
"""Batches on which norms are measured."""
CELL = 4  # latent positions a position of the last features


@dataclass(frozen=True)
class ClassifierRecipe:
    """The network, the codec whose latents it reads, and what is asked of it."""

    name: str
    codec: str
    width: int = 96
    depth: int = 1
    feature_weight: float = 1.0  # alpha
    trunk_scale: float = 0.2  # the trunk's learning rate, relative to the front end's
    adapt_steps: int = 1000  # after which the trunk is settled
    trunk_mix: float = 0.5  # share of the adapted trunk in the settled one; the rest is the RGB network's
    mix: float = 0.5  # share of the views that are mixed


class ClassifierTask:
    """The classifier as the training loop sees it."""

    def __init__(
        self, recipe: ClassifierRecipe, data: ClassifierData, codec: Codec, train: Cache, held: Cache, seed: int
    ) -> None:
        self.recipe, self.data, self.train, self.held, self.seed = recipe, data, train, held, seed
        self.quantizer, self.device = codec.quantizer, codec.device
        torch.manual_seed(seed)
        self.module = LatentClassifier(len(codec.levels), recipe.width, recipe.depth, 1000)
        self.module.trunk.load_state_dict(rgb_network().trunk.state_dict())
        self.start()
        sample = torch.tensor(train.features[:2000]).float()
        self.spread = sample.var((0, 2, 3), keepdim=True).to(self.device)
        self.scalars: dict[str, float] = {}

    def start(self) -> None:
        """Bring the latent's channels to one scale; add batch norms; freeze what stays the RGB network's.

        The classifier layer stays, so that the features keep their meaning for classes that are rare here; the
        depthwise kernels stay because oneDNN computes their gradient ten times slower than all else.
        """
        self.module.to(self.device)
        latent = self.latent(self.train.symbols[:500])
        spread = latent.std((0, 2, 3)).clamp(min=0.1)
        with torch.no_grad():
            self.module.stem.weight.mul_(2 / spread[None, :, None, None])
        add_norms(self.module, trunk_statistics())
        channels_last(self.module).to(self.device)
        self.module.trunk.classifier.requires_grad_(False)
        for name, parameter in self.module.trunk.named_parameters():
            if ".depthwise.convolution." in name:
                parameter.requires_grad_(False)

    def begin(self, step: int, average: dict[str, Tensor]) -> bool:
        """Settle the averaged trunk when it has adapted long enough, and keep it so."""
        if step < self.recipe.adapt_steps:
            return False
        settles = step == self.recipe.adapt_steps
        if settles:
            self.module.load_state_dict(average)
            self.settle()
        self.module.trunk.eval().requires_grad_(False)
        return settles

    @torch.no_grad()
    def settle(self) -> None:
        """Average the adapted trunk with the RGB network's and measure its batch norms anew.

        A trunk that adapts to few photographs forgets the rest; the average of both keeps most of what either knows
        (Wortsman et al., arXiv 2109.01903). From here on only the front end learns.
        """
        original = rgb_network()
        add_norms(original, trunk_statistics())
        ours, theirs = self.module.trunk.state_dict(), original.trunk.state_dict()
        for name, tensor in ours.items():
            if tensor.is_floating_point():
                tensor.lerp_(theirs[name].to(tensor), 1 - self.recipe.trunk_mix)
        self.measure_norms()

    @torch.no_grad()
    def measure_norms(self) -> None:
        """Set the norms' statistics to plain means over many batches, for the weights as they are now.

        The running ones are those of noisy batches and of earlier weights: 5 points of agreement with the teacher.
        """
        norms = [module for module in self.module.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        self.module.train()
        for step in range(MEASURED):
            self.module(self.latent(self.batch(-1 - step)[0].numpy()))
        for norm in norms:
            norm.momentum = 0.1

    def latent(self, symbols: NDArray[np.uint8]) -> Tensor:
        """Symbols (B, C, h, w) of the cache as a latent on the device."""
        return self.quantizer.latent(torch.tensor(symbols).to(self.device))

    def groups(self) -> list[dict[str, Any]]:
        trunk = [p for p in self.module.trunk.parameters() if p.requires_grad]
        front = [p for name, p in self.module.named_parameters() if not name.startswith("trunk.")]
        return [{"params": front}, {"params": trunk, "scale": self.recipe.trunk_scale}]

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Symbols (B, C, 28, 28) uint8, the teacher's probabilities (B, 1000), its features (B, 320, 7, 7)."""
        rng = np.random.default_rng((self.seed, abs(step), int(step < 0)))
        chosen = rng.choice(len(self.train), self.data.batch, replace=len(self.train) < self.data.batch)
        symbols, features = self.train.symbols[chosen], self.train.features[chosen]
        probabilities = torch.softmax(torch.from_numpy(self.train.logits[chosen]).float(), 1).numpy()
        other = np.roll(np.arange(len(chosen)), 1)
        mixed = (symbols.copy(), probabilities.copy(), features.copy())
        grid = features.shape[-1]
        for i in np.flatnonzero(rng.random(len(chosen)) < self.recipe.mix):
            h, w = rng.integers(1, grid, 2)
            top, left = rng.integers(grid - h + 1), rng.integers(grid - w + 1)
            cut = (slice(None), slice(top, top + h), slice(left, left + w))
            fine = (slice(None), slice(CELL * top, CELL * (top + h)), slice(CELL * left, CELL * (left + w)))
            share = h * w / grid**2
            mixed[0][i][fine] = symbols[other[i]][fine]
            mixed[1][i] += share * (probabilities[other[i]] - probabilities[i])
            mixed[2][i][cut] = features[other[i]][cut]
        return tuple(map(torch.from_numpy, mixed))

    def loss(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
        symbols, probabilities, target = batch
        latent = self.quantizer.latent(symbols).contiguous(memory_format=torch.channels_last)
        features = self.module.trunk.blocks(self.module.joint(latent))
        logits = self.module.trunk.classifier(self.module.trunk.pool(features)).float()
        divergence = F.kl_div(F.log_softmax(logits, 1), probabilities, reduction="batchmean")
        distance = ((features.float() - target.float()).square() / self.spread).mean()
        figures = {"divergence": float(divergence.detach()), "distance": float(distance.detach())}
        return divergence + self.recipe.feature_weight * distance, figures

    def validate(self) -> dict[str, float]:
        """Agreement with the teacher on pictures it was not taught with, and their divergence."""
        agree = divergence = 0.0
        for at in range(0, len(self.held), CHUNK):
            answer = self.module(self.latent(self.held.symbols[at : at + CHUNK])).float().cpu()
            teacher = torch.tensor(self.held.logits[at : at + CHUNK]).float()
            agree += float((answer.argmax(1) == teacher.argmax(1)).sum())
            divergence += float(F.kl_div(F.log_softmax(answer, 1), teacher.softmax(1), reduction="sum"))
        count = max(1, len(self.held))
        return {"held_agreement": agree / count, "held_divergence": divergence / count}
