"""Integer probability tables and context, to and from the arithmetic coder; exact on every machine.

The context model of :mod:`dcu.nets.context` in fixed point: values and activations with 8 fractional bits, weights
with 12, sums with 20. All of them are integers held in float64, and every sum stays below 2^53, so that no order of
summation, number of threads or machine can change a bit of it (the idea of Cool-Chic's fixed-point ARM); the compiled
coder (`src/`) takes them in 32 bits where they fit, and codes a tile in one call. The same tables in PyTorch
(:meth:`EntropyCoder.all_tables`) are for comparison, for entropies, and for torchac::

    value      v = round(2^8 center)
    hidden     a = clip(floor((W v + b + 2^11) / 2^12), 0, 2^20)            twice
    logit      z = floor((W a + b + 2^11) / 2^12)                           in units of 2^-8 nat
    frequency  f_j = exp_table[min(max_k z_k - z_j, 4095)]                  exp_table[d] = round(2^16 exp(-d / 2^8))
    cumulative F_i = floor((2^16 - L) sum_{j<i} f_j / sum_j f_j) + i        strictly increasing, F_L = 2^16
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dcu.bitstream import TILE
from dcu.entropy import _native
from dcu.entropy.backend import TableCoder, chosen_coder
from dcu.errors import InvalidInputError, UnavailableError
from dcu.nets.context import MOST_CHANNELS, REACH, ContextModel, Group, Pass, schedule

VALUE_BITS = 8
WEIGHT_BITS = 12
TABLE_BITS = 16
CLIP = 2**20
EXP_SIZE = 4096
BLOCK = 2048
"""Positions whose neighbourhoods are in memory at once."""

Layers = tuple[tuple[Tensor, Tensor], ...]
"""Integers of one pass: three layers as (out, in) matrices and (out,) biases, float64 holding integers."""


def integer_tensors(context: ContextModel) -> dict[str, Tensor]:
    """A trained context model in fixed point: the int32 tensors that a codec's weights file holds.

    ``groups`` (G, 3): channels, levels, passes; ``exp`` (4096,); of each pass, PP = 00, 01, ...: ``PP.0.weight``
    (hidden, K) over the known offsets in the order of (channel, row, column), ``PP.1.weight`` (hidden, hidden),
    ``PP.2.weight`` (channels * levels, hidden), and ``PP.N.bias``.
    """
    groups = torch.tensor([[g.channels, g.levels, g.passes] for g in context.groups])
    exponent = -torch.arange(EXP_SIZE, dtype=torch.float64) / 2**VALUE_BITS
    tensors = {"groups": groups, "exp": (exponent.exp() * 2**TABLE_BITS).round()}
    channels = sum(g.channels for g in context.groups)
    weights = context.spatial.weight.split(context.hidden)
    biases = context.spatial.bias.split(context.hidden)  # type: ignore[union-attr]
    for index, p in enumerate(context.passes):
        mix, out = (layer.state_dict() for layer in (context.mix[index], context.out[index]))
        layers = (
            (weights[index].flatten(1)[:, p.known(channels).flatten()], biases[index]),
            (mix["weight"].flatten(1), mix["bias"]),
            (out["weight"].flatten(1), out["bias"]),
        )
        for number, (weight, bias) in enumerate(layers):
            tensors[f"{index:02}.{number}.weight"] = (weight.double() * 2**WEIGHT_BITS).round()
            tensors[f"{index:02}.{number}.bias"] = (bias.double() * 2 ** (WEIGHT_BITS + VALUE_BITS)).round()
    return {name: tensor.detach().to(torch.int32) for name, tensor in tensors.items()}


def float_context(tensors: dict[str, Tensor]) -> ContextModel:
    """The reverse of :func:`integer_tensors`: the context model in floating point, its weights as they were rounded."""
    groups = [Group(*row) for row in tensors["groups"].tolist()]
    context = ContextModel(groups, hidden=len(tensors["00.0.bias"])).requires_grad_(False)
    weights = context.spatial.weight.split(context.hidden)
    biases = context.spatial.bias.split(context.hidden)  # type: ignore[union-attr]
    for index, p in enumerate(context.passes):
        weight, bias = (
            [tensors[f"{index:02}.{n}.{part}"] / 2**unit for n in range(3)]
            for part, unit in (("weight", WEIGHT_BITS), ("bias", WEIGHT_BITS + VALUE_BITS))
        )
        weights[index][:, p.known(context.spatial.in_channels)] = weight[0]
        biases[index].copy_(bias[0])
        for number, layer in enumerate((context.mix[index], context.out[index]), 1):
            layer.weight.copy_(weight[number][:, :, None, None])  # type: ignore[operator]
            layer.bias.copy_(bias[number])  # type: ignore[operator]
    return context


class EntropyCoder:
    """Symbols to a payload and back, with the integer context model.

    Parameters
    ----------
    tensors : dict
        As :func:`integer_tensors` gives them.
    centers : Tensor
        (C, L) float32, the quantizer's centers.
    """

    def __init__(self, tensors: dict[str, Tensor], centers: Tensor) -> None:
        if tensors["groups"].ndim != 2 or len(tensors["groups"]) > MOST_CHANNELS:
            raise UnavailableError("the codec's context model has no groups of channels")
        self.groups = tuple(Group(*row) for row in tensors["groups"].tolist())
        self.channels = sum(g.channels for g in self.groups)
        self.largest = max(g.levels for g in self.groups)
        self.passes = schedule(self.groups)
        self.tensors = tensors
        self.exp = tensors["exp"].double()
        self.values = (centers.double() * 2**VALUE_BITS).round()
        self.weights: list[Layers] = [
            tuple((tensors[f"{i:02}.{n}.weight"].double(), tensors[f"{i:02}.{n}.bias"].double()) for n in range(3))
            for i in range(len(self.passes))
        ]
        self.check_shapes()
        self.check_exact()
        self.native = self.native_model()
        half = 2 ** (WEIGHT_BITS - 1)  # folded in, like the division by 2^12: powers of two keep every bit
        self.weights = [
            tuple((weight / 2**WEIGHT_BITS, (bias[:, None] + half) / 2**WEIGHT_BITS) for weight, bias in layers)
            for layers in self.weights
        ]

    def native_model(self) -> _native.ContextModel:
        """The context model as the compiled coder holds it."""

        def integers(tensor: Tensor) -> NDArray[np.int32]:
            array: NDArray[np.int32] = tensor.int().contiguous().numpy()
            return array

        passes = [
            (
                p.first,
                p.last,
                p.levels,
                integers(p.known(self.channels).nonzero()),
                [(integers(weight), integers(bias)) for weight, bias in layers],
            )
            for p, layers in zip(self.passes, self.weights, strict=True)
        ]
        return _native.ContextModel(passes, integers(self.values), integers(self.exp))

    def check_shapes(self) -> None:
        """Refuse weights of other shapes than the groups say: the compiled coder reads them as they must be."""
        hidden = len(self.weights[0][0][1])
        right = self.values.shape == (self.channels, self.largest) and self.exp.shape == (EXP_SIZE,)
        for p, layers in zip(self.passes, self.weights, strict=True):
            wide = (int(p.known(self.channels).sum()), hidden, hidden, (p.last - p.first) * p.levels)
            for before, after, (weight, bias) in zip(wide, wide[1:], layers, strict=False):
                right &= weight.shape == (after, before) and bias.shape == (after,)
        right &= len(self.exp) > 0 and float(self.exp[0]) == 2**TABLE_BITS == float(self.exp.abs().max())
        right &= TILE**2 * self.channels * (self.largest + 1) < 2**31  # torchac counts a tile's tables in 32 bits
        if not right or (self.exp < 0).any():
            raise UnavailableError("the codec's context model does not match its groups")

    def check_exact(self) -> None:
        """Refuse weights whose sums could leave the integers that float64 holds exactly."""
        largest = float(self.values.abs().max())
        if not largest < 2**31:
            raise UnavailableError("the codec's centers are out of range")
        for layers in self.weights:
            for number, (weight, bias) in enumerate(layers):
                bound = largest if number == 0 else float(CLIP)
                sums = weight.abs().sum(1) * bound + bias.abs()
                if not float(sums.max()) <= 2**52:
                    raise UnavailableError("the codec's context model is out of range")

    def grid(self, height: int, width: int) -> list[NDArray[np.int64]]:
        """The positions of each pass as the compiled coder wants them."""
        return [position_index(p, height, width).numpy() for p in self.passes]

    def encode(self, symbols: Tensor, instructions: str = "") -> bytes:
        """Payload of one tile of symbols, (C, h, w) uint8; ``instructions`` as in :meth:`decode`."""
        if other := chosen_coder():
            return self.encode_with(other, symbols)
        return self.native.encode(symbols.contiguous().numpy(), self.grid(*symbols.shape[1:]), instructions)

    def decode(self, payloads: Sequence[bytes], height: int, width: int, instructions: str = "") -> Tensor:
        """Symbols (B, C, h, w) uint8 of tiles of one size; raises InvalidInputError.

        ``instructions`` is one of :func:`instruction_sets`, or the fastest; all give the same symbols.
        """
        if other := chosen_coder():
            return torch.stack([self.decode_with(other, payload, height, width) for payload in payloads])
        threads = torch.get_num_threads()
        try:
            symbols = self.native.decode(payloads, self.grid(height, width), height, width, threads, instructions)
        except _native.BrokenPayload as error:
            raise InvalidInputError(f"the stream contains {error}") from error
        return torch.from_numpy(symbols)

    def pass_tables(self, number: int, padded: Tensor, height: int, width: int) -> Tensor:
        """Tables (N, largest + 1) of one pass in the order of coding, given the known values, (C, h + 4, w + 4) flat.

        Tables are int16 holding uint16; the last entry, 2^16, wraps to 0. Where a channel has fewer levels than the
        largest, the symbols that do not exist get one unit each.
        """
        p, parts = self.passes[number], []
        offsets = known_offsets(p, self.channels, height, width)
        for places in padded_index(p, height, width).split(BLOCK):
            index = offsets[:, None] + places[None, :]
            activation = padded.index_select(0, index.flatten()).view(index.shape)
            for depth, (weight, bias) in enumerate(self.weights[number]):
                activation = torch.addmm(bias, weight, activation).floor_()
                if depth < 2:
                    activation.clamp_(0, CLIP)
            parts.append(activation)
        row = torch.arange(2**TABLE_BITS - self.largest, 2**TABLE_BITS + 1).to(torch.int16)
        row[0] = 0
        tables = row.repeat((p.last - p.first) * sum(part.shape[1] for part in parts), 1)
        filled = cumulative(torch.cat(parts, 1).unflatten(0, (-1, p.levels)), self.exp, self.largest)
        tables[:, 1 : p.levels + 1] = filled.transpose(1, 2).flatten(0, 1)
        return tables

    def padded(self, symbols: Tensor) -> Tensor:
        """What symbols (C, h, w) stand for, with two zeros on each side, flat."""
        values: Tensor = self.values.gather(1, symbols.flatten(1).long()).view(symbols.shape)
        return F.pad(values, (REACH, REACH, REACH, REACH)).flatten()

    def all_tables(self, symbols: Tensor) -> tuple[Tensor, Tensor]:
        """Of one tile of symbols (C, h, w): tables (N, largest + 1) and the symbols (N,), in the order of coding."""
        height, width = symbols.shape[1:]
        padded = self.padded(symbols)
        tables = [self.pass_tables(number, padded, height, width) for number in range(len(self.passes))]
        chosen = [symbols[p.first : p.last].flatten(1)[:, position_index(p, height, width)] for p in self.passes]
        return torch.cat(tables), torch.cat([symbols.flatten() for symbols in chosen])

    def encode_with(self, coder: TableCoder, symbols: Tensor) -> bytes:
        """The payload of one tile by a coder that knows tables only."""
        tables, chosen = self.all_tables(symbols)
        return coder.encode(tables, chosen.to(torch.int16))

    def decode_with(self, coder: TableCoder, payload: bytes, height: int, width: int) -> Tensor:
        """The symbols (C, h, w) of one tile by a coder that knows tables only; each pass begins at the first symbol."""
        symbols = torch.zeros(self.channels, height * width, dtype=torch.uint8)
        padded = torch.zeros(self.channels, (height + 2 * REACH) * (width + 2 * REACH), dtype=torch.float64)
        tables = torch.empty(0, self.largest + 1, dtype=torch.int16)
        for number, p in enumerate(self.passes):
            known = len(tables)
            tables = torch.cat([tables, self.pass_tables(number, padded.flatten(), height, width)])
            found = coder.decode(tables, payload)[known:].view(p.last - p.first, -1).long()
            if (found >= p.levels).any():
                raise InvalidInputError("the stream contains a symbol that its codec does not have")
            symbols[p.first : p.last, position_index(p, height, width)] = found.to(torch.uint8)
            values = self.values[p.first : p.last].gather(1, found)
            padded[p.first : p.last, padded_index(p, height, width)] = values
        return symbols.view(-1, height, width)

    def macs(self, height: int, width: int) -> int:
        """Multiply-accumulates of the context model over a whole tile."""
        return sum(
            len(position_index(p, height, width)) * sum(weight.numel() for weight, _ in layers)
            for p, layers in zip(self.passes, self.weights, strict=True)
        )

    def cross_entropy(self, symbols: Tensor) -> float:
        """Bits that the tables themselves ask for, without the arithmetic coder's rounding."""
        tables, chosen = self.all_tables(symbols)
        whole = tables.long() & 0xFFFF
        whole[:, -1] = 2**TABLE_BITS
        frequency = whole.diff(dim=1).gather(1, chosen[:, None].long())
        return -float((frequency.double() / 2**TABLE_BITS).log2().sum())


def cumulative(logits: Tensor, exp_table: Tensor, largest: int) -> Tensor:
    """The entries 1 to L of 16-bit cumulative tables, (channels, L, N) int32, of integers held in float64.

    ``logits`` (channels, L, N), ``exp_table`` (4096,); each of ``largest`` symbols, L or more, gets one unit at least.
    """
    distance = (logits.amax(1, keepdim=True) - logits).clamp_(max=EXP_SIZE - 1).int()
    total = exp_table.index_select(0, distance.flatten()).view(distance.shape).cumsum(1)
    # the quotient is at least 2^-21 under the next integer and below 2^16: no rounding of it can reach that integer
    table: Tensor = (total * (2**TABLE_BITS - largest)).div_(total[:, -1:]).floor_()
    return table.add_(torch.arange(1, logits.shape[1] + 1)[:, None]).int()


@functools.lru_cache(maxsize=64)
def position_index(p: Pass, height: int, width: int) -> Tensor:
    """The positions of a pass as indices into a flattened (h, w) plane."""
    return p.positions(height, width).flatten().nonzero()[:, 0]


@functools.lru_cache(maxsize=64)
def padded_index(p: Pass, height: int, width: int) -> Tensor:
    """The same positions as indices into a flattened (h + 4, w + 4) plane."""
    where = position_index(p, height, width)
    index: Tensor = (where // width + REACH) * (width + 2 * REACH) + where % width + REACH
    return index


@functools.lru_cache(maxsize=64)
def known_offsets(p: Pass, channels: int, height: int, width: int) -> Tensor:
    """(K,): how far each known neighbour lies behind a position, in a flattened plane (C, h + 4, w + 4)."""
    rows, columns = height + 2 * REACH, width + 2 * REACH
    channel, y, x = p.known(channels).nonzero().T
    offsets: Tensor = channel * rows * columns + (y - REACH) * columns + x - REACH
    return offsets
