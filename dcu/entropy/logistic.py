"""Unbounded symbols to a payload and back, with the integer form of :mod:`dcu.nets.logistic_context`; exact everywhere.

Fixed point as in :mod:`dcu.entropy.coder`: values and activations have 8 fractional bits, weights 12, sums 20::

    value      v = sign(s) compressed[|s|]                       compressed[m] = round(2^8 log2(1 + m)), m <= 4095
    bias       b(q) = floor((b_i (63 - r) + b_(i+1) r + 31) / 63)    63 i + r = q (A - 1), of A anchors
    hidden     a = clip(floor((W v + b + 2^11) / 2^12), 0, 2^20)             twice
    output     z = floor((W a + b(q) + 2^11) / 2^12)                         in units of 2^-8
    mean       m = clip(floor((2^4 z + L s + 2^7) / 2^8))                    in 1/16; L s: linear, own channel
    scale      i = clip(floor((6 z' + 27 2^8 + 2^7) / 2^8), 0, 63)           scale = 2^(i / 6 - 4.5)

A symbol s is coded as its offset from c = floor((m + 8) / 16) with the table of (i, m + 8 - 16 c): intervals of the
offsets -R..R, R = ceil(9 scale), then of an escape, after which come the sign and |s - c| - R - 1 in an
exponential-Golomb code of order 4, each bit in half of the range. Channels that ``coded`` leaves out at an operating
point are zero: they are neither coded nor read.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dcu.entropy import _native
from dcu.entropy.coder import CLIP, TABLE_BITS, VALUE_BITS, WEIGHT_BITS, padded_index, position_index
from dcu.errors import InvalidInputError, UnavailableError
from dcu.geometry import POINTS
from dcu.nets.context import REACH, Pass, UnboundedGroup, schedule
from dcu.nets.logistic_context import LOG2_SCALES, LogisticContext

SCALES, FRACTIONS, PER_OCTAVE = 64, 16, 6
COMPRESSED_SIZE = 4096
LARGEST_SYMBOL = 2**15 - 1
GOLOMB_ORDER = 4
HALVES = ((0, 2 ** (TABLE_BITS - 1)), (2 ** (TABLE_BITS - 1), 2**TABLE_BITS))
"""The intervals of a bit of the escape code."""

Ints = NDArray[np.int32]


def interval_tables() -> tuple[Ints, Ints]:
    """Radii (64,) of the scales, and where intervals end, of all scales and fractions one after the other."""
    scales = 2.0 ** (LOG2_SCALES[0] + np.arange(SCALES) / PER_OCTAVE)
    radii = np.ceil(9 * scales).astype(np.int32)
    ends = []
    for scale, radius in zip(scales, radii, strict=True):
        for fraction in range(FRACTIONS):
            mean = (fraction - FRACTIONS // 2) / FRACTIONS
            edges = np.arange(-radius, radius + 2) - 0.5 - mean
            below = np.exp(-np.logaddexp(0, -edges / scale))  # the logistic function
            inside = np.concatenate([np.diff(below), [below[0] + 1 - below[-1]]])
            share = np.cumsum(inside) / inside.sum() * (2**TABLE_BITS - len(inside))
            share[-1] = 2**TABLE_BITS - len(inside)
            ends.append(np.floor(share).astype(np.int32) + np.arange(1, len(inside) + 1, dtype=np.int32))
    return radii, np.concatenate(ends)


def integer_tensors(context: LogisticContext, coded: Tensor) -> dict[str, Tensor]:
    """A trained context model in fixed point, int32; a codec's weights file holds them in 16 bits where they fit.

    ``groups`` (G, 3): channels, passes, reach; ``coded`` (64 * kinds, C): whether a channel is coded at an operating
    point; ``compressed`` (4096,); ``radii`` and ``ends`` as :func:`interval_tables` gives them; of each pass, PP = 00,
    ...: ``PP.0.weight`` (hidden, K) over the known neighbors in the order of (channel, row, column), ``PP.0.bias``
    (kinds * anchors, hidden), ``PP.1.weight``, ``PP.1.bias``, ``PP.2.weight`` (2 channels, hidden), means first,
    ``PP.2.bias`` (kinds * anchors, 2 channels), ``PP.linear`` (channels, M) over the known neighbors in a symbol's own
    channel.
    """
    radii, ends = interval_tables()
    tensors: dict[str, Tensor] = {
        "groups": torch.tensor([[g.count, len(g.passes), g.passes[0].reach] for g in context.parts()]),
        "coded": coded.int(),
        "compressed": (2**VALUE_BITS * torch.log2(1 + torch.arange(COMPRESSED_SIZE, dtype=torch.float64))).round(),
        "radii": torch.from_numpy(radii),
        "ends": torch.from_numpy(ends),
    }
    one, unit = 2**WEIGHT_BITS, 2 ** (WEIGHT_BITS + VALUE_BITS)
    passes = [(group, index) for group in context.parts() for index in range(len(group.passes))]
    for number, (group, index) in enumerate(passes):
        known = group.passes[index].known(group.channels)
        rows = slice(index * group.hidden, (index + 1) * group.hidden)
        assert group.spatial.bias is not None
        mix, out, offset = (layer[index].state_dict() for layer in (group.mix, group.out, group.offset))
        linear = group.linear[index].flatten(1)[:, known[group.passes[index].first].flatten()]
        tensors |= {
            f"{number:02}.0.weight": group.spatial.weight[rows].flatten(1)[:, known.flatten()].double() * one,
            f"{number:02}.0.bias": (group.spatial.bias + group.bias.anchors)[:, rows].double() * unit,
            f"{number:02}.1.weight": mix["weight"].flatten(1).double() * one,
            f"{number:02}.1.bias": mix["bias"].double() * unit,
            f"{number:02}.2.weight": out["weight"].flatten(1).double() * one,
            f"{number:02}.2.bias": offset["anchors"].double() * unit,
            f"{number:02}.linear": linear.double() * one,
        }
    return {name: tensor.detach().round().to(torch.int32) for name, tensor in tensors.items()}


class LogisticCoder:
    """Symbols to a payload and back at any operating point.

    Parameters
    ----------
    tensors : dict
        As :func:`integer_tensors` gives them.

    Raises
    ------
    UnavailableError
        The tensors are not what their groups say, or leave the integers that are exact.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        try:
            self.groups = tuple(UnboundedGroup(*row) for row in tensors["groups"].tolist())
            self.channels = sum(group.channels for group in self.groups)
            self.passes = schedule(self.groups)
            self.tensors = tensors
            self.check()
            self.at(0)
        except (KeyError, ValueError, TypeError, RuntimeError, IndexError) as error:
            raise UnavailableError("the codec's context model does not match its groups") from error

    def check(self) -> None:
        """Refuse other shapes than the groups say, and weights whose sums would not be exact; raises ValueError."""
        hidden = self.tensors["00.0.weight"].shape[0]
        coded = self.tensors["coded"]
        if coded.shape not in ((POINTS, self.channels), (2 * POINTS, self.channels)):
            raise ValueError("coded")
        right = bool(((coded == 0) | (coded == 1)).all())
        right &= self.tensors["compressed"].shape == (COMPRESSED_SIZE,)
        right &= all(tensor.dtype == torch.int32 for tensor in self.tensors.values())
        for number, p in enumerate(self.passes):
            known = p.known(self.channels)
            wide = (int(known.sum()), hidden, hidden, 2 * (p.last - p.first))
            for layer, (before, after) in enumerate(pairwise(wide)):
                weight, bias = (self.tensors[f"{number:02}.{layer}.{part}"] for part in ("weight", "bias"))
                right &= weight.shape == (after, before) and bias.shape[-1] == after
                right &= bias.ndim == (1 if layer == 1 else 2) and bias.shape[0] >= 2
                right &= layer == 1 or (len(bias) % self.kinds == 0 and len(bias) >= 2 * self.kinds)
                sums = weight.double().abs().sum(1) * CLIP + bias.double().abs()
                right &= bool((sums <= 2**52).all())
            right &= self.tensors[f"{number:02}.linear"].shape == (p.last - p.first, int(known[p.first].sum()))
        if not right:
            raise ValueError("shapes")

    @functools.lru_cache(maxsize=POINTS)  # noqa: B019
    def at(self, q: int) -> _native.LogisticModel:
        """The context model of an operating point as the compiled coder holds it: 2 MB, built in 5 ms."""
        coded = self.coded(q)

        def integers(tensor: Tensor) -> Ints:
            array: Ints = tensor.to(torch.int32).contiguous().numpy()
            return array

        passes = []
        for number, p in enumerate(self.passes):
            known = p.known(self.channels).nonzero()
            read = coded[known[:, 0]]
            own = p.known(self.channels)[p.first].nonzero()
            here = coded[p.first : p.last]
            layers = [(weight.double(), bias.double()) for weight, bias in self.layers(number, q)]
            (first, bias), middle, (last, last_bias) = layers
            rows = here.repeat(2)
            passes.append(
                (
                    integers(p.first + here.nonzero()[:, 0]),
                    integers(known[read]),
                    [
                        (integers(first[:, read]), integers(bias)),
                        (integers(middle[0]), integers(middle[1])),
                        (integers(last[rows]), integers(last_bias[rows])),
                    ],
                    integers(F.pad(own, (1, 0))),
                    integers(self.tensors[f"{number:02}.linear"][here]),
                )
            )
        tables = (integers(self.tensors[name]) for name in ("compressed", "radii", "ends"))
        return _native.LogisticModel(passes, self.channels, *tables)

    @property
    def kinds(self) -> int:
        """Of streams: 1, or 2 with those for machines, at operating points from 64 on."""
        return len(self.tensors["coded"]) // POINTS

    def coded(self, q: int) -> Tensor:
        """(C,) bool: the channels that are coded at an operating point."""
        return self.tensors["coded"][q].bool()

    def layers(self, number: int, q: int) -> list[tuple[Tensor, Tensor]]:
        """Weight and bias of each layer of a pass, int32; the biases of the outer two at an operating point."""
        names = [f"{number:02}.{layer}" for layer in range(3)]
        first, middle, last = ((self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]) for name in names)
        at_point = (between(bias, q, self.kinds) for bias in (first[1], last[1]))
        return [(first[0], next(at_point)), middle, (last[0], next(at_point))]

    def grid(self, height: int, width: int) -> list[NDArray[np.int64]]:
        """The positions of each pass as the compiled coder wants them."""
        return [position_index(p, height, width).numpy() for p in self.passes]

    def encode(self, symbols: Tensor, q: int, instructions: str = "") -> bytes:
        """Payload of one tile of symbols, (C, h, w) int16, at operating point q."""
        return self.at(q).encode(symbols.contiguous().numpy(), self.grid(*symbols.shape[1:]), instructions)

    def decode(self, payloads: Sequence[bytes], height: int, width: int, q: int, instructions: str = "") -> Tensor:
        """Symbols (B, C, h, w) int16 of tiles of one size; raises InvalidInputError."""
        threads = torch.get_num_threads()
        try:
            symbols = self.at(q).decode(payloads, self.grid(height, width), height, width, threads, instructions)
        except _native.BrokenPayload as error:
            raise InvalidInputError(f"the stream contains {error}") from error
        return torch.from_numpy(symbols)

    def group_bytes(self, payload: bytes, height: int, width: int, q: int) -> list[int]:
        """Bytes of one tile's payload that each group of channels takes, within one; raises InvalidInputError."""
        try:
            lengths = self.at(q).lengths(payload, self.grid(height, width), height, width)
        except _native.BrokenPayload as error:
            raise InvalidInputError(f"the stream contains {error}") from error
        last = np.cumsum([group.passes for group in self.groups]) - 1
        return [int(count) for count in np.diff([lengths[i] for i in last], prepend=0)]

    def predictions(self, symbols: Tensor, q: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Of each pass with coded channels: its symbols, means in 1/16 and scale indices, each (channels, N) int64.

        The same as the compiled coder computes, in PyTorch, in integers held in float64.
        """
        coded = self.coded(q)
        height, width = symbols.shape[1:]
        kept = symbols.long() * coded[:, None, None]
        magnitude = kept.abs().clamp(max=COMPRESSED_SIZE - 1)
        values = F.pad(kept.sign() * self.tensors["compressed"].long()[magnitude], (REACH,) * 4).double()
        plain = F.pad(kept, (REACH,) * 4).double()
        found = []
        for number, p in enumerate(self.passes):
            places, here = position_index(p, height, width), coded[p.first : p.last]
            if not len(places) or not here.any():
                continue
            activation = neighborhoods(values, p, p.known(self.channels), height, width)
            for layer, (weight, bias) in enumerate(self.layers(number, q)):
                total = torch.addmm(bias.double()[:, None], weight.double(), activation)
                activation = ((total + 2 ** (WEIGHT_BITS - 1)) / 2**WEIGHT_BITS).floor()
                if layer < 2:
                    activation = activation.clamp(0, CLIP)
            mean, scale = activation.long().chunk(2)
            mask = p.known(self.channels)[p.first]
            for channel in range(p.last - p.first):
                own = neighborhoods(plain[p.first + channel][None], p, mask[None], height, width)
                weight = self.tensors[f"{number:02}.linear"][channel].double()
                mean[channel] = mean[channel] * 16 + (weight @ own).long()
            mean = ((mean + 128) // 256).clamp(-FRACTIONS * LARGEST_SYMBOL, FRACTIONS * LARGEST_SYMBOL)
            first = -int(LOG2_SCALES[0] * PER_OCTAVE) * 2**VALUE_BITS
            scale = ((PER_OCTAVE * scale + first + 128) // 256).clamp(0, SCALES - 1)
            chosen = symbols[p.first : p.last].flatten(1)[:, places].long()
            found.append((chosen[here], mean[here], scale[here]))
        return found

    def intervals(self, symbols: Tensor, q: int) -> list[tuple[int, int]]:
        """The interval [start, end) of [0, 2^16) of everything that a payload codes, in order."""
        radii, ends = self.tensors["radii"].tolist(), self.tensors["ends"].tolist()
        sizes = np.repeat([2 * radius + 2 for radius in radii], FRACTIONS)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        found: list[tuple[int, int]] = []
        for chosen, means, scales in self.predictions(symbols, q):
            for s, mean, scale in zip(*(each.flatten().tolist() for each in (chosen, means, scales)), strict=True):
                center = (mean + FRACTIONS // 2) // FRACTIONS
                table = starts[scale * FRACTIONS + mean + FRACTIONS // 2 - FRACTIONS * center]
                offset, radius = s - center, radii[scale]
                index = offset + radius if abs(offset) <= radius else 2 * radius + 1
                found.append((ends[table + index - 1] if index else 0, ends[table + index]))
                if abs(offset) > radius:
                    bits = [offset < 0, *golomb_bits(abs(offset) - radius - 1)]
                    found += [
                        (2 ** (TABLE_BITS - 1), 2**TABLE_BITS) if bit else (0, 2 ** (TABLE_BITS - 1)) for bit in bits
                    ]
        return found

    def cross_entropy(self, symbols: Tensor, q: int) -> float:
        """Bits that the tables themselves ask for, without the arithmetic coder's rounding."""
        widths = np.array([end - start for start, end in self.intervals(symbols, q)], dtype=np.float64)
        return float(-np.log2(widths / 2**TABLE_BITS).sum())

    def macs(self, height: int, width: int, q: int) -> int:
        """Multiply-accumulates of the context model over a whole tile."""
        coded = self.coded(q)
        total = 0
        for number, p in enumerate(self.passes):
            here = int(coded[p.first : p.last].sum())
            if not here:
                continue
            read = int(coded[p.known(self.channels).nonzero()[:, 0]].sum())
            hidden = self.tensors[f"{number:02}.1.weight"].shape[0]
            own = self.tensors[f"{number:02}.linear"].shape[1]
            total += len(position_index(p, height, width)) * (hidden * (read + hidden + 2 * here) + own * here)
        return total


def between(anchors: Tensor, q: int, kinds: int = 1) -> Tensor:
    """Integer vectors (kinds * A, N), evenly spaced over the points of each kind, at one of them, (N,) int32."""
    kind, point = divmod(q, POINTS)
    anchors = anchors[kind * len(anchors) // kinds : (kind + 1) * len(anchors) // kinds]
    index, rest = divmod(point * (len(anchors) - 1), POINTS - 1)
    here, following = anchors[index].long(), anchors[min(index + 1, len(anchors) - 1)].long()
    return ((here * (POINTS - 1 - rest) + following * rest + (POINTS - 1) // 2) // (POINTS - 1)).int()


def golomb_bits(number: int) -> list[bool]:
    """The exponential-Golomb code of order 4 of a number, 0 or more."""
    bits, prefix = GOLOMB_ORDER, []
    while number >> bits:
        number -= 1 << bits
        bits += 1
        prefix.append(True)
    return [*prefix, False, *(bool(number >> i & 1) for i in reversed(range(bits)))]


def neighborhoods(planes: Tensor, p: Pass, mask: Tensor, height: int, width: int) -> Tensor:
    """What is known around each position of a pass, (K, N), of padded planes (C, h + 4, w + 4); ``mask`` (C, 5, 5)."""
    rows, columns = height + 2 * REACH, width + 2 * REACH
    channel, row, column = mask.nonzero().T
    offsets = channel * rows * columns + (row - REACH) * columns + column - REACH
    index = offsets[:, None] + padded_index(p, height, width)[None, :]
    return planes.flatten().index_select(0, index.flatten()).view(index.shape)
