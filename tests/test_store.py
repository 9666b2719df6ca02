from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dcu import paths, store
from dcu.cards import Card, Result
from dcu.codec import Codec
from dcu.errors import OutputError, UnavailableError
from dcu.io import read_regular, write_atomic
from dcu.labels import IMAGENET, Label

from .conftest import Dcu, write_classifier, write_codec


def test_lookup_order(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.find("codec-0.0983").directory == models / "codec-0.0983"
    path = tmp_path / "elsewhere" / "mine"
    write_codec(path, seed=5)
    assert store.find(str(path)).directory == path
    monkeypatch.delenv("DCU_MODELS")
    user = paths.user_models()
    assert user is not None
    own = write_codec(user / "codec-0.0983", seed=6)
    assert store.find("codec-0.0983").fingerprint == own.fingerprint


def test_a_bare_name_is_none_of_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by whatever function: what is meant as a path contains a separator, or is a `Path`."""
    write_codec(tmp_path / "here" / "mine", seed=5)
    write_codec(tmp_path / "here" / "codec-0.0983", seed=5)
    monkeypatch.chdir(tmp_path / "here")
    installed = Codec.load("codec-0.0983").fingerprint
    assert Codec.load("./codec-0.0983").fingerprint != installed
    assert Codec.load(Path("codec-0.0983")).fingerprint != installed
    for name in ("mine", "", ".", ".."):
        with pytest.raises(UnavailableError, match="model not installed"):
            store.find(name)
    for path in ("./mine", "mine/", str(tmp_path / "here" / "mine"), Path("mine")):
        assert store.find(path).name == "mine"


@pytest.mark.parametrize(
    ("name", "meant"),
    [("codec0.0983", "; did you mean codec-0.0983?"), ("Codec-0.0983", "; did you mean codec-0.0983?")],
)
def test_a_mistyped_name_is_answered_with_the_nearest(models: Path, name: str, meant: str) -> None:
    with pytest.raises(UnavailableError, match=f"^{re.escape(name + ': model not installed' + meant)}$"):
        store.find(name)
    with pytest.raises(UnavailableError, match=r"installed$"):
        store.find("resnet50")


def test_models_that_are_hidden_are_found_by_fingerprint(
    models: Path, tmp_path: Path, dcu: Dcu, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A codec and a classifier of one's own under the names of others: files of the others stay readable."""
    assert dcu("compress", photo, "-o", tmp_path / "old.bin").code == 0
    user = paths.user_models()
    assert user is not None
    monkeypatch.setenv("DCU_MODELS", os.pathsep.join([str(user), str(models)]))
    own = write_codec(user / "codec-0.0983", seed=6)
    write_classifier(user / "classifier-0.0983", own.fingerprint)
    assert dcu("compress", photo, "-o", tmp_path / "new.bin").code == 0
    assert (tmp_path / "old.bin").read_bytes()[:8] != (tmp_path / "new.bin").read_bytes()[:8]
    for name in ("old.bin", "new.bin"):
        for command in ("verify", "info", "classify"):
            assert dcu(command, tmp_path / name).code == 0
        assert dcu("decode", tmp_path / name, "-o", tmp_path / f"{name}.png").code == 0


def test_cards_are_read_once_and_again_when_they_change(own_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []

    def counted(path: Path, most: int) -> bytes:
        reads.append(path)
        return read_regular(path, most)

    monkeypatch.setattr(store, "read_regular", counted)
    identity = store.find("codec-0.0983").identity
    for _ in range(3):
        assert store.find_codec(identity).name == "codec-0.0983"
    once = len(reads)
    for _ in range(100):
        store.find_codec(identity)
    assert len(reads) == once
    model = store.find("codec-0.0983")
    store.amend(model, lambda card: replace(card, rate=0.5))
    assert store.find_codec(identity).card.rate == 0.5
    (own_models / "codec-0.0983").rename(own_models / "other")
    assert store.find_codec(identity).name == "other"
    shutil.rmtree(own_models / "other")
    with pytest.raises(UnavailableError):
        store.find_codec(identity)


def test_cards_are_changed_as_they_are_and_not_as_they_were(own_models: Path) -> None:
    """Two evaluations at once, or an evaluation while a training writes the model anew."""
    first, second = store.read_model(own_models / "codec-0.0983"), store.read_model(own_models / "codec-0.0983")
    store.record(first, Result("a", 9))
    store.record(second, Result("b", 9))
    assert {result.dataset for result in store.read_model(first.directory).card.results} >= {"a", "b"}
    weights = first.weights()
    name = next(iter(weights))
    store.write_model(first.directory, first.card, weights | {name: weights[name] + 1})
    with pytest.raises(OutputError, match="replaced meanwhile"):
        store.record(first, Result("c", 9))
    assert store.read_model(first.directory).card.sha256 != first.card.sha256


def test_verify_goes_on_after_a_name_of_no_model(dcu: Dcu) -> None:
    answer = dcu("models", "verify", "nothing", "codec-0.0983", "--json")
    assert answer.code == 69
    assert [line.get("exit_code", 0) for line in answer.lines] == [69, 0]


def test_context_weights_must_be_integers(tmp_path: Path) -> None:
    """Rounded, they would get the fingerprint of the codec whose files they cannot read."""
    model = write_codec(tmp_path / "codec")
    tensors = model.weights()
    tensors["context.00.2.weight"] = tensors["context.00.2.weight"] + 0.25
    with pytest.raises(ValueError, match="int32"):
        store.fingerprint([2], torch.zeros(1, 2), {"w": tensors["context.00.2.weight"]})
    with pytest.raises(UnavailableError):
        Codec(tensors, "codec")
    store.write_model(model.directory, model.card, tensors)
    with pytest.raises(UnavailableError, match="is of type F32"):
        Codec.load(model.directory)


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
    labels = (Label("caf\udce9"),)
    model = store.write_model(tmp_path / "own", Card("classifier", "0" * 64, labels=labels), {"x": torch.zeros(1)})
    assert store.read_model(model.directory).card.labels == labels


def test_long_names_are_written(tmp_path: Path) -> None:
    place = tmp_path / ("n" * 251 + ".bin")
    write_atomic(place, b"whole")
    assert place.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [place]


def test_metrics_of_two_kinds_stay_beside_each_other(tmp_path: Path) -> None:
    card = Card("classifier", "0" * 64, labels=IMAGENET)
    model = store.write_model(tmp_path / "own", card, {"x": torch.zeros(1)})
    measured = (
        Result("val", 9, engine="pytorch", top1=0.1),
        Result("val", 9, engine="pytorch", agreement=0.2),
        Result("val", 9, engine="int8", top1=0.4),
        Result("val", 9, engine="pytorch", top1=0.3),
    )
    for result in measured:
        model = store.record(model, result)
    assert [(r.engine, r.top1, r.agreement) for r in store.read_model(model.directory).card.results] == [
        ("pytorch", None, 0.2),
        ("int8", 0.4, None),
        ("pytorch", 0.3, None),
    ]
