"""Wide 1x1 convolutions as matrix products, for inference on CPUs.

oneDNN, which computes PyTorch's convolutions, sums many channels in parts that depend on the number of threads. Matrix
products, which MKL computes, are as fast, and mostly give the same bytes on any number of threads.
"""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn
from torch.nn import functional as F

M = TypeVar("M", bound=nn.Module)

SUMMED_AT_ONCE = 192
"""Channels up to which oneDNN's sums were seen to be the same on any number of threads (2 to 8, with AVX2)."""


class Pointwise(nn.Conv2d):
    """A 1x1 convolution: of (B, h, w, in), as images are in memory, with (out, in)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias).permute(0, 3, 1, 2)


def wide(part: nn.Conv2d) -> bool:
    """Whether a convolution is 1x1, at every position, and of many channels."""
    return part.kernel_size == part.stride == (1, 1) and part.in_channels > SUMMED_AT_ONCE


def as_products(module: M) -> M:
    """A copy of a network, with the same weights in memory, whose wide 1x1 convolutions are matrix products."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    module = copy.deepcopy(module, shared)
    for part in module.modules():
        if type(part) is nn.Conv2d and wide(part):
            part.__class__ = Pointwise
    return module
