"""Unbounded symbols to payloads and back: exact, close to the float model, and safe on any payload."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dcu.entropy import _native, instruction_sets
from dcu.entropy.logistic import FRACTIONS, SCALES, LogisticCoder, golomb_bits, integer_tensors, interval_tables
from dcu.errors import InvalidInputError, UnavailableError
from dcu.nets.context import UnboundedGroup
from dcu.nets.logistic_context import LogisticContext, logistic_bits

GROUPS = (UnboundedGroup(1, 3), UnboundedGroup(2, 2), UnboundedGroup(3, 1, reach=1))
CHANNELS = 6


def random_context(seed: int = 0, size: float = 0.15) -> LogisticContext:
    torch.manual_seed(seed)
    context = LogisticContext(GROUPS, 16, anchors=4).requires_grad_(False).eval()
    for name, parameter in context.named_parameters():
        parameter.copy_(torch.randn_like(parameter) * (0.02 if "linear" in name else size))
    return context


def coder_of(context: LogisticContext, coded: Tensor | None = None) -> LogisticCoder:
    return LogisticCoder(integer_tensors(context, torch.ones(64, CHANNELS) if coded is None else coded))


CODER = coder_of(random_context())


def symbols_of(seed: int, height: int, width: int, spread: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(CHANNELS, height, width, generator=generator) * spread).round().to(torch.int16)


def by_tables(coder: LogisticCoder, symbols: Tensor, q: int) -> bytes:
    """The payload by the general coder, from the intervals that PyTorch computes."""
    intervals = coder.intervals(symbols, q)
    tables = np.array([(0, start, 0 if end == 2**16 else end, 0) for start, end in intervals], dtype=np.int64)
    last = np.array([end == 2**16 for _, end in intervals])
    tables[last, 2] = tables[last, 1]  # the last symbol of a table ends at 2^16
    return _native.encode_tables(tables.astype(np.uint16), np.where(last, 2, 1).astype(np.int16))


@pytest.mark.parametrize("instructions", instruction_sets())
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (9, 10), (28, 28)])
def test_symbols_come_back(height: int, width: int, instructions: str) -> None:
    tiles = [symbols_of(seed, height, width) for seed in range(3)]
    for q in (0, 20, 63):
        payloads = [CODER.encode(tile, q, instructions) for tile in tiles]
        assert torch.equal(CODER.decode(payloads, height, width, q, instructions), torch.stack(tiles))


def test_bytes_are_those_of_the_equations() -> None:
    for spread in (0.3, 3.0, 300.0):
        symbols = symbols_of(4, 9, 10, spread)
        for q in (0, 20, 63):
            payload = by_tables(CODER, symbols, q)
            assert all(CODER.encode(symbols, q, each) == payload for each in instruction_sets())


def test_weights_that_leave_16_bits_give_the_same_bytes() -> None:
    coder = coder_of(random_context(1, size=3.0))
    symbols = symbols_of(1, 9, 10)
    assert all(coder.encode(symbols, 5, each) == by_tables(coder, symbols, 5) for each in instruction_sets())


def test_number_of_threads_changes_nothing() -> None:
    tiles = [symbols_of(seed, 12, 12) for seed in range(8)]
    payloads = [CODER.encode(tile, 30) for tile in tiles]
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert torch.equal(CODER.decode(payloads, 12, 12, 30), torch.stack(tiles))
    finally:
        torch.set_num_threads(before)


@given(st.lists(st.integers(-32767, 32767), min_size=CHANNELS, max_size=CHANNELS), st.integers(0, 63))
def test_any_symbol_can_be_coded(values: list[int], q: int) -> None:
    symbols = torch.tensor(values, dtype=torch.int16).view(CHANNELS, 1, 1)
    assert torch.equal(CODER.decode([CODER.encode(symbols, q)], 1, 1, q)[0], symbols)


@given(st.binary(max_size=60), st.integers(0, 63))
def test_any_payload_is_symbols_or_refused(payload: bytes, q: int) -> None:
    with contextlib.suppress(InvalidInputError):
        assert CODER.decode([payload], 3, 4, q).shape == (1, CHANNELS, 3, 4)


@given(st.integers(1, 9), st.integers(0, 99), st.sampled_from([0.3, 3.0, 3000.0]), st.binary(min_size=1, max_size=9))
def test_bytes_after_the_last_symbol_are_refused(side: int, seed: int, spread: float, more: bytes) -> None:
    symbols = symbols_of(seed, side, side + 1, spread).clamp(-32767, 32767)
    payload = CODER.encode(symbols, seed % 64)
    assert torch.equal(CODER.decode([payload], side, side + 1, seed % 64)[0], symbols)
    for longer in (payload + more, payload + bytes(len(more))):
        with pytest.raises(InvalidInputError, match="after the last symbol"):
            CODER.decode([longer], side, side + 1, seed % 64)


def test_channels_that_are_not_coded_are_zero_and_not_read() -> None:
    context = random_context()
    coded = torch.ones(64, CHANNELS)
    coded[:32, 2:] = 0
    some, all_ = coder_of(context, coded), coder_of(context)
    symbols = symbols_of(2, 9, 10)
    without = symbols.clone()
    without[2:] = 0
    assert torch.equal(some.decode([some.encode(symbols, 10)], 9, 10, 10)[0], without)
    assert some.encode(symbols, 40) == all_.encode(symbols, 40)
    assert len(some.encode(symbols, 10)) < len(all_.encode(without, 10))
    assert some.macs(9, 10, 10) < some.macs(9, 10, 40) == all_.macs(9, 10, 10)
    assert some.encode(symbols, 10) == by_tables(some, symbols, 10)


def test_integers_are_close_to_the_float_model() -> None:
    context = random_context()
    symbols = symbols_of(3, 24, 24)
    for q in (0, 31, 63):
        x = symbols[None].float()
        float_bits = float(logistic_bits(x, *context(x, torch.tensor([float(q)]))).sum())
        bits = CODER.cross_entropy(symbols, q)
        assert bits == pytest.approx(float_bits, rel=0.005)
        assert 8 * len(CODER.encode(symbols, q)) == pytest.approx(bits, abs=40)


def test_interval_tables_increase_and_cover_everything() -> None:
    radii, ends = interval_tables()
    start = 0
    for scale in range(SCALES):
        for _ in range(FRACTIONS):
            table = ends[start : start + 2 * radii[scale] + 2]
            assert table[0] > 0
            assert (np.diff(table) > 0).all()
            assert table[-1] == 2**16
            start += len(table)
    assert start == len(ends)


def test_escape_code() -> None:
    codes = ["".join("01"[bit] for bit in golomb_bits(number)) for number in range(200)]
    assert codes[0] == "00000"
    assert codes[16] == "1000000"
    assert not any(b.startswith(a) for a in codes for b in codes if a != b)


TENSORS = ["groups", "coded", "compressed", "radii", "ends", "03.0.weight", "03.2.weight", "02.linear"]


@pytest.mark.parametrize("name", TENSORS)
def test_weights_of_other_shapes_are_refused(name: str) -> None:
    tensors = integer_tensors(random_context(), torch.ones(64, CHANNELS))
    for other in (tensors[name][:-1], tensors[name].float()):
        with pytest.raises(UnavailableError):
            LogisticCoder(tensors | {name: other})
    with pytest.raises(UnavailableError):
        LogisticCoder({n: t for n, t in tensors.items() if n != name})


@pytest.mark.parametrize("name", [name for name in TENSORS if name != "02.linear"])
def test_weights_that_are_out_of_range_are_refused(name: str) -> None:
    tensors = integer_tensors(random_context(), torch.ones(64, CHANNELS))
    with pytest.raises(UnavailableError):
        LogisticCoder(tensors | {name: torch.full_like(tensors[name], 2**31 - 1)})


def test_bytes_of_groups_add_up() -> None:
    symbols = symbols_of(2, 28, 28)
    for q in (0, 63):
        payload = CODER.encode(symbols, q)
        parts = CODER.group_bytes(payload, 28, 28, q)
        assert sum(parts) == len(payload)
        assert len(parts) == len(GROUPS)
        first = symbols.clone()
        first[1:] = 0
        assert abs(parts[0] - CODER.group_bytes(CODER.encode(first, q), 28, 28, q)[0]) <= 1
    with pytest.raises(InvalidInputError):
        CODER.group_bytes(payload + b"x", 28, 28, 63)
