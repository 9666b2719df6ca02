"""Files are complete or absent, and what takes long to make outlives a loss of power."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from dcu import cache, store
from dcu.cards import Card
from dcu.cli import files
from dcu.datasets.files import TarWriter
from dcu.errors import InvalidInputError
from dcu.io import write_atomic
from dcu.train.checkpoint import Checkpoint, OptimizerState, State

CARD = Card("codec", "0" * 64)

STATE = State(1, {"x": torch.zeros(1)}, {"x": torch.zeros(1)}, OptimizerState({}, None))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was synchronized and renamed, in order."""
    found: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        found.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def replaced(source: Path, target: Path) -> None:
        found.append(("rename", str(source)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    return found


def write_tar(place: Path) -> None:
    with TarWriter(place / "x.tar") as tar:
        tar.add("a", b"data")


DURABLE: dict[str, Any] = {
    "model": lambda place: store.write_model(place, CARD, {"x": torch.zeros(1)}),
    "card": lambda place: store.amend(store.write_model(place, CARD, {"x": torch.zeros(1)}), lambda card: card),
    "checkpoint": lambda place: Checkpoint(place / "checkpoint.safetensors").save(STATE),
    "tar": write_tar,
    "cache": lambda place: cache.kept("network.onnx", "a network", lambda: b"model"),
}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
@pytest.mark.parametrize("what", DURABLE)
def test_file_then_name_are_on_the_disk(
    what: str, calls: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    place.mkdir(mode=0o700)
    monkeypatch.setenv("DCU_CACHE", str(place))
    DURABLE[what](place)
    assert len(calls) % 3 == 0 < len(calls)
    for first, second, third in zip(calls[::3], calls[1::3], calls[2::3], strict=True):
        assert first == ("sync", second[1])
        assert second[0] == "rename"
        assert third == ("sync", str(place))


def test_results_are_not_waited_for(calls: list[tuple[str, str]], tmp_path: Path) -> None:
    files.put(tmp_path / "x.bin", b"data", force=False)
    assert [kind for kind, _ in calls] == ["rename"]


def test_a_file_that_is_not_on_the_disk_gets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "x").write_bytes(b"before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(tmp_path / "x", b"after")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x", b"before")]


def test_a_tar_that_is_not_complete_is_removed(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError), TarWriter(tmp_path / "x.tar") as tar:
        tar.add("n" * 300, b"data")
    assert not list(tmp_path.iterdir())
