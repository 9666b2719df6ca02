"""Neural networks: nn.Modules only, importing nothing but torch."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)
MOST_BLOCKS = 64
"""Residual blocks one after the other that a network may have."""


def channels_last(module: M) -> M:
    """The module with its convolutions in the memory format that is fastest on CPUs."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module
