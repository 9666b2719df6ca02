"""What networks are trained on: a codec's latents; for comparison its decoded images, or the images themselves."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dcu.codec import Codec, analysis_input
from dcu.errors import UsageError
from dcu.geometry import POINTS
from dcu.nets.operating_point import with_point
from dcu.nets.rgb import to_input
from dcu.train.views import spread

Streams = Literal["people", "machines", "both"]
"""Which of a codec's streams a network is trained on; of a codec without streams for machines ``both`` are one kind."""


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
    return codec.coding.symbols(codec.coding.kept(analyzed(codec, x, points >= POINTS)), points)


def analyzed(codec: Codec, x: Tensor, machines: Tensor) -> Tensor:
    """What the analysis makes of x (B, 3, 8h, 8w), for the kind of stream of each, (B,) bool; float32."""
    if machines.any() and not machines.all():
        people, others = (analyzed(codec, x[chosen], machines[chosen]) for chosen in (~machines, machines))
        out = people.new_empty(len(x), *people.shape[1:])
        out[~machines], out[machines] = people, others
        return out
    found: Tensor = codec.analysis(x, machines=True) if machines.any() else codec.analysis(x)
    return found.float()


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


def default_point(codec: Codec) -> int:
    """A codec's default operating point; raises UsageError where its card states no rates."""
    try:
        return codec.point(None)
    except ValueError as error:
        raise UsageError(str(error)) from error


def default_points(codec: Codec, batch: Tensor) -> Tensor:
    """The same for each of a batch, (B,)."""
    return torch.full((len(batch),), default_point(codec), device=batch.device)


def points_of(codec: Codec, streams: Streams = "both") -> range:
    """The operating points that a codec has for these streams; raises UsageError where it has none for machines."""
    if streams == "machines" and codec.kinds == 1:
        raise UsageError(f'streams = "machines": {codec.name} makes no streams for machines')
    parts = {"people": slice(codec.points), "machines": slice(POINTS, None), "both": slice(None)}
    return codec.network_points[parts[streams]]


def point_of(points: range, number: int, count: int) -> Tensor:
    """The operating point (1,) at which one of ``count`` held-out images is measured: evenly over all."""
    return torch.tensor([points.start + number * (len(points) - 1) // max(1, count - 1)])


def random_points(points: range, count: int, rng: np.random.Generator) -> Tensor:
    """Random operating points (count,), spread over all; where there is one, nothing is drawn."""
    if len(points) == 1:
        return torch.full((count,), points.start)
    return torch.from_numpy(points.start + spread(count, rng) * len(points)).long()
