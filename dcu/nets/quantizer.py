"""Scalar quantization to learned centers with a soft backward pass.

Agustsson et al., Soft-to-Hard Vector Quantization, NeurIPS 2017 (arXiv 1704.00648); the scalar form of
Mentzer et al., CVPR 2018 (arXiv 1801.04260).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

SIGMA = 1.5
"""Sharpness of the soft assignment, for centers about 1 apart: its deviation, 1 / sqrt(2 sigma), is then 0.58 steps."""


class Quantizer(nn.Module):
    """Nearest of L learned centers, L a channel.

    ::

        symbol = argmin_j (y - c_j)^2                                   forward
        soft_j = exp(-sigma (y - c_j)^2) / sum_k exp(-sigma (y - c_k)^2)  backward

    Parameters
    ----------
    levels : sequence of int
        L of each of the C channels, 2..32.
    """

    centers: Tensor
    missing: Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        largest = max(levels)
        index = torch.arange(largest, dtype=torch.float32)
        counts = torch.tensor(levels, dtype=torch.float32)[:, None]
        self.centers = nn.Parameter(index - torch.div(counts, 2, rounding_mode="floor"))  # 0 is a center
        self.register_buffer("missing", index >= counts, persistent=False)

    def squared_distance(self, y: Tensor) -> Tensor:
        """(y - c_j)^2 of y (B, C, h, w) as (B, C, L, h, w); infinite where a channel has no such center."""
        distance = (y[:, :, None] - self.centers[None, :, :, None, None]).square()
        return distance.masked_fill(self.missing[None, :, :, None, None], torch.inf)

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Quantize for training.

        Returns
        -------
        latent : Tensor
            (B, C, h, w), the nearest centers; its gradient is that of the soft assignment.
        assignment : Tensor
            (B, C, L, h, w), one-hot; its gradient is that of the soft assignment.
        """
        assignment = soft_assignment(self.squared_distance(y.float()), 2)
        centers = self.centers.masked_fill(self.missing, 0.0)
        latent = (assignment * centers[None, :, :, None, None]).sum(2)
        return latent, assignment

    @torch.no_grad()
    def symbols(self, y: Tensor) -> Tensor:
        """(B, C, h, w) uint8: the index of the nearest center.

        Found between the midpoints of neighbouring centers: the distances to all of them would be L times as large.
        """
        centers, order = self.centers.masked_fill(self.missing, torch.inf).sort(stable=True)
        midpoints = (centers[:, 1:] + centers[:, :-1]) / 2
        place = torch.searchsorted(midpoints, y.transpose(0, 1).flatten(1).contiguous())
        symbols = order.gather(1, place).to(torch.uint8)
        return symbols.view(y.shape[1], y.shape[0], *y.shape[2:]).transpose(0, 1).contiguous()

    @torch.no_grad()
    def latent(self, symbols: Tensor) -> Tensor:
        """(B, C, h, w) float32: centers[symbols]."""
        channels, largest = self.centers.shape
        first = torch.arange(0, channels * largest, largest, dtype=torch.int32, device=symbols.device)[:, None, None]
        return self.centers.flatten().index_select(0, (symbols + first).flatten()).view(symbols.shape)


def soft_assignment(distance: Tensor, dim: int, sigma: float = SIGMA) -> Tensor:
    """One-hot: the least of squared distances along a dimension; its gradient is that of the soft assignment."""
    soft = torch.softmax(-sigma * distance, dim)
    hard = torch.zeros_like(soft).scatter_(dim, distance.min(dim, keepdim=True).indices, 1.0)
    return soft - soft.detach() + hard
