"""The context model: how probable each symbol is, given those already decoded.

Channels come in groups, one after the other; inside a group positions come in a few passes, each of which
doubles the known ones (the quincunx lattices of interlaced coding). All symbols of a pass are decoded at once,
from a 5x5 neighbourhood of what earlier passes gave: of *all* earlier groups, and of the earlier passes of its own.
Known offsets are the same at every position of a pass, so the model is a masked convolution
(van den Oord et al., arXiv 1601.06759) with one mask a pass.

::

    latent ── masked conv 5x5 ── relu ── 1x1 ── relu ── 1x1 ── logits of the pass's symbols

`dcu.entropy` evaluates the same weights in integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

REACH = 2
KERNEL = 2 * REACH + 1
MOST_CHANNELS = 192
"""Components of an 8x8 block."""


@dataclass(frozen=True)
class Group:
    """Channels that are coded together: how many, with how many centers each, in how many passes (1..5)."""

    channels: int
    levels: int
    passes: int

    def __post_init__(self) -> None:
        if not (1 <= self.channels <= MOST_CHANNELS and 2 <= self.levels <= 32 and 1 <= self.passes <= 5):
            raise ValueError(f"{self}: 1 to {MOST_CHANNELS} channels, 2 to 32 levels, 1 to 5 passes")


@dataclass(frozen=True)
class UnboundedGroup:
    """Channels that are coded together, their symbols any integers: how many, in how many passes (1..5).

    ``reach``: how far around a position is read, 1 (3x3) or 2 (5x5).
    """

    channels: int
    passes: int
    reach: int = REACH
    levels: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if not (1 <= self.channels <= MOST_CHANNELS and 1 <= self.passes <= 5 and 1 <= self.reach <= REACH):
            raise ValueError(f"{self}: 1 to {MOST_CHANNELS} channels, 1 to 5 passes, reach 1 or {REACH}")


@dataclass(frozen=True)
class Pass:
    """One decoding pass: the symbols of channels [first, last) at the positions of lattice ``level`` not known yet."""

    first: int
    last: int
    levels: int
    level: int
    start: bool
    reach: int = REACH

    def positions(self, height: int, width: int) -> Tensor:
        """(height, width) bool: the positions that this pass decodes."""
        here = lattice(self.level, height, width)
        return here if self.start else here & ~lattice(self.level + 1, height, width)

    def known(self, channels: int) -> Tensor:
        """(channels, 5, 5) bool: what is already decoded around a position of this pass."""
        mask = torch.zeros(channels, KERNEL, KERNEL, dtype=torch.bool)
        mask[: self.first] = True
        if not self.start:
            size = 16 + KERNEL
            row, column = (self.positions(size, size) & inside(size)).nonzero()[0].tolist()
            around = (slice(row - REACH, row + REACH + 1), slice(column - REACH, column + REACH + 1))
            mask[self.first : self.last] = lattice(self.level + 1, size, size)[around]
        near = torch.arange(KERNEL).sub(REACH).abs() <= self.reach
        return mask & near & near[:, None]


def inside(size: int) -> Tensor:
    """(size, size) bool: positions whose whole neighbourhood lies inside."""
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[REACH:-REACH, REACH:-REACH] = True
    return mask


def lattice(level: int, height: int, width: int) -> Tensor:
    """Quincunx lattice: all positions at level 0, every further level keeps half of them.

    (height, width) bool; level 1 is the checkerboard, level 2 the even rows and columns, and so on.
    """
    step = 2 ** (level // 2)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
    mask: Tensor = (rows % step == 0) & (columns % step == 0)
    if level % 2:
        mask &= (rows // step + columns // step) % 2 == 0
    return mask


def schedule(groups: Sequence[Group | UnboundedGroup]) -> list[Pass]:
    """The passes in the order of decoding."""
    passes = []
    firsts = accumulate((g.channels for g in groups), initial=0)
    for first, group in zip(firsts, groups, strict=False):
        reach = group.reach if isinstance(group, UnboundedGroup) else REACH
        for level in reversed(range(group.passes)):
            start = level == group.passes - 1
            passes.append(Pass(first, first + group.channels, group.levels, level, start, reach))
    return passes


class ContextModel(nn.Module):
    """Logits of every symbol given the symbols decoded before it.

    Parameters
    ----------
    groups : sequence of Group
        Channel groups in the order of decoding.
    hidden : int
        Width of the two hidden layers, of each pass.
    """

    mask: Tensor

    def __init__(self, groups: Sequence[Group], hidden: int) -> None:
        super().__init__()
        self.groups, self.hidden = tuple(groups), hidden
        self.passes = schedule(groups)
        channels = sum(g.channels for g in groups)
        self.spatial = nn.Conv2d(channels, hidden * len(self.passes), KERNEL, padding=REACH)
        self.mix = nn.ModuleList(nn.Conv2d(hidden, hidden, 1) for _ in self.passes)
        self.out = nn.ModuleList(nn.Conv2d(hidden, (p.last - p.first) * p.levels, 1) for p in self.passes)
        mask = torch.cat([p.known(channels).expand(hidden, -1, -1, -1) for p in self.passes])
        self.register_buffer("mask", mask.float(), persistent=False)

    def forward(self, latent: Tensor) -> list[Tensor]:
        """Logits of each group, (B, channels, levels, h, w), from the latent (B, C, h, w)."""
        height, width = latent.shape[-2:]
        hidden = F.relu(F.conv2d(latent, self.spatial.weight * self.mask, self.spatial.bias, padding=REACH))
        logits: dict[int, Tensor] = {}
        for p, features, mix, out in zip(self.passes, hidden.split(self.hidden, 1), self.mix, self.out, strict=True):
            here = out(F.relu(mix(features))).float()
            here = here.unflatten(1, (p.last - p.first, p.levels)) * p.positions(height, width).to(here)
            logits[p.first] = logits[p.first] + here if p.first in logits else here
        return list(logits.values())

    def bits(self, latent: Tensor, assignment: Tensor) -> Tensor:
        """Cross-entropy of the symbols in bits, (B,): sum over symbols of -log2 p(symbol | context).

        ``assignment``: (B, C, L, h, w), one-hot, as :class:`dcu.nets.quantizer.Quantizer` gives it.
        """
        total = latent.new_zeros(latent.shape[0], dtype=torch.float32)
        first = 0
        for group, logits in zip(self.groups, self(latent), strict=True):
            chosen = assignment[:, first : first + group.channels, : group.levels]
            total = total - (chosen * torch.log_softmax(logits, 2)).sum((1, 2, 3, 4))
            first += group.channels
        return total / torch.log(torch.tensor(2.0))
