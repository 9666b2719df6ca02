"""Training a codec: mean squared error + lambda * bits, lambda steered until the rate is the recipe's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dcu.codec import analysis_input
from dcu.data import Item
from dcu.errors import UsageError
from dcu.evaluate.codec import MS_SSIM_SHORT
from dcu.geometry import BLOCK
from dcu.image import pad
from dcu.nets import channels_last
from dcu.nets.context import KERNEL, ContextModel, Group, UnboundedGroup
from dcu.nets.quantizer import Quantizer
from dcu.nets.transforms import BLOCK_CHANNELS, Analysis, Synthesis
from dcu.schema import Between, Name, Share
from dcu.train.init import use_components
from dcu.train.optimizers import ParameterGroup
from dcu.train.parallel import mean
from dcu.train.recipe import (
    Batch,
    DatasetWeights,
    Depth,
    HeldOut,
    Positive,
    Schedule,
    Side,
    Width,
    check_crop,
    check_size,
)
from dcu.train.views import Sampler, hold_out, random_crop

START_LAMBDA = 0.005
OVERHEAD_BITS = 8 * 18
"""Container of a 224x224 image: header and checksum."""
PARTS = ("analysis", "quantizer", "context", "synthesis")


@dataclass(frozen=True)
class CodecRecipe:
    """The architecture and the rate that names it."""

    name: Name
    rate: Annotated[float, Between(1e-6, 100)]
    groups: Annotated[tuple[Group, ...], Between(1, BLOCK_CHANNELS)]
    width: Width = 128
    analysis_depth: Depth = 5
    synthesis_depth: Depth = 6
    context_hidden: Width = 64
    step: Positive = 1.0  # between centers at the start, in units of the image's [-1, 1]; finer for higher rates
    steer: Share = 0.003  # how far ln(lambda) moves a step for a rate off by 100 %: from scratch slow, or it overshoots
    similarity: Annotated[float, Between(0, 1e6)] = 0.0  # weight of 1 - MS-SSIM beside the squared error
    frozen: tuple[str, ...] = ()  # parts that stay as they are

    def __post_init__(self) -> None:
        if unknown := set(self.frozen) - set(PARTS):
            raise ValueError(f"frozen: {min(unknown)} is not one of {', '.join(PARTS)}")
        depth = self.analysis_depth + self.synthesis_depth
        check_architecture(self.groups, self.width, depth, self.context_hidden)


@dataclass(frozen=True)
class CodecData:
    """Crops, and the frequency of each data set (by the name of its tar; 1 if not said)."""

    crop: Side = 128
    batch: Batch = 8
    held_out: HeldOut = 64  # images on which the rate is measured, at most: see hold_out
    held_out_from: tuple[str, ...] = ()
    weights: DatasetWeights = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.held_out < 1:
            raise ValueError("held_out must be at least 1, to measure the rate")
        check_crop(self.crop, self.batch, BLOCK)


@dataclass(frozen=True)
class CodecTraining:
    """A recipe of ``dcu train codec`` for one rate."""

    codec: CodecRecipe
    schedule: Schedule
    data: CodecData = field(default_factory=CodecData)


def check_architecture(groups: Sequence[Group | UnboundedGroup], width: int, depth: int, context_hidden: int) -> None:
    """Refuse more channels than 8x8 blocks have components, and networks that are too large; raises ValueError.

    ``depth`` is that of both transforms together.
    """
    channels, passes = sum(group.channels for group in groups), sum(group.passes for group in groups)
    if channels > BLOCK_CHANNELS:
        raise ValueError(f"groups: more than {BLOCK_CHANNELS} channels together")
    check_size(18 * width**2 * depth + passes * context_hidden * (KERNEL**2 * channels + context_hidden))


class CodecNetwork(nn.Module):
    """The four parts of a codec: analysis, quantizer, context, synthesis."""

    def __init__(self, recipe: CodecRecipe) -> None:
        super().__init__()
        levels = [group.levels for group in recipe.groups for _ in range(group.channels)]
        self.analysis = Analysis(len(levels), recipe.width, recipe.analysis_depth)
        self.quantizer = Quantizer(levels)
        self.context = ContextModel(recipe.groups, recipe.context_hidden)
        self.synthesis = Synthesis(len(levels), recipe.width, recipe.synthesis_depth)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Image (B, 3, 8h, 8w) in [-1, 1] to its reconstruction and its bits, (B,)."""
        latent, assignment = self.quantizer(self.analysis(x))
        reconstruction: Tensor = self.synthesis(latent)
        return reconstruction, self.context.bits(latent, assignment)


class CodecBatch(NamedTuple):
    """Crops (B, crop, crop, 3) uint8."""

    crops: Tensor


class CodecTask:
    """The codec as the training loop sees it."""

    start_batches = 40
    """How many batches the principal components come from."""

    def __init__(self, recipe: CodecRecipe, data: CodecData, items: list[Item], seed: int, device: str = "cpu") -> None:
        self.recipe, self.data, self.device = recipe, data, device
        train, self.held_out = hold_out(items, data.held_out, data.held_out_from)
        self.sampler = Sampler(train, data.weights, seed)
        torch.manual_seed(seed)
        self.module = CodecNetwork(recipe)
        self.start()
        for part in recipe.frozen:
            getattr(self.module, part).requires_grad_(False)
        channels_last(self.module).to(device)
        self.scalars = {"lambda": START_LAMBDA, "crop_target": recipe.rate, "crop_bpp": recipe.rate}

    def start(self) -> None:
        """Principal components of the first images as the start of both transforms."""
        images = torch.cat([self.batch(step).crops for step in range(self.start_batches)])
        levels = [group.levels for group in self.recipe.groups for _ in range(group.channels)]
        spread = torch.tensor([levels_ / 4.0 for levels_ in levels])
        use_components(self.module.analysis, self.module.synthesis, images, spread, self.recipe.step)

    def groups(self) -> list[ParameterGroup]:
        """All that is not frozen."""
        return [ParameterGroup([p for p in self.module.parameters() if p.requires_grad])]

    def batch(self, step: int) -> CodecBatch:
        """Crops of random images."""
        chosen, rng = self.sampler.draw(step, self.data.batch)
        crops = [random_crop(item.image(), self.data.crop, rng) for item in chosen]
        return CodecBatch(torch.from_numpy(np.stack(crops)))

    def loss(self, batch: CodecBatch) -> tuple[Tensor, dict[str, float]]:
        """Distortion + lambda * bits per pixel."""
        x = analysis_input(batch.crops)
        reconstruction, bits = self.module(x)
        return self.rate_distortion(x, reconstruction, bits.mean() / (x.shape[2] * x.shape[3]))

    def rate_distortion(self, x: Tensor, reconstruction: Tensor, bpp: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Distortion + lambda * bits per pixel; moves lambda towards the rate."""
        error = (reconstruction.float() - x).square().mean()
        distortion = error
        if self.recipe.similarity:
            distortion = error + self.recipe.similarity * dissimilarity(x, reconstruction).mean()
        rate = mean(float(bpp.detach()), self.device)
        off = max(-1.0, min(1.0, rate / self.scalars["crop_target"] - 1))
        self.scalars["lambda"] *= math.exp(self.recipe.steer * off)
        self.scalars["crop_bpp"] += 0.005 * (rate - self.scalars["crop_bpp"])
        metrics = {"crop_bpp": rate, "lambda": self.scalars["lambda"], "crop_psnr": psnr_of_mse(float(error.detach()))}
        return distortion + self.scalars["lambda"] * bpp, metrics

    def validate(self) -> dict[str, float]:
        """Rate and PSNR of whole held-out images; sets the crops' target to where whole files meet the rate."""
        bpp, quality = [], []
        for item in self.held_out:
            image = item.image()
            height, width = image.shape[:2]
            x = analysis_input(torch.from_numpy(pad(image, BLOCK)[None]).to(self.device))
            reconstruction, bits = self.module(x)
            error = (reconstruction.clamp(-1, 1) - x)[:, :, :height, :width]
            bpp.append((float(bits) + OVERHEAD_BITS) / (height * width))
            quality.append(psnr_of_mse(float(error.square().mean())))
        rate = float(np.mean(bpp))
        self.scalars["crop_target"] = self.recipe.rate * self.scalars["crop_bpp"] / rate
        return {"bpp": rate, "psnr": float(np.mean(quality)), "crop_target": self.scalars["crop_target"]}


def dissimilarity(x: Tensor, reconstruction: Tensor) -> Tensor:
    """1 - MS-SSIM (Wang et al. 2003), (B,), of images (B, 3, H, W) in [-1, 1].

    Raises
    ------
    UsageError
        A side has less than 161 pixels.
    """
    from pytorch_msssim import ms_ssim

    if min(x.shape[2:]) < MS_SSIM_SHORT:
        raise UsageError(f"similarity: MS-SSIM needs crops of {MS_SSIM_SHORT} pixels")
    with torch.autocast(x.device.type, enabled=False):
        one, two = ((image.float().clamp(-1, 1) + 1) / 2 for image in (x, reconstruction))
        return 1 - ms_ssim(one, two, data_range=1.0, size_average=False)  # type: ignore[no-any-return]


def psnr_of_mse(error: float) -> float:
    """Peak signal to noise ratio in dB of a mean squared error in units of [-1, 1] (peak 2)."""
    return 10 * math.log10(4 / max(error, 1e-10))
