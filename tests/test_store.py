from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from dcu import paths, store
from dcu.errors import UnavailableError
from dcu.io import write_atomic

from .conftest import write_codec


def test_lookup_order(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.find("codec-0.0983").directory == models / "codec-0.0983"
    path = tmp_path / "elsewhere" / "mine"
    write_codec(path, seed=5)
    assert store.find(str(path)).directory == path
    monkeypatch.delenv("DCU_MODELS")
    own = write_codec(paths.user_models() / "codec-0.0983", seed=6)
    assert store.find("codec-0.0983").fingerprint == own.fingerprint


def test_kind_is_checked() -> None:
    with pytest.raises(UnavailableError, match="a codec, not a classifier"):
        store.find("codec-0.0983", "classifier")


def test_fingerprint_is_what_docs_format_says() -> None:
    centers = torch.tensor([[0.0, 1.0, 7.0], [-1.0, 0.0, 1.0]])
    context = {"b": torch.tensor([[1, -2]], dtype=torch.int32), "a": torch.tensor([3], dtype=torch.int32)}
    expected = hashlib.sha256(
        b"\x02\x00" + b"\x02\x03"
        + bytes.fromhex("000000000000803f") + bytes.fromhex("000080bf000000000000803f")
        + b"\x01" + b"\x01\x00\x00\x00" + b"\x03\x00\x00\x00"
        + b"\x02" + b"\x01\x00\x00\x00\x02\x00\x00\x00" + b"\x01\x00\x00\x00\xfe\xff\xff\xff"
    )  # fmt: skip
    assert store.fingerprint([2, 3], centers, context) == expected.hexdigest()


def test_card_states_the_sha_256_of_the_weights(models: Path) -> None:
    directory = models / "codec-0.0983"
    card = json.loads((directory / "card.json").read_text())
    assert card["sha256"] == hashlib.sha256((directory / "weights.safetensors").read_bytes()).hexdigest()


def test_broken_cards_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("a", "{"), ("b", '{"kind": "codec"}'), ("c", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "card.json").write_text(text)
    monkeypatch.setenv("DCU_MODELS", str(tmp_path))
    assert not {"a", "b", "c"} & {model.name for model in store.installed()}


def test_card_of_names_that_are_no_text(tmp_path: Path) -> None:
    """A directory's name in Latin-1 is a class; it must not cost what was trained."""
    card = {"kind": "classifier", "fingerprint": "0" * 64, "labels": [{"label": "caf\udce9"}], "figures": []}
    model = store.write_model(tmp_path / "own", card, {"x": torch.zeros(1)})
    assert store.read_model(model.directory).card["labels"] == card["labels"]


def test_long_names_are_written(tmp_path: Path) -> None:
    place = tmp_path / ("n" * 251 + ".bin")
    write_atomic(place, b"whole")
    assert place.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [place]


def test_metrics_of_two_kinds_stay_beside_each_other(tmp_path: Path) -> None:
    card = {"kind": "classifier", "fingerprint": "0" * 64, "figures": []}
    model = store.write_model(tmp_path / "own", card, {"x": torch.zeros(1)})
    for metrics in ({"top1": 0.1}, {"agreement": 0.2}, {"top1": 0.3}):
        model = store.record(model, {"dataset": "val"} | metrics)
    assert [(f.get("top1"), f.get("agreement")) for f in model.card["figures"]] == [(None, 0.2), (0.3, None)]
