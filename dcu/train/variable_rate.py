"""Training a codec for every rate: distortion + lambda * bits, lambda drawn for each crop.

::

    loss of a crop = (D + lambda bpp) (lambda_0 / lambda)^balance,   D = (MSE + similarity (1 - MS-SSIM))^exponent

Without the last factor low rates, whose errors are large, would decide alone. An exponent of 1/2 gives crops with small
errors more weight: the PSNR of an operating point then differs less from image to image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dcu.codec import analysis_input
from dcu.data import Item
from dcu.geometry import BLOCK, POINTS
from dcu.image import ImageArray, pad
from dcu.nets import channels_last
from dcu.nets.context import UnboundedGroup
from dcu.nets.quantizer import SIGMA
from dcu.nets.transforms import BLOCK_CHANNELS
from dcu.nets.variable_rate import VariableRateCodec, evenly_spaced
from dcu.schema import Between, Name, Share
from dcu.train.codec import check_architecture, dissimilarity, psnr_of_mse
from dcu.train.crops import varied
from dcu.train.init import use_components
from dcu.train.optimizers import ParameterGroup
from dcu.train.recipe import (
    Batch,
    DatasetWeights,
    Depth,
    HeldOut,
    Positive,
    Schedule,
    Side,
    Steps,
    Width,
    check_crop,
)
from dcu.train.views import Sampler, hold_out, random_crop, spread

STEP_OF_LAMBDA = 15.0
"""Square of the quantization step over lambda to begin with; 26 is that of a Gaussian source at high rates."""
FIRST_SHARE = 0.1
"""Of lambda at the first step, while it grows in."""
LEAST_DISTORTION = 1e-8
"""Below it the distortion has no gradient: that of a root is infinite at 0."""
LEAST_NONZERO = 5e-3
"""Share of a channel's symbols that are not zero, from which on the channel is coded."""


@dataclass(frozen=True)
class VariableRateRecipe:
    """The architecture, the range of rates, and how they are balanced."""

    name: Name
    groups: Annotated[tuple[UnboundedGroup, ...], Between(1, BLOCK_CHANNELS)]
    width: Width = 128
    analysis_depth: Depth = 5
    synthesis_depth: Depth = 6
    context_hidden: Width = 64
    anchors: Annotated[int, Between(2, POINTS)] = 8
    adapter: Annotated[int, Between(0, 1024)] = 0  # channels inside the adapter of streams for machines; 0: none
    largest_lambda: Positive = 1.0  # at q = 0, of pixels in [-1, 1]
    smallest_lambda: Positive = 0.0015  # at q = 63
    balance: Share = 0.4
    blocks_rate: Share = 0.25  # of the learning rate, for residual blocks: at all of it their units die
    grow_steps: Steps = 1000  # in which lambda grows in from a tenth
    similarity: Annotated[float, Between(0, 1e6)] = 0.0  # at q = 63, the weight of 1 - MS-SSIM beside squared error
    similarity_at_0: Share = 1.0  # the same at q = 0, as a share of it
    exponent: Share = 1.0  # of the distortion; lambda is in its units
    sigma: Positive = SIGMA  # of the soft assignment: soft at first, sharp at the end (see Quantizer)

    def __post_init__(self) -> None:
        depth = self.analysis_depth + self.synthesis_depth
        check_architecture(self.groups, self.width, depth, self.context_hidden)

    def shape(self) -> tuple[tuple[UnboundedGroup, ...], int, int, int, int, int, int]:
        """The arguments of :class:`~dcu.nets.variable_rate.VariableRateCodec`."""
        depths = self.analysis_depth, self.synthesis_depth
        return self.groups, self.width, *depths, self.context_hidden, self.anchors, self.adapter

    def lambda_of(self, q: Tensor) -> Tensor:
        """lambda(q), log-linear."""
        return self.largest_lambda * (self.smallest_lambda / self.largest_lambda) ** (q / (POINTS - 1))

    def similarity_of(self, q: Tensor) -> Tensor:
        """The weight of 1 - MS-SSIM, log-linear."""
        return self.similarity * self.similarity_at_0 ** (1 - q / (POINTS - 1))

    def weight(self, q: Tensor) -> Tensor:
        """What the loss of an operating point is multiplied by; 1 in the middle of the range."""
        middle = math.sqrt(self.largest_lambda * self.smallest_lambda)
        return (middle / self.lambda_of(q)) ** self.balance


@dataclass(frozen=True)
class VariableRateData:
    """Crops, and the frequency of each data set (by the name of its tar; 1 if not said)."""

    crop: Side = 128
    batch: Batch = 8
    held_out: HeldOut = 64  # images that are not trained on, at most: see hold_out
    held_out_from: tuple[str, ...] = ()
    validate_on: HeldOut = 64  # of which so many are measured, at most
    weights: DatasetWeights = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.validate_on <= self.held_out:
            raise ValueError(f"validate_on = {self.validate_on} must be between 1 and held_out = {self.held_out}")
        check_crop(self.crop, self.batch, BLOCK)


@dataclass(frozen=True)
class VariableRateTraining:
    """A recipe of ``dcu train codec`` for every rate."""

    variable_rate: VariableRateRecipe
    schedule: Schedule
    data: VariableRateData = field(default_factory=VariableRateData)

    def __post_init__(self) -> None:
        if self.variable_rate.adapter:
            raise ValueError("variable_rate.adapter must be 0: streams for machines are trained by dcu train joint")


class VariableRateBatch(NamedTuple):
    """Crops (B, crop, crop, 3) uint8, their operating points (B,), and the number of the step."""

    crops: Tensor
    points: Tensor
    step: int


class VariableRateTask:
    """The codec as the training loop sees it."""

    start_batches = 40
    """How many batches the principal components come from."""

    def __init__(
        self, recipe: VariableRateRecipe, data: VariableRateData, items: list[Item], seed: int, device: str = "cpu"
    ) -> None:
        self.recipe, self.data, self.device, self.seed = recipe, data, device, seed
        train, held_out = hold_out(items, data.held_out, data.held_out_from)
        self.held_out = held_out[:: max(1, len(held_out) // data.validate_on)][: data.validate_on]
        self.sampler = Sampler(train, data.weights, seed)
        torch.manual_seed(seed)
        self.module = self.network()
        self.module.sigma = recipe.sigma
        self.start()
        channels_last(self.module).to(device)
        self.scalars: dict[str, float] = {}

    def network(self) -> VariableRateCodec:
        """What is trained."""
        return VariableRateCodec(*self.recipe.shape())

    def start(self) -> None:
        """Principal components of the first crops in both transforms, steps by lambda, scales by the deviations."""
        crops = torch.cat([self.batch(step).crops for step in range(self.start_batches)])
        unlimited = torch.full((self.module.analysis.linear.out_channels,), torch.inf)
        use_components(self.module.analysis, self.module.synthesis, crops, unlimited, 1.0)
        first, last = (math.sqrt(STEP_OF_LAMBDA * x) for x in (self.recipe.largest_lambda, self.recipe.smallest_lambda))
        self.module.begin_at_steps(first, last)
        with torch.no_grad():
            x = analysis_input(crops)
            points = evenly_spaced(self.recipe.anchors)
            scaled = [self.module.scaled(x, q.expand(len(x))).std((0, 2, 3)) for q in points]
            self.module.context.begin_at_deviations(torch.stack(scaled))

    def groups(self) -> list[ParameterGroup]:
        """The residual blocks, which learn more slowly, and all else."""
        named = list(self.module.named_parameters())
        blocks = [parameter for name, parameter in named if ".blocks." in name]
        rest = [parameter for name, parameter in named if ".blocks." not in name]
        return [ParameterGroup(blocks, self.recipe.blocks_rate), ParameterGroup(rest)]

    def batch(self, step: int) -> VariableRateBatch:
        """Crops of random images, and operating points that are spread over the range."""
        chosen, rng = self.sampler.draw(step, self.data.batch)
        crops = [varied(random_crop(item.image(), self.data.crop, rng), rng) for item in chosen]
        return VariableRateBatch(torch.from_numpy(np.stack(crops)), spread_points(self.data.batch, rng), step)

    def loss(self, batch: VariableRateBatch) -> tuple[Tensor, dict[str, float]]:
        """The mean of all crops' loss."""
        x, q = analysis_input(batch.crops), batch.points
        reconstruction, bits = self.module(x, q)
        error = (reconstruction.float() - x).square().mean((1, 2, 3))
        bpp = bits / (x.shape[2] * x.shape[3])
        lambda_ = self.recipe.lambda_of(q) * FIRST_SHARE ** max(0.0, 1 - batch.step / self.recipe.grow_steps)
        distortion = error
        if self.recipe.similarity:
            distortion = error + self.recipe.similarity_of(q) * dissimilarity(x, reconstruction)
        distortion = distortion.clamp(min=LEAST_DISTORTION) ** self.recipe.exponent
        loss = ((distortion + lambda_ * bpp) * self.recipe.weight(q)).mean()
        return loss, {"crop_bpp": float(bpp.detach().mean()), "crop_psnr": psnr_of_mse(float(error.detach().mean()))}

    def validate(self) -> dict[str, float]:
        """The metrics of its only kind of stream."""
        return self.metrics()

    def metrics(self, first: int = 0) -> dict[str, float]:
        """Loss, bpp and PSNR of held-out images at five operating points of the kind that begins at ``first``."""
        points = evenly_spaced(5)
        error, bpp = self.measure(points.to(self.device) + first)
        loss = (error**self.recipe.exponent + self.recipe.lambda_of(points) * bpp) * self.recipe.weight(points)
        metrics = {"held_out_loss": float(loss.mean())}
        error, bpp = error.mean(0), bpp.mean(0)
        for q, error_there, bpp_there in zip(points.int().tolist(), error.tolist(), bpp.tolist(), strict=True):
            metrics |= {f"bpp_{q}": bpp_there, f"psnr_{q}": psnr_of_mse(error_there)}
        return metrics

    @torch.no_grad()
    def coded_channels(self) -> Tensor:
        """(64 * kinds, C) bool: channels of which enough symbols of held-out images are not zero at a point."""
        coded = []
        for kind in range(self.module.log_gain.kinds):
            points = (kind * POINTS + torch.arange(POINTS)).to(self.device)
            shares = []
            for item in self.held_out:
                x = analysis_input(torch.from_numpy(np.array(cropped_to_blocks(item.image()))[None]).to(self.device))
                shares.append((self.module.scaled(x, points).abs() > 0.5).float().mean((2, 3)))
            coded.append((torch.stack(shares).mean(0) >= LEAST_NONZERO).cummax(0).values.cpu())
        return torch.cat(coded)

    def measure(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared error (of [-1, 1]) and bpp of each held-out image (rows) at each of some operating points."""
        errors, rates = [], []
        for item in self.held_out:
            x = analysis_input(torch.from_numpy(np.array(cropped_to_blocks(item.image()))[None]).to(self.device))
            reconstruction, bits = self.module(x, points)
            errors.append((reconstruction.clamp(-1, 1) - x).square().mean((1, 2, 3)).cpu())
            rates.append(bits.cpu() / (x.shape[2] * x.shape[3]))
        return torch.stack(errors), torch.stack(rates)


def spread_points(count: int, rng: np.random.Generator) -> Tensor:
    """Operating points (count,) float, spread over 0 to 63 in random order."""
    return torch.from_numpy(spread(count, rng) * (POINTS - 1)).float()


def cropped_to_blocks(image: ImageArray) -> ImageArray:
    """The image, whole blocks of 8x8: cropped at its right and bottom, padded where it is narrower."""
    if min(image.shape[:2]) < BLOCK:
        image = pad(image, BLOCK)
    height, width = (side // BLOCK * BLOCK for side in image.shape[:2])
    return image[:height, :width]
