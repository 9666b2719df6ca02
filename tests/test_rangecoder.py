from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from dcu.entropy import rangecoder


def test_extension_is_kept_under_a_name_that_holds_its_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCU_CACHE", "/somewhere")
    place = rangecoder.built_extension()
    assert place.parent == Path("/somewhere")
    assert torch.__version__ in place.name


def test_output_of_the_build_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with rangecoder.standard_output_to_error():
        os.write(1, b"ninja: no work to do.\n")
    os.write(1, b"stream")
    assert capfd.readouterr() == ("stream", "ninja: no work to do.\n")


def test_torchac_reads_what_torchac_writes() -> None:
    tables = torch.tensor([[0, 10000, 20000, 0]] * 50).to(torch.int16)
    symbols = (torch.arange(50) % 3).to(torch.int16)
    payload = rangecoder.encode(tables, symbols)
    assert torch.equal(rangecoder.backend().decode_cdf(tables, payload), symbols)


def test_broken_extension_in_the_cache_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = rangecoder.built_extension()
    assert good.exists()
    monkeypatch.setenv("DCU_CACHE", str(tmp_path))
    rangecoder.built_extension().write_bytes(b"not a library")
    monkeypatch.setattr(rangecoder, "compile_extension", lambda folder: good)
    rangecoder.backend.cache_clear()
    assert hasattr(rangecoder.backend(), "decode_cdf")
    assert rangecoder.built_extension().read_bytes() == good.read_bytes()
    rangecoder.backend.cache_clear()


def test_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = rangecoder.built_extension()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DCU_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(rangecoder, "compile_extension", lambda folder: good)
    rangecoder.backend.cache_clear()
    assert hasattr(rangecoder.backend(), "decode_cdf")
    assert "read-only" in capsys.readouterr().err
    rangecoder.backend.cache_clear()
