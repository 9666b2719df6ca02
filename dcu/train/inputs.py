"""What networks are trained on: a codec's latents; for comparison its decoded images, or the images themselves."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dcu.codec import Codec, analysis_input
from dcu.nets.operating_point import with_point
from dcu.nets.rgb import to_input
from dcu.train.views import spread


@torch.no_grad()
def network_input(codec: Codec, input: str, views: Tensor, points: Tensor, planes: int = 0) -> Tensor:
    """What a network gets of views (B, 8h, 8w, 3) uint8 at operating points (B,).

    Their latent (B, C, h, w), with ``planes`` that tell the operating point, or pixels (B, 3, 8h, 8w). The latent is
    that of their files, but for symbols on a border where bf16 is on.
    """
    if input == "original":
        return to_input(views).contiguous(memory_format=torch.channels_last)
    latent = latent_of(codec, symbols_of(codec, views, points), points)
    if input == "latent":
        return with_point(latent, points, planes, codec.kinds)
    return rebuilt_input(codec, latent, points)


@torch.no_grad()
def symbols_of(codec: Codec, views: Tensor, points: Tensor) -> Tensor:
    """Symbols (B, C, h, w) of views (B, 8h, 8w, 3) uint8 at operating points (B,)."""
    x = analysis_input(views).contiguous(memory_format=torch.channels_last)
    return codec.coding.symbols(codec.coding.kept(codec.analysis(x).float()), points)


def latent_of(codec: Codec, symbols: Tensor, points: Tensor) -> Tensor:
    """Latent (B, C, h, w) float32 of symbols (B, C, h, w) at operating points (B,)."""
    return codec.coding.latent(symbols, points).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def rebuilt(codec: Codec, latent: Tensor, points: Tensor) -> Tensor:
    """The images that a codec rebuilds from latents (B, C, h, w): (B, 8h, 8w, 3) in 0..255, float32."""
    images = codec.coding.synthesize(latent, points).float()
    return ((images + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1)


def rebuilt_input(codec: Codec, latent: Tensor, points: Tensor) -> Tensor:
    """What the RGB network gets, (B, 3, 8h, 8w), of the images that a codec rebuilds from latents (B, C, h, w)."""
    return to_input(rebuilt(codec, latent, points)).contiguous(memory_format=torch.channels_last)


def default_points(codec: Codec, batch: Tensor) -> Tensor:
    """A codec's default operating point for each of a batch, (B,)."""
    return torch.full((len(batch),), codec.point(None), device=batch.device)


def point_of(codec: Codec, number: int, count: int) -> Tensor:
    """The operating point (1,) at which one of ``count`` held-out images is measured: evenly over all of a codec's."""
    return torch.tensor([number * (codec.points - 1) // max(1, count - 1)])


def random_points(codec: Codec, count: int, rng: np.random.Generator) -> Tensor:
    """Random operating points (count,), spread over all that a codec has; of a codec of one rate nothing is drawn."""
    if codec.points == 1:
        return torch.zeros(count, dtype=torch.int64)
    return torch.from_numpy(spread(count, rng) * codec.points).long()
