"""One's own classes: `dcu train classifier --labels`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dcu.codec import Codec
from dcu.nets.transforms import Analysis, Synthesis

from .conftest import Dcu, one_line, png, smooth_image, write_codec

CLASSES = {"dark": 0.3, "light": 1.0}


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Two classes of five images that even a random network tells apart."""
    for name, light in CLASSES.items():
        (tmp_path / "labels" / name).mkdir(parents=True)
        for index in range(5):
            image = (smooth_image(224, 224, seed=index) * light).astype("uint8")
            (tmp_path / "labels" / name / f"{index}.png").write_bytes(png(image))
    return tmp_path / "labels"


@pytest.fixture
def bins(dcu: Dcu, labels: Path, tmp_path: Path) -> Path:
    assert dcu("compress", labels, "-o", tmp_path / "bins").code == 0
    return tmp_path / "bins"


def named_right(dcu: Dcu, bins: Path, network: object) -> int:
    answers = dcu("classify", bins, "--network", network, "--json").lines
    return sum(Path(answer["input"]).parent.name == answer["predictions"][0]["label"] for answer in answers)


def test_own_classes_from_images(dcu: Dcu, labels: Path, bins: Path) -> None:
    trained = dcu("train", "head", labels)
    assert trained.code == 0
    assert "2 classes, 10 images; 2 held-out images" in trained.err
    model = Path(trained.out.strip())
    assert model.name == "labels-0.0983"
    assert named_right(dcu, bins, "labels-0.0983") >= 9
    card = json.loads(dcu("models", "show", "labels-0.0983").out)
    assert card["training"]["images"] == {"labels": 10}
    assert (card["results"][0]["dataset"], card["results"][0]["count"]) == ("labels (held out)", 2)
    assert card["training"]["start"][0]["name"] == "classifier-0.0983"
    assert dcu("models", "verify", "labels-0.0983").code == 0


def test_own_classes_from_bitstreams(dcu: Dcu, bins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No image is needed: neither transform runs."""

    def refuse(*_: object) -> None:
        raise AssertionError("an image was computed or asked for")

    monkeypatch.setattr(Analysis, "forward", refuse)
    monkeypatch.setattr(Synthesis, "forward", refuse)
    assert dcu("train", "head", bins, "--out", tmp_path / "own").code == 0
    assert named_right(dcu, bins, tmp_path / "own") >= 9
    measured = dcu("eval", "classifier", bins, "--network", tmp_path / "own", "--json")
    assert measured.code == 0
    assert measured.lines[0]["count"] == 10
    assert measured.lines[0]["top1"] >= 0.9


def test_own_classes_answer_only_when_asked(dcu: Dcu, labels: Path, bins: Path) -> None:
    assert dcu("train", "head", labels).code == 0
    assert {answer["network"] for answer in dcu("classify", bins, "--json").lines} == {"classifier-0.0983"}


def test_weights_that_are_no_models_are_not_overwritten(dcu: Dcu, labels: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "weights.safetensors").write_bytes(b"of something else")
    answer = dcu("train", "head", labels, "--out", tmp_path / "own")
    assert (answer.code, "--force" in answer.err) == (73, True)
    assert (tmp_path / "own" / "weights.safetensors").read_bytes() == b"of something else"


def test_wnids_keep_their_names(dcu: Dcu, labels: Path, tmp_path: Path) -> None:
    (labels / "dark").rename(labels / "n01440764")
    assert dcu("train", "head", labels, "--out", tmp_path / "own").code == 0
    card = json.loads((tmp_path / "own" / "card.json").read_text())
    assert card["labels"] == [{"label": "light"}, {"label": "tench", "wnid": "n01440764"}]


def test_data_that_gives_no_classes(dcu: Dcu, labels: Path, tmp_path: Path) -> None:
    def refused(code: int, said: str) -> None:
        answer = dcu("train", "head", labels, "--out", tmp_path / "own")
        assert answer.code == code
        assert one_line(answer.err)
        assert said in answer.err
        assert not (tmp_path / "own").exists()

    (labels / "light" / "0.png").rename(labels / "0.png")
    refused(2, "outside")
    (labels / "0.png").unlink()
    (labels / "single").mkdir()
    (labels / "light" / "1.png").rename(labels / "single" / "1.png")
    refused(2, "labels/single")
    for name in ("light", "single"):
        for path in (labels / name).iterdir():
            path.unlink()
    refused(2, "two class directories")


def test_bitstream_of_another_codec(dcu: Dcu, bins: Path, tmp_path: Path) -> None:
    other = Codec.from_model(write_codec(tmp_path / "other", seed=5))
    (bins / "dark" / "0.bin").write_bytes(other.compress(smooth_image(64, 64)))
    answer = dcu("train", "head", bins, "--out", tmp_path / "own")
    assert answer.code == 69
    assert "bins/dark/0.bin" in answer.err
    assert "images left out because they cannot be read: 1" in answer.err
    assert dcu("models", "verify", tmp_path / "own").code == 0


def test_images_that_cannot_be_read_are_left_out(dcu: Dcu, labels: Path, bins: Path, tmp_path: Path) -> None:
    (labels / "dark" / "2.png").write_bytes(b"no image")
    (labels / "light" / "0.png").write_bytes(png(smooth_image(224, 224))[:300])
    answer = dcu("train", "head", labels, "--out", tmp_path / "own")
    assert answer.code == 65
    reported = [line for line in answer.err.splitlines() if line.startswith("dcu: ")]
    assert [line.split(":")[1] for line in reported[:2]] == [" labels/dark/2.png", " labels/light/0.png"]
    assert "images left out because they cannot be read: 2" in reported[2]
    assert json.loads((tmp_path / "own" / "card.json").read_text())["training"]["images"] == {"labels": 8}
    assert named_right(dcu, bins, tmp_path / "own") >= 9


def test_too_few_images_that_can_be_read(dcu: Dcu, labels: Path, tmp_path: Path) -> None:
    for index in range(4):
        (labels / "dark" / f"{index}.png").write_bytes(b"no image")
    answer = dcu("train", "head", labels, "--out", tmp_path / "own")
    assert answer.code == 65
    assert "too few images are left" in answer.err
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize("arguments", [[], ["a", "--data", "b"], ["a", "--resume"], ["a", "b"]])
def test_head_takes_one_data_set(dcu: Dcu, arguments: list[str]) -> None:
    answer = dcu("train", "head", *arguments)
    assert answer.code == 2
    assert one_line(answer.err)


def test_own_classes_hide_no_shipped_model(dcu: Dcu, labels: Path) -> None:
    named = labels.rename(labels.with_name("classifier"))
    answer = dcu("train", "head", named)
    assert answer.code == 2
    assert one_line(answer.err)
