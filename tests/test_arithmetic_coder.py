"""Our arithmetic coder by itself: what it writes it reads, and torchac would have written the same."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from dcu import bitstream
from dcu.codec import Codec, codec_of
from dcu.entropy import _native
from dcu.entropy.backend import TableCoder, Torchac, chosen_coder, standard_output_to_error
from dcu.errors import UsageError

from .conftest import OurTables, fixed, one_line, png, process, smooth_image

GOLDEN = sorted((Path(__file__).parent / "golden").glob("codec-0.*.bin"))
SKEWS = ("even", "first", "last", "middle")


def random_tables(count: int, levels: int, skew: str, seed: int) -> tuple[Tensor, Tensor]:
    """Tables (count, levels + 1) and symbols (count,); unless even, one symbol has all but one unit for each other."""
    rng = np.random.default_rng(seed)
    tables = np.zeros((count, levels + 1), np.int64)
    for row in tables:
        if skew == "even":
            row[1:-1] = np.sort(rng.choice(np.arange(1, 2**16), levels - 1, replace=False))
        else:
            wide = {"first": 0, "last": levels - 1, "middle": int(rng.integers(levels))}[skew]
            row[:] = np.arange(levels + 1)
            row[wide + 1 :] += 2**16 - levels
        row[-1] = 2**16
    probable = tables[:, 1:].argmax(1) if seed % 2 else np.diff(tables, axis=1).argmax(1)
    symbols = np.where(rng.random(count) < 0.5, rng.integers(0, levels, count), probable)
    return torch.from_numpy(tables).to(torch.int16), torch.from_numpy(symbols).to(torch.int16)


@pytest.fixture(scope="session")
def torchac(pytestconfig: pytest.Config) -> Iterator[TableCoder]:
    """torchac, where it is installed and can be compiled: once for this checkout, and in a process of its own."""
    code = "from dcu.entropy.backend import load_torchac; load_torchac()"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TORCH_EXTENSIONS_DIR", str(pytestconfig.cache.mkdir("torchac")))
        try:
            answer = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=900, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip("torchac is not compiled after 15 minutes")
        assert answer.stdout == b"", "standard output holds streams and nothing else"
        if answer.returncode:
            pytest.skip(f"torchac cannot be compiled here: {answer.stderr.decode().splitlines()[-1]}")
        yield Torchac()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A directory of two."""
    directory = tmp_path / "photos"
    directory.mkdir()
    for name in ("a.png", "b.png"):
        (directory / name).write_bytes(png(smooth_image(8, 8)))
    return directory


@settings(max_examples=60)
@given(st.integers(0, 300), st.integers(1, 40), st.sampled_from(SKEWS), st.integers(0, 99))
def test_symbols_come_back(count: int, levels: int, skew: str, seed: int) -> None:
    tables, symbols = random_tables(count, levels, skew, seed)
    assert torch.equal(OurTables().decode(tables, OurTables().encode(tables, symbols)), symbols)


@pytest.mark.slow
@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("levels", [1, 2, 3, 32, 257])
def test_bytes_of_torchac(torchac: TableCoder, levels: int, skew: str) -> None:
    for seed, count in enumerate([0, 1, 2, 7, 20, 50, 1000, 3000]):
        tables, symbols = random_tables(count, levels, skew, seed)
        payload = OurTables().encode(tables, symbols)
        assert payload == torchac.encode(tables, symbols)
        if count:
            assert torch.equal(torchac.decode(tables, payload), symbols)
            noise = np.random.default_rng(seed).bytes(count // 2)
            assert torch.equal(torchac.decode(tables, noise), OurTables().decode(tables, noise))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_golden_streams_of_torchac(torchac: TableCoder, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DCU_MODELS")
    stream = bitstream.read(path.read_bytes())
    coder = fixed(codec_of(stream.codec)).entropy
    grid = bitstream.tile_grid(stream.full.width, stream.full.height)
    (symbols,) = codec_of(stream.codec).symbols([stream.full])
    for (rows, columns), payload in zip(grid, stream.full.tiles, strict=True):
        tile = symbols[:, rows, columns]
        assert coder.encode(tile) == coder.encode_with(torchac, tile) == payload
        assert torch.equal(coder.decode_with(torchac, payload, *tile.shape[1:]), tile)


@pytest.mark.slow
def test_commands_with_torchac(torchac: TableCoder, codec: Codec, photo: Path) -> None:
    """Its compiler's output reaches neither stream nor image."""
    made = process("compress", photo, "--codec", "codec-0.0983", "-o", "-", DCU_CODER="torchac")
    assert (made.returncode, made.stdout) == (0, codec.compress(np.asarray(Image.open(photo))))
    shown = process("decode", "-", "-o", "-", data=made.stdout, DCU_CODER="torchac")
    assert shown.returncode == 0
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(shown.stdout))), codec.decode(made.stdout))


def test_torchac_that_cannot_be_had(photos: Path, tmp_path: Path) -> None:
    """Not installed as far as Python can see: one line, however many inputs."""
    (tmp_path / "torchac.py").write_text("raise ImportError('no such thing')\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    answer = process("compress", photos, "-o", tmp_path / "x", DCU_CODER="torchac", PYTHONPATH=path)
    assert (answer.returncode, answer.stdout) == (69, b"")
    assert b"dcu-codec[torchac]" in answer.stderr
    assert one_line(answer.stderr)


def test_coder_that_does_not_exist(photos: Path, tmp_path: Path) -> None:
    answer = process("compress", photos, "-o", tmp_path / "x", DCU_CODER="abacus")
    assert (answer.returncode, answer.stdout) == (2, b"")
    assert b"abacus" in answer.stderr
    assert one_line(answer.stderr)


def test_coder_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("", "native"):
        monkeypatch.setenv("DCU_CODER", name)
        assert chosen_coder() is None
    monkeypatch.setenv("DCU_CODER", "abacus")
    with pytest.raises(UsageError, match="abacus"):
        chosen_coder()


def test_output_of_a_build_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with standard_output_to_error():
        os.write(1, b"ninja: no work to do.\n")
        print("Building extension module")
    os.write(1, b"stream")
    assert capfd.readouterr() == ("stream", "ninja: no work to do.\nBuilding extension module\n")


def test_tables_and_symbols_that_cannot_be_coded() -> None:
    table, symbol = np.array([[0, 5, 0]], np.uint16), np.array([1], np.int16)
    for bad in (-1, 2, 300):
        with pytest.raises(ValueError, match="a symbol"):
            _native.encode_tables(table, np.array([bad], np.int16))
    with pytest.raises(ValueError, match="one table"):
        _native.encode_tables(table, np.repeat(symbol, 2))
    with pytest.raises(ValueError, match="probability 0"):
        _native.encode_tables(np.array([[0, 5, 5, 0]], np.uint16), symbol)
    with pytest.raises(ValueError, match="increase"):
        _native.decode_tables(np.array([[7, 5, 0]], np.uint16), b"")
    with pytest.raises(ValueError, match="one symbol"):
        _native.decode_tables(np.zeros((1, 1), np.uint16), b"")
