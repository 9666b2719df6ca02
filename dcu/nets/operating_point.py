"""Parameters that depend on the operating point q: vectors and matrices between a few trained anchors.

Cui et al., arXiv 2003.02012: one set of convolutions serves every rate, with a gain per channel and rate.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dcu.geometry import POINTS


class AnchorVectors(nn.Module):
    """A vector of C numbers for each operating point, linear between A anchors evenly spaced over those of a kind.

    ::

        v(q) = (1 - t) a_i + t a_(i+1),   i + t = (q mod 64) (A - 1) / 63

    q: (B,) float; returns (B, C). ``kinds``: 1, or 2 with anchors of their own for machines, behind those for people.
    Starts at zero.
    """

    def __init__(self, anchors: int, channels: int, kinds: int = 1) -> None:
        super().__init__()
        self.kinds = kinds
        self.anchors = nn.Parameter(torch.zeros(kinds * anchors, channels))

    def forward(self, q: Tensor) -> Tensor:
        return between(self.anchors, q, self.kinds)

    @property
    def count(self) -> int:
        """A."""
        return len(self.anchors) // self.kinds


class AnchorLinear(nn.Module):
    """A linear layer of channels (a 1x1 convolution) whose weights are linear between A anchors, of every kind.

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


def with_point(latent: Tensor, q: Tensor, anchors: int, kinds: int = 1) -> Tensor:
    """A latent (B, C, h, w) with planes behind it that say at which operating point (B,) it is: (B, C + anchors, h, w).

    ::

        plane i = max(0, 1 - |(q mod 64) (A - 1) / 63 - i|),   A = anchors / kinds

    A 1x1 layer that reads them has a bias for each anchor, linear between them. Without anchors, the latent.
    """
    if not anchors:
        return latent
    planes = between(torch.eye(anchors, device=q.device), q, kinds).to(latent)[:, :, None, None]
    return torch.cat([latent, planes.expand(-1, -1, *latent.shape[2:])], 1).contiguous(
        memory_format=torch.channels_last
    )


def between(anchors: Tensor, q: Tensor, kinds: int = 1) -> Tensor:
    """Tensors (B, ...) at operating points (B,), linear between anchors (kinds * A, ...)."""
    count = len(anchors) // kinds
    kind = (q.float() / POINTS).floor()
    position = (q.float() - kind * POINTS) * ((count - 1) / (POINTS - 1))
    lower = position.floor().clamp(max=count - 2)
    share = (position - lower).view(-1, *[1] * (anchors.ndim - 1))
    first = (lower + (kind * count if kinds > 1 else 0)).long()
    return anchors[first].lerp(anchors[first + 1], share)


def per_channel(vectors: Tensor) -> Tensor:
    """(B, C) as (B, C, 1, 1), to be combined with features (B, C, h, w)."""
    return vectors[:, :, None, None]
