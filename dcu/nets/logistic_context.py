"""The context model of codecs with unbounded integer symbols: mean and scale of a logistic for each symbol.

Groups, passes and masks are those of :mod:`dcu.nets.context`. Each pass ends in two numbers per symbol instead of one
logit per level, so that a symbol may be any integer::

    f(s) ── masked conv 5x5 + bias(q) ── relu ── 1x1 ── relu ── 1x1 + offset(q) ──┬── log2 scale
    s ───── masked conv 5x5, each channel from itself ────────────────────────────┴── + ── mean

    f(s) = sign(s) log2(1 + |s|)
    p(s) = sigmoid((s + 1/2 - mean) / scale) - sigmoid((s - 1/2 - mean) / scale)
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dcu.nets.context import KERNEL, REACH, Pass, UnboundedGroup, schedule
from dcu.nets.operating_point import AnchorVectors, per_channel

LOG2_SCALES = (-4.5, 6.0)
"""log2 of the smallest and the largest scale, in symbols."""
SCALE_OF_DEVIATION = math.sqrt(3) / math.pi
"""Scale of a logistic over its standard deviation."""


class GroupContext(nn.Module):
    """Mean and log2 scale of the symbols of one group, from those of earlier groups and earlier passes of its own.

    Parameters
    ----------
    passes : sequence of Pass
        Those of this group; channels after it are not read.
    hidden : int
        Width of the two hidden layers of each pass.
    anchors, kinds : int
        Anchors of the biases of the first and the last layer, which depend on the operating point, for each kind.
    """

    mask: Tensor
    own_mask: Tensor

    def __init__(self, passes: Sequence[Pass], hidden: int, anchors: int, kinds: int = 1) -> None:
        super().__init__()
        before, channels = passes[0].first, passes[0].last
        count = channels - before
        self.passes, self.channels, self.count, self.hidden = tuple(passes), channels, count, hidden
        self.read = channels if len(passes) > 1 else before  # in one pass none of its own are known
        self.spatial = nn.Conv2d(channels, hidden * len(self.passes), KERNEL, padding=REACH)
        self.bias = AnchorVectors(anchors, hidden * len(self.passes), kinds)
        self.mix = nn.ModuleList(nn.Conv2d(hidden, hidden, 1) for _ in self.passes)
        self.out = nn.ModuleList(nn.Conv2d(hidden, 2 * count, 1, bias=False) for _ in self.passes)
        self.offset = nn.ModuleList(AnchorVectors(anchors, 2 * count, kinds) for _ in self.passes)
        for layer in self.out:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
        self.linear = nn.Parameter(torch.zeros(len(self.passes), count, KERNEL, KERNEL))
        known = [p.known(channels) for p in self.passes]
        mask = torch.cat([k.expand(hidden, -1, -1, -1) for k in known])
        self.register_buffer("mask", mask.float(), persistent=False)
        self.register_buffer("own_mask", torch.stack([k[before:] for k in known]).float(), persistent=False)

    def forward(self, symbols: Tensor, compressed: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log2 scale, each (B, count, h, w).

        Parameters
        ----------
        symbols, compressed : Tensor
            (B, channels, h, w), s and f(s).
        q : Tensor
            (B,), operating points.
        """
        height, width = symbols.shape[-2:]
        weight = (self.spatial.weight * self.mask)[:, : self.read]
        known = compressed[:, : self.read]
        hidden = F.conv2d(known, weight, self.spatial.bias, padding=REACH) + per_channel(self.bias(q))
        kernels = (self.linear * self.own_mask).transpose(0, 1).reshape(-1, 1, KERNEL, KERNEL)
        own = F.conv2d(symbols[:, -self.count :], kernels, padding=REACH, groups=self.count)
        own = own.unflatten(1, (self.count, len(self.passes)))
        parts = torch.relu(hidden).split(self.hidden, 1)
        total = symbols.new_zeros(len(symbols), 2 * self.count, height, width)
        mean = torch.zeros_like(total[:, : self.count])
        layers = zip(self.passes, parts, self.mix, self.out, self.offset, strict=True)
        for index, (p, features, mix, out, offset) in enumerate(layers):
            here = p.positions(height, width).to(total)
            total = total + (out(torch.relu(mix(features))) + per_channel(offset(q))) * here
            mean = mean + own[:, :, index] * here
        return total[:, : self.count].float() + mean.float(), total[:, self.count :].float()


class LogisticContext(nn.Module):
    """Bits of every symbol given the symbols decoded before it.

    Parameters
    ----------
    groups : sequence of UnboundedGroup
        Channel groups in the order of decoding.
    hidden, anchors, kinds : int
        As :class:`GroupContext` takes them.
    """

    def __init__(self, groups: Sequence[UnboundedGroup], hidden: int, anchors: int, kinds: int = 1) -> None:
        super().__init__()
        by_group: defaultdict[int, list[Pass]] = defaultdict(list)
        for p in schedule(groups):
            by_group[p.first].append(p)
        self.groups = nn.ModuleList(GroupContext(passes, hidden, anchors, kinds) for passes in by_group.values())

    def parts(self) -> list[GroupContext]:
        """The contexts of the groups, in the order of decoding."""
        return [group for group in self.groups if isinstance(group, GroupContext)]

    def forward(self, symbols: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log2 scale of the symbols (B, C, h, w) at operating points (B,), each (B, C, h, w)."""
        compressed = compress(symbols)
        parts = [group(symbols[:, : group.channels], compressed[:, : group.channels], q) for group in self.parts()]
        mean, log2_scale = (torch.cat(each, 1) for each in zip(*parts, strict=True))
        scale: Tensor = Bounded.apply(log2_scale)  # type: ignore[no-untyped-call]
        return mean, scale

    def begin_at_deviations(self, deviations: Tensor) -> None:
        """Set the scales to those of symbols with these standard deviations, (anchors, C), whatever their context."""
        log2_scales = torch.log2(deviations * SCALE_OF_DEVIATION).clamp(*LOG2_SCALES)
        first = 0
        for group in self.parts():
            for offset in group.offset:
                assert isinstance(offset, AnchorVectors)
                with torch.no_grad():
                    offset.anchors[:, group.count :] = log2_scales[:, first : first + group.count]
            first += group.count


def compress(symbols: Tensor) -> Tensor:
    """f(s) = sign(s) log2(1 + |s|)."""
    return torch.where(symbols >= 0, torch.log2(1 + symbols.clamp(min=0)), -torch.log2(1 - symbols.clamp(max=0)))


class Bounded(torch.autograd.Function):
    """log2 of a scale, clamped to ``LOG2_SCALES``; outside, only gradients that lead back pass.

    Without the latter, what is certain would grow more certain without end, and could not be unlearned.
    """

    @staticmethod
    def forward(ctx: Any, log2_scale: Tensor) -> Tensor:
        ctx.save_for_backward(log2_scale)
        return log2_scale.clamp(*LOG2_SCALES)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (log2_scale,) = ctx.saved_tensors
        smallest, largest = LOG2_SCALES
        leads_out = ((log2_scale < smallest) & (gradient > 0)) | ((log2_scale > largest) & (gradient < 0))
        return gradient.masked_fill(leads_out, 0.0)


def logistic_bits(values: Tensor, mean: Tensor, log2_scale: Tensor) -> Tensor:
    """-log2 p(value), elementwise.

    With a, b = (v +- 1/2 - mean) / scale: p = sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(-1 / scale)).
    """
    inverse = torch.exp2(-log2_scale)
    upper, lower = (values - mean + 0.5) * inverse, (values - mean - 0.5) * inverse
    nats = F.softplus(-upper) + F.softplus(lower) - torch.log(-torch.expm1(-inverse))
    return nats / math.log(2.0)
