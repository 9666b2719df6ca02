"""Parameters that depend on the operating point q: vectors between a few trained anchors.

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
        position = q.float() * ((len(self.anchors) - 1) / (POINTS - 1))
        first = position.floor().clamp(max=len(self.anchors) - 2)
        return self.anchors[first.long()].lerp(self.anchors[first.long() + 1], (position - first)[:, None])


def per_channel(vectors: Tensor) -> Tensor:
    """(B, C) as (B, C, 1, 1), to be combined with features (B, C, h, w)."""
    return vectors[:, :, None, None]
