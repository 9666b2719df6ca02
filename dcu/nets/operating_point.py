"""Parameters that depend on the operating point q: vectors and matrices between a few trained anchors.

Cui et al., arXiv 2003.02012: one set of convolutions serves every rate, with a gain per channel and rate.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

POINTS = 64
"""Operating points 0..63, from the lowest rate to the highest."""


class AnchorVectors(nn.Module):
    """A vector of C numbers for each operating point, linear between A anchors evenly spaced over 0..63.

    ::

        v(q) = (1 - t) a_i + t a_(i+1),   i + t = q (A - 1) / 63

    q: (B,) float in 0..63; returns (B, C). Starts at zero.
    """

    def __init__(self, anchors: int, channels: int) -> None:
        super().__init__()
        self.anchors = nn.Parameter(torch.zeros(anchors, channels))

    def forward(self, q: Tensor) -> Tensor:
        return between(self.anchors, q)


class AnchorLinear(nn.Module):
    """A linear layer of channels (a 1x1 convolution) whose weights are linear between A anchors.

    x: (B, C, h, w), q: (B,); returns (B, D, h, w). ``weight`` is (A, D, C), ``bias`` (A, D); both start at zero.
    """

    def __init__(self, anchors: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(anchors, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(anchors, outputs))

    @property
    def out_channels(self) -> int:
        """D."""
        return self.bias.shape[1]

    def forward(self, x: Tensor, q: Tensor) -> Tensor:
        y = torch.baddbmm(between(self.bias, q)[:, :, None], between(self.weight, q), x.flatten(2))
        return y.view(*y.shape[:2], *x.shape[2:])


def between(anchors: Tensor, q: Tensor) -> Tensor:
    """Tensors (B, ...) at operating points (B,), linear between anchors (A, ...)."""
    position = q.float() * ((len(anchors) - 1) / (POINTS - 1))
    first = position.floor().clamp(max=len(anchors) - 2)
    share = (position - first).view(-1, *[1] * (anchors.ndim - 1))
    return anchors[first.long()].lerp(anchors[first.long() + 1], share)


def per_channel(vectors: Tensor) -> Tensor:
    """(B, C) as (B, C, 1, 1), to be combined with features (B, C, h, w)."""
    return vectors[:, :, None, None]
