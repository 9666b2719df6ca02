"""Analysis and synthesis transforms of the codec, at 1/8 of the image's size.

Nearly all the work is done at 1/8 resolution, on 8x8 blocks laid out as 192 channels: a linear
transform of the blocks (started from their principal components) plus a residual network that
learns what the linear one cannot do.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dcu.geometry import BLOCK, POINTS
from dcu.nets.operating_point import AnchorLinear, AnchorVectors, per_channel

BLOCK_CHANNELS = 3 * BLOCK * BLOCK
LEAK = 0.1
"""Slope below zero of the rectifiers in codecs of many operating points; without it, units die in training."""
ADAPTER_BLOCKS = 2
"""Residual blocks of the analysis that streams for machines go through in addition."""
PADDING: Literal["replicate"] = "replicate"
"""What their convolutions read beyond an image's edge: the nearest position, so that an area of one color is the same
up to the edge. Those of codecs of one rate read zeros."""


def exact(x: Tensor) -> torch.autocast:
    """A context in float32 even where bf16 is on: for what adds large numbers up to small ones, on x's device.

    bf16 tells 256 from 258, but not from 257.
    """
    return torch.autocast(x.device.type, enabled=False)


class ResidualBlock(nn.Module):
    """x + conv3x3(relu(conv3x3(relu(x)))), He et al. 2016 (arXiv 1603.05027), without normalization.

    ``leak`` is the slope of relu below zero; ``padding`` what is read beyond the edge; ``inside`` the channels between
    both convolutions, by default ``width``.
    """

    def __init__(
        self, width: int, leak: float = 0.0, padding: Literal["zeros", "replicate"] = "zeros", inside: int = 0
    ) -> None:
        super().__init__()
        self.leak = leak
        self.conv1 = nn.Conv2d(width, inside or width, 3, padding=1, padding_mode=padding)
        self.conv2 = nn.Conv2d(inside or width, width, 3, padding=1, padding_mode=padding)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.rectified(self.conv1(self.rectified(x))))
        return x + y

    def rectified(self, x: Tensor) -> Tensor:
        """relu, or where it leaks, leaky relu."""
        return F.leaky_relu(x, self.leak) if self.leak else F.relu(x)


class Analysis(nn.Module):
    """Image to latent before quantization.

    ::

                             ┌── linear 1x1 ───────────────────────┐
        x ── 8x8 to channels ┤                                     + ── y
                             └── stem 1x1 ── blocks ── head 1x1 ───┘

    x: (B, 3, 8h, 8w) in [-1, 1]; y: (B, C, h, w).
    """

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.linear = nn.Conv2d(BLOCK_CHANNELS, channels, 1)
        self.stem = nn.Conv2d(BLOCK_CHANNELS, width, 1)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(depth)))
        self.head = nn.Conv2d(width, channels, 1)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        blocks = F.pixel_unshuffle(x, BLOCK)
        features = self.blocks(self.stem(blocks))
        with exact(x):
            y: Tensor = self.linear(blocks) + self.head(features.float())
        return y


class ConditionalAnalysis(nn.Module):
    """An analysis whose last stage depends on the operating point; all before it is the same for every one.

    ::

                             ┌──────────────────────────────────── linear(q) ───┐
        x ── 8x8 to channels ┤                                                  + ── y
                             └── stem 1x1 ── blocks ── (adapter) ── head(q) ────┘

    ``forward`` gives what both paths end in, :meth:`at` the latent at any operating point. ``adapter``: the channels
    inside each of the ``ADAPTER_BLOCKS`` residual blocks that change the features of streams for machines; 0 for none.
    """

    def __init__(self, channels: int, width: int, depth: int, anchors: int, adapter: int = 0) -> None:
        super().__init__()
        self.linear = AnchorLinear(anchors, BLOCK_CHANNELS, channels)
        self.stem = nn.Conv2d(BLOCK_CHANNELS, width, 1)
        self.blocks = nn.Sequential(*(ResidualBlock(width, LEAK, PADDING) for _ in range(depth)))
        count = ADAPTER_BLOCKS if adapter else 0
        self.adapter = nn.Sequential(*(ResidualBlock(width, LEAK, PADDING, adapter) for _ in range(count)))
        for name, parameter in self.adapter.named_parameters():
            if name.endswith("conv2.bias"):
                nn.init.zeros_(parameter)  # it begins as nothing
        self.head = AnchorLinear(anchors, width, channels)

    def forward(self, x: Tensor, machines: bool = False) -> Tensor:
        """(B, 192 + width, h, w) float32 of x (B, 3, 8h, 8w) in [-1, 1]: pixels, then features."""
        blocks = F.pixel_unshuffle(x, BLOCK)
        features = self.blocks(self.stem(blocks))
        if machines:
            features = self.adapter(features)
        return torch.cat([blocks.float(), features.float()], 1)

    def at(self, found: Tensor, q: Tensor) -> Tensor:
        """Latent (B, C, h, w) before quantization, of what ``forward`` gave, at operating points (B,)."""
        pixels, features = found.float().tensor_split([BLOCK_CHANNELS], 1)
        with exact(found):
            y: Tensor = self.linear(pixels, q) + self.head(features, q)
        return y

    def latent(self, x: Tensor, q: Tensor) -> Tensor:
        """Latent (B, C, h, w) of x (B, 3, 8h, 8w), or of one image for all q (B,), which are of one kind."""
        return self.at(self(x, bool(q[0] >= POINTS)).expand(len(q), -1, -1, -1), q)


class Synthesis(nn.Module):
    """Latent to image, the mirror of :class:`Analysis`.

    y: (B, C, h, w); returns (B, 3, 8h, 8w), about [-1, 1], not clipped.
    """

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.linear = nn.Conv2d(channels, BLOCK_CHANNELS, 1)
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(depth)))
        self.head = nn.Conv2d(width, BLOCK_CHANNELS, 1)
        nn.init.zeros_(self.head.weight)

    def forward(self, y: Tensor) -> Tensor:
        return self.pixels(y, self.blocks(self.stem(y)))

    def pixels(self, y: Tensor, features: Tensor) -> Tensor:
        """The sum of both paths, 192 channels as 8x8 pixels."""
        with exact(y):
            return F.pixel_shuffle(self.linear(y) + self.head(features.float()), BLOCK)


def start_from_components(
    analysis: Analysis | ConditionalAnalysis,
    synthesis: Synthesis | ConditionalSynthesis,
    blocks: Tensor,
    spread: Tensor,
    step: float,
) -> None:
    """Set both linear parts, at every operating point, to the principal components of 8x8 blocks.

    Parameters
    ----------
    blocks : Tensor
        (n, 192), 8x8 blocks of images in [-1, 1], as ``pixel_unshuffle`` lays them out.
    spread : Tensor
        (C,), upper bound of each latent channel's standard deviation, in steps between centers.
    step : float
        What a component is divided by, in orthonormal units, or more where its deviation would exceed its
        spread: the reverse water-filling of a Gaussian source.
    """
    channels = analysis.linear.out_channels
    mean = blocks.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((blocks - mean).T.double()))
    basis = vectors.flip(1)[:, :channels].float()  # (192, C), largest variance first
    deviation = values.flip(0)[:channels].clamp(min=1e-6).sqrt().float()
    scale = torch.clamp(deviation / spread, min=step)
    set_layer(analysis.linear, (basis / scale).T, -(mean @ basis) / scale)
    set_layer(synthesis.linear, basis * scale, mean)


@torch.no_grad()
def set_layer(layer: nn.Conv2d | AnchorLinear, weight: Tensor, bias: Tensor) -> None:
    """Set a 1x1 layer to a matrix (D, C) and a vector (D,), at every anchor."""
    layer.weight.copy_(weight if isinstance(layer, AnchorLinear) else weight[:, :, None, None])
    layer.bias.copy_(bias)  # type: ignore[union-attr]


class ConditionalSynthesis(nn.Module):
    """A synthesis that depends on the operating point: both 1x1 layers, and a gain of each block's output.

    ::

        y ┬───────────────────────────── linear(q) ────────────────────────────────┐
          └ stem + bias(q) ── blocks: x + (1 + gain(q)) conv(relu(conv(relu(x)))) ── head(q) + ── channels to 8x8

    y: (B, C, h, w); returns (B, 3, 8h, 8w), about [-1, 1], not clipped.
    """

    def __init__(self, channels: int, width: int, depth: int, anchors: int, kinds: int = 1) -> None:
        super().__init__()
        self.linear = AnchorLinear(anchors, channels, BLOCK_CHANNELS)
        self.stem = nn.Conv2d(channels, width, 3, padding=1, padding_mode=PADDING)
        self.bias = AnchorVectors(anchors, width, kinds)
        self.blocks = nn.Sequential(*(ResidualBlock(width, LEAK, PADDING) for _ in range(depth)))
        self.gains = AnchorVectors(anchors, width * depth, kinds)
        self.head = AnchorLinear(anchors, width, BLOCK_CHANNELS)

    def forward(self, y: Tensor, q: Tensor) -> Tensor:
        x = self.stem(y) + per_channel(self.bias(q))
        for block, gain in zip(self.blocks, self.gains(q).chunk(len(self.blocks), 1), strict=True):
            x = x + (1 + per_channel(gain)) * (block(x) - x)
        with exact(y):
            return F.pixel_shuffle(self.linear(y.float(), q) + self.head(x.float(), q), BLOCK)
