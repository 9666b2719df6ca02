"""What networks are trained on: a codec's latents; for comparison its decoded images, or the images themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from dcu.codec import Codec, analysis_input
from dcu.nets.rgb import to_input


@torch.no_grad()
def network_input(codec: Codec, input: str, views: Tensor) -> Tensor:
    """What a network gets of views (B, 8h, 8w, 3) uint8: their latent (B, C, h, w), or pixels (B, 3, 8h, 8w).

    The latent is that of their files, but for symbols on a border where bf16 is on.
    """
    if input == "original":
        return to_input(views).contiguous(memory_format=torch.channels_last)
    x = analysis_input(views).contiguous(memory_format=torch.channels_last)
    points = default_points(codec, views)
    symbols = codec.coding.symbols(codec.coding.kept(codec.analysis(x).float()), points)
    latent = codec.coding.latent(symbols, points).contiguous(memory_format=torch.channels_last)
    return latent if input == "latent" else rebuilt_input(codec, latent)


@torch.no_grad()
def rebuilt_input(codec: Codec, latent: Tensor) -> Tensor:
    """What an RGB network gets, (B, 3, 8h, 8w), of the images that a codec rebuilds from latents (B, C, h, w)."""
    decoded = (
        ((codec.coding.synthesize(latent, default_points(codec, latent)).float() + 1) * 127.5).round().clamp(0, 255)
    )
    return to_input(decoded.permute(0, 2, 3, 1)).contiguous(memory_format=torch.channels_last)


def default_points(codec: Codec, batch: Tensor) -> Tensor:
    """A codec's default operating point for each of a batch, (B,)."""
    return torch.full((len(batch),), codec.point(None), device=batch.device)
