from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dcu import bitstream
from dcu.codec import Codec, codec_of
from dcu.coding import FixedRate
from dcu.entropy import EntropyCoder, _native, instruction_sets, integer_tensors
from dcu.entropy.coder import cumulative
from dcu.errors import InvalidInputError, UnavailableError
from dcu.nets.context import ContextModel, Group, lattice, schedule
from dcu.nets.quantizer import Quantizer

from .conftest import GROUPS, OurTables, fixed, random_codec


def random_symbols(codec: Codec, height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    levels = torch.tensor(fixed(codec).levels)[:, None, None]
    return (torch.rand(len(fixed(codec).levels), height, width, generator=generator) * levels).to(torch.uint8)


@settings(max_examples=30)
@given(st.integers(1, 19), st.integers(1, 19), st.integers(0, 99))
def test_symbols_come_back(codec: Codec, height: int, width: int, seed: int) -> None:
    symbols = random_symbols(codec, height, width, seed)
    payload = fixed(codec).entropy.encode(symbols)
    for instructions in instruction_sets():
        assert fixed(codec).entropy.encode(symbols, instructions) == payload, instructions
        assert torch.equal(fixed(codec).entropy.decode([payload], height, width, instructions)[0], symbols), (
            instructions
        )


@settings(max_examples=60)
@given(st.integers(1, 19), st.integers(1, 19), st.integers(0, 99), st.binary(min_size=1, max_size=9))
def test_bytes_after_the_last_symbol_are_refused(height: int, width: int, seed: int, more: bytes) -> None:
    """Of any tables: a payload is as long as the encoder makes it."""
    coder = FixedRate(random_codec(seed % 3)).entropy
    symbols = random_symbols(Codec(random_codec(0), "random"), height, width, seed)
    payload = coder.encode(symbols)
    assert torch.equal(coder.decode([payload], height, width)[0], symbols)
    for longer in (payload + more, payload + bytes(len(more))):
        with pytest.raises(InvalidInputError, match="after the last symbol"):
            coder.decode([longer], height, width)


@pytest.mark.parametrize("path", sorted((Path(__file__).parent / "golden").glob("*.bin")), ids=lambda p: p.stem)
def test_golden_payloads_are_as_long_as_their_symbols(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DCU_MODELS")
    stream = bitstream.read(path.read_bytes())
    codec = codec_of(stream.codec)
    codec.symbols([stream.full])
    for more in (b"\0", b"\0" * 8, b"x"):
        tiles = [*stream.full.tiles[:-1], stream.full.tiles[-1] + more]
        data = bitstream.write(stream.header, stream.full.width, stream.full.height, [tiles])
        with pytest.raises(InvalidInputError, match="after the last symbol"):
            codec.decode(data)


def test_tiles_decoded_together_are_those_decoded_alone(codec: Codec) -> None:
    tiles = [random_symbols(codec, 9, 14, seed) for seed in range(5)]
    payloads = [fixed(codec).entropy.encode(symbols) for symbols in tiles]
    assert torch.equal(fixed(codec).entropy.decode(payloads, 9, 14), torch.stack(tiles))


def test_tables_of_pytorch_are_those_of_the_compiled_coder(codec: Codec) -> None:
    """So are the payloads of a coder that knows tables only, and what it decodes."""
    symbols = random_symbols(codec, 11, 13)
    tables, chosen = fixed(codec).entropy.all_tables(symbols)
    assert not tables[:, 0].any()
    payload = fixed(codec).entropy.encode(symbols)
    assert OurTables().encode(tables, chosen.to(torch.int16)) == payload
    assert fixed(codec).entropy.encode_with(OurTables(), symbols) == payload
    assert torch.equal(fixed(codec).entropy.decode_with(OurTables(), payload, 11, 13), symbols)


def test_symbols_that_the_codec_does_not_have_are_refused(codec: Codec) -> None:
    """Tables are as wide as the widest group's, so that a payload can say more than a channel has."""
    symbols = random_symbols(codec, 6, 5)
    whole = fixed(codec).entropy.encode(symbols)
    symbols[1, 3, 3] = fixed(codec).levels[1] + 2
    with pytest.raises(ValueError, match="channel"):
        fixed(codec).entropy.encode(symbols)
    broken = fixed(codec).entropy.encode_with(OurTables(), symbols)
    with pytest.raises(InvalidInputError):
        fixed(codec).entropy.decode([broken], 6, 5)
    with pytest.raises(InvalidInputError):
        fixed(codec).entropy.decode_with(OurTables(), broken, 6, 5)
    for place in range(4):  # whichever thread meets it
        payloads = [whole] * 4
        payloads[place] = broken
        with pytest.raises(InvalidInputError):
            fixed(codec).entropy.decode(payloads, 6, 5)


@settings(max_examples=50)
@given(st.binary(max_size=60))
def test_any_payload_decodes_to_symbols_that_exist_or_is_refused(codec: Codec, payload: bytes) -> None:
    with contextlib.suppress(InvalidInputError):
        symbols = fixed(codec).entropy.decode([payload], 6, 5)[0]
        assert all(int(row.max()) < levels for row, levels in zip(symbols, fixed(codec).levels, strict=True))


@settings(max_examples=30)
@given(st.integers(1, 9), st.floats(0.1, 300), st.floats(0.1, 300), st.integers(0, 99))
def test_sums_of_any_size_decode_as_they_were_encoded(hidden: int, weights: float, centres: float, seed: int) -> None:
    """Whether they fit 16 and 32 bits or not, and where channels and widths are odd."""
    torch.manual_seed(seed)
    groups, height, width = (Group(1, 5, 2), Group(2, 3, 1)), 7, 6
    context = ContextModel(groups, hidden)
    tensors = integer_tensors(context)
    for name, tensor in tensors.items():
        if name.endswith("weight"):
            tensors[name] = (tensor * weights).int()
    coder = EntropyCoder(tensors, torch.randn(3, 5).sort(1).values * centres)
    symbols = torch.stack([torch.randint(g.levels, (height, width)) for g in groups for _ in range(g.channels)])
    symbols = symbols.to(torch.uint8)
    payload = coder.encode_with(OurTables(), symbols)
    for instructions in instruction_sets():
        assert coder.encode(symbols, instructions) == payload, instructions
        assert torch.equal(coder.decode([payload], height, width, instructions)[0], symbols), instructions


@given(st.integers(1, 6), st.integers(0, 5), st.integers(0, 2**17), st.integers(0, 2**31 - 1), st.integers(0, 99))
def test_sums_of_sixteen_bits_stay_in_32(rows: int, columns: int, weight: int, bias: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(-weight, weight, (rows, columns), np.int32, endpoint=True)
    biases = rng.integers(-bias, bias, rows, np.int32, endpoint=True)
    known, exponential = np.zeros((columns, 3), np.int32), np.array([2**16], np.int32)
    passes = [(0, 1, rows, known, [(weights, biases)])]
    ((limit,),) = _native.ContextModel(passes, np.zeros((1, rows), np.int32), exponential).limits
    offsets = abs(biases.astype(np.int64) + 2**11)
    if limit < 0:
        assert abs(weights).max(initial=0) >= 2**15 or offsets.max() >= 2**31
        return
    sums = abs(weights.astype(np.int64)).sum(1)
    assert (sums * limit + offsets).max() < 2**31
    assert limit == 2**15 - 1 or (sums * (limit + 1) + offsets).max() >= 2**31, "no smaller than it must be"


@pytest.mark.parametrize("names", [["exp"], ["01.2.weight", "01.2.bias"], ["00.1.weight", "00.1.bias"], ["groups"]])
def test_weights_of_other_shapes_are_refused(names: list[str]) -> None:
    """The compiled decoder would read on behind their ends."""
    torch.manual_seed(0)
    tensors = integer_tensors(ContextModel((Group(2, 5, 2), Group(2, 3, 1)), 8))
    centres = torch.randn(4, 5).sort(1).values
    EntropyCoder(tensors, centres)
    short = {name: tensor[: len(tensor) // 2] if name in names else tensor for name, tensor in tensors.items()}
    with pytest.raises((UnavailableError, RuntimeError)):
        EntropyCoder(short, centres)
    with pytest.raises(UnavailableError):
        EntropyCoder(tensors, centres[:3])
    with pytest.raises(UnavailableError):
        EntropyCoder(tensors | {"exp": tensors["exp"] * 2}, centres)


def test_number_of_threads_changes_nothing(codec: Codec) -> None:
    symbols, before = random_symbols(codec, 30, 40), torch.get_num_threads()
    payloads = set()
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        payloads.add(fixed(codec).entropy.encode(symbols))
        assert torch.equal(fixed(codec).entropy.decode([min(payloads)], 30, 40)[0], symbols)
    torch.set_num_threads(before)
    assert len(payloads) == 1


def test_python_goes_on_while_a_tile_is_decoded(codec: Codec) -> None:
    symbols = random_symbols(codec, 256, 256)
    payload = fixed(codec).entropy.encode(symbols)
    took: list[float] = []

    def decode() -> None:
        start = time.perf_counter()
        fixed(codec).entropy.decode([payload], 256, 256, "doubles")
        took.append(time.perf_counter() - start)

    def longest_pause() -> float:
        thread, pause = threading.Thread(target=decode), 0.0
        thread.start()
        before = time.perf_counter()
        while thread.is_alive():
            now = time.perf_counter()
            before, pause = now, max(pause, now - before)
        return pause

    assert any(longest_pause() < took[-1] / 2 for _ in range(20))


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_compiled_coder_checks_what_it_is_given(codec: Codec, size: tuple[int, int]) -> None:
    native, (height, width) = fixed(codec).entropy.native, size
    grid = fixed(codec).entropy.grid(4, 4)
    with pytest.raises(ValueError, match="plane"):
        native.decode([b""], grid, height, width, 1)
    with pytest.raises(ValueError, match="plane"):
        native.decode([b""], grid, 3, 4, 1)
    with pytest.raises(ValueError, match="every pass"):
        native.decode([b""], grid[1:], 4, 4, 1)
    with pytest.raises(ValueError, match="instructions"):
        native.decode([b""], grid, 4, 4, 1, "abacus")
    with pytest.raises(ValueError, match="channels"):
        native.encode(np.zeros((1, 4, 4), np.uint8), grid)


def test_payload_is_as_long_as_the_tables_say(codec: Codec) -> None:
    symbols = random_symbols(codec, 64, 96)
    assert abs(8 * len(fixed(codec).entropy.encode(symbols)) - fixed(codec).entropy.cross_entropy(symbols)) < 32


def test_integers_say_what_the_trained_network_says() -> None:
    torch.manual_seed(3)
    levels = [g.levels for g in GROUPS for _ in range(g.channels)]
    context, quantizer = ContextModel(GROUPS, 8), Quantizer(levels)
    symbols = quantizer.symbols(torch.randn(1, 3, 12, 9) * 2)
    one_hot = torch.nn.functional.one_hot(symbols.long(), 9).permute(0, 1, 4, 2, 3).float()
    with torch.no_grad():
        bits = float(context.bits(quantizer.latent(symbols), one_hot))
    coder = EntropyCoder(integer_tensors(context), quantizer.centers.detach())
    assert coder.cross_entropy(symbols[0]) == pytest.approx(bits, rel=2e-3)


def test_decoding_order_looks_only_at_what_is_known() -> None:
    """Changing a symbol changes no logits of passes up to its own."""
    torch.manual_seed(4)
    context = ContextModel(GROUPS, 8)
    latent = torch.randn(1, 3, 8, 8)
    before = context(latent)
    for number, p in enumerate(context.passes):
        changed = latent.clone()
        changed[:, p.first : p.last] += 5 * p.positions(8, 8)
        after = context(changed)
        for earlier in context.passes[: number + 1]:
            group = [g.first for g in context.passes if g.start].index(earlier.first)
            here = earlier.positions(8, 8)
            assert torch.equal(before[group][..., here], after[group][..., here])


@pytest.mark.parametrize("passes", [1, 2, 3, 4, 5])
def test_passes_cover_each_position_once(passes: int) -> None:
    counts = sum(p.positions(13, 11).int() for p in schedule([Group(2, 4, passes)]))
    assert isinstance(counts, Tensor)
    assert torch.equal(counts, torch.ones(13, 11, dtype=torch.int32))
    assert lattice(0, 2, 2).all()


@given(st.lists(st.integers(-(2**30), 2**30), min_size=2, max_size=9), st.integers(9, 32))
def test_tables_are_strictly_increasing(logits: list[int], largest: int) -> None:
    exp_table = (-torch.arange(4096, dtype=torch.float64) / 256).exp().mul(65536).round()
    table = cumulative(torch.tensor(logits, dtype=torch.float64)[None, :, None], exp_table, largest)[0, :, 0]
    table = torch.cat([torch.zeros(1), table, 65536 - largest + torch.arange(len(logits) + 1, largest + 1)])
    assert bool((table.diff() >= 1).all())
    assert table[-1] == 65536


def test_weights_that_could_overflow_are_refused() -> None:
    tensors = integer_tensors(ContextModel(GROUPS, 8))
    for centre in (1e30, float("nan")):
        with pytest.raises(UnavailableError):
            EntropyCoder(tensors, torch.full((3, 9), centre))
