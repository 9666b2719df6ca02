"""Integer probability tables and context, to and from the arithmetic coder; exact on every machine.

The context model of :mod:`dcu.nets.context` in fixed point: values and activations with 8 fractional bits, weights
with 12, sums with 20. All of them are integers held in float64, and every sum stays below 2^53, so that no order of
summation, number of threads or machine can change a bit of it (the idea of Cool-Chic's fixed-point ARM)::

    value      v = round(2^8 centre)
    hidden     a = clip(floor((W v + b + 2^11) / 2^12), 0, 2^20)            twice
    logit      z = floor((W a + b + 2^11) / 2^12)                           in units of 2^-8 nat
    frequency  f_j = exp_table[min(max_k z_k - z_j, 4095)]                  exp_table[d] = round(2^16 exp(-d / 2^8))
    cumulative F_i = floor((2^16 - L) sum_{j<i} f_j / sum_j f_j) + i        strictly increasing, F_L = 2^16
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

from dcu import rangecoder
from dcu.errors import BrokenInputError, UnavailableError
from dcu.nets.context import REACH, ContextModel, Group, Pass, schedule

VALUE_BITS = 8
WEIGHT_BITS = 12
TABLE_BITS = 16
CLIP = 2**20
EXP_SIZE = 4096
SMALL_TILE = 64 * 64


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
    centres : Tensor
        (C, L) float32, the quantizer's centres.
    """

    def __init__(self, tensors: dict[str, Tensor], centres: Tensor) -> None:
        self.groups = tuple(Group(*row) for row in tensors["groups"].tolist())
        self.channels = sum(g.channels for g in self.groups)
        self.largest = max(g.levels for g in self.groups)
        self.passes = schedule(self.groups)
        self.tensors = tensors
        self.exp = tensors["exp"].double()
        self.values = (centres.double() * 2**VALUE_BITS).round()
        self.weights: list[Layers] = [
            tuple((tensors[f"{i:02}.{n}.weight"].double(), tensors[f"{i:02}.{n}.bias"].double()) for n in range(3))
            for i in range(len(self.passes))
        ]
        self.check_exact()
        half = 2 ** (WEIGHT_BITS - 1)  # folded in, like the division by 2^12: powers of two keep every bit
        self.weights = [
            tuple((weight / 2**WEIGHT_BITS, (bias + half) / 2**WEIGHT_BITS) for weight, bias in layers)
            for layers in self.weights
        ]

    def check_exact(self) -> None:
        """Refuse weights whose sums could leave the integers that float64 holds exactly."""
        largest = float(self.values.abs().max())
        for layers in self.weights:
            for number, (weight, bias) in enumerate(layers):
                bound = largest if number == 0 else float(CLIP)
                sums = weight.abs().sum(1) * bound + bias.abs()
                if not float(sums.max()) <= 2**52:
                    raise UnavailableError("the codec's context model is out of range")

    def tables(self, p: Pass, layers: Layers, padded: Tensor) -> Tensor:
        """Cumulative tables of a pass's symbols, (channels * positions, L + 1) int16 holding uint16.

        ``padded``: (C, h + 4, w + 4) float64, values of what is known so far, zero elsewhere.
        """
        height, width = padded.shape[1] - 2 * REACH, padded.shape[2] - 2 * REACH
        where = gather_index(p, self.channels, height, width)
        activation = padded.flatten().index_select(0, where.flatten()).view(where.shape)
        for number, (weight, bias) in enumerate(layers):
            activation = torch.addmm(bias, activation, weight.T).floor_()
            if number < 2:
                activation.clamp_(0, CLIP)
        logits = activation.unflatten(1, (p.last - p.first, p.levels)).transpose(0, 1).flatten(0, 1)
        return cumulative(logits, self.exp, self.largest)

    def encode(self, symbols: Tensor) -> bytes:
        """Payload of one tile of symbols, (C, h, w) uint8."""
        padded = F.pad(self.values_of(symbols), (REACH, REACH, REACH, REACH))
        tables, chosen = [], []
        for p, layers in zip(self.passes, self.weights, strict=True):
            tables.append(self.tables(p, layers, padded))
            here = symbols[p.first : p.last].flatten(1)[:, position_index(p, *symbols.shape[1:])]
            chosen.append(here.flatten())
        return rangecoder.encode(torch.cat(tables), torch.cat(chosen).to(torch.int16))

    def decode(self, payload: bytes, height: int, width: int) -> Tensor:
        """Symbols (C, h, w) uint8 of one tile. torchac cannot resume: each pass decodes what came before it again."""
        symbols = torch.zeros(self.channels, height * width, dtype=torch.uint8)
        padded = torch.zeros(self.channels, height + 2 * REACH, width + 2 * REACH, dtype=torch.float64)
        inner = padded[:, REACH : REACH + height, REACH : REACH + width]
        tables: list[Tensor] = []
        for p, layers in zip(self.passes, self.weights, strict=True):
            where = position_index(p, height, width)
            if not len(where):
                continue
            tables = [torch.cat([*tables, self.tables(p, layers, padded)])]
            count = (p.last - p.first) * len(where)
            new = rangecoder.decode(tables[0], payload)[-count:].view(-1, len(where))
            if int(new.max()) >= p.levels:
                raise BrokenInputError("the stream holds a symbol that its codec does not have")
            symbols[p.first : p.last, where] = new.to(torch.uint8)
            values = self.values[p.first : p.last].gather(1, new.long())
            inner[p.first : p.last, where // width, where % width] = values
        return symbols.view(-1, height, width)

    def macs(self, height: int, width: int) -> int:
        """Multiply-accumulates of the context model over a whole tile."""
        return sum(
            len(position_index(p, height, width)) * sum(weight.numel() for weight, _ in layers)
            for p, layers in zip(self.passes, self.weights, strict=True)
        )

    def values_of(self, symbols: Tensor) -> Tensor:
        """Fixed-point centre values of symbols (C, h, w), float64."""
        values: Tensor = self.values.gather(1, symbols.flatten(1).long())
        return values.view(symbols.shape)

    def cross_entropy(self, symbols: Tensor) -> float:
        """Bits that the tables themselves ask for, without the arithmetic coder's rounding."""
        padded = F.pad(self.values_of(symbols), (REACH, REACH, REACH, REACH))
        bits = 0.0
        for p, layers in zip(self.passes, self.weights, strict=True):
            tables = self.tables(p, layers, padded).long() & 0xFFFF
            tables[:, -1] = 2**TABLE_BITS
            here = symbols[p.first : p.last].flatten(1)[:, position_index(p, *symbols.shape[1:])]
            frequency = tables.diff(dim=1).gather(1, here.reshape(-1, 1).long())
            bits -= float((frequency.double() / 2**TABLE_BITS).log2().sum())
        return bits


def cumulative(logits: Tensor, exp_table: Tensor, largest: int) -> Tensor:
    """16-bit cumulative tables (N, largest + 1) from integers held in float64: logits (N, L), exp_table (4096,).

    Where L < largest the symbols that do not exist get one unit each. int16 holding uint16: the last entry, 2^16,
    wraps to 0, as torchac expects.
    """
    levels = logits.shape[1]
    distance = (logits.amax(1, keepdim=True) - logits).clamp_(max=EXP_SIZE - 1).long()
    total = exp_table.index_select(0, distance.flatten()).view(distance.shape).cumsum(1)
    tables = torch.zeros(len(logits), largest + 1, dtype=torch.float64)
    # the quotient is at least 2^-21 under the next integer and below 2^16: no rounding of it can reach that integer
    tables[:, 1 : levels + 1] = (total * (2**TABLE_BITS - largest)).div_(total[:, -1:]).floor_()
    tables[:, levels + 1 :] = 2**TABLE_BITS - largest
    return tables.add_(torch.arange(largest + 1)).to(torch.int32).to(torch.int16)


@functools.lru_cache(maxsize=64)
def position_index(p: Pass, height: int, width: int) -> Tensor:
    """The positions of a pass as indices into a flattened (h, w) plane."""
    return p.positions(height, width).flatten().nonzero()[:, 0]


def gather_index(p: Pass, channels: int, height: int, width: int) -> Tensor:
    """(positions, K): where each known neighbour lies in a flattened plane (C, h + 4, w + 4).

    Kept for tiles of up to 64x64 positions, where making it costs more than using it.
    """
    make = small_gather_index if height * width <= SMALL_TILE else small_gather_index.__wrapped__
    return make(p, channels, height, width)


@functools.lru_cache(maxsize=64)
def small_gather_index(p: Pass, channels: int, height: int, width: int) -> Tensor:
    """What :func:`gather_index` gives, kept."""
    where = position_index(p, height, width)
    row, stride = width + 2 * REACH, (height + 2 * REACH) * (width + 2 * REACH)
    base = where // width * row + where % width
    channel, y, x = p.known(channels).nonzero().T
    index: Tensor = base[:, None] + (channel * stride + y * row + x)[None, :]
    return index
