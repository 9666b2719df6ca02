"""Classes that may occur, class priors and the least probability, in Python and on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import dcu as package
from dcu.codec import Codec
from dcu.labels import Label
from dcu.tasks.classify import Classifier, Predictions
from dcu.tasks.prior import class_weights, reweighted

from .conftest import Dcu, one_line, smooth_image

LABELS = (Label("cat", "n00000000"), Label("dog", "n00000001"), Label("tea", "n00000002"))


@pytest.fixture
def data(codec: Codec) -> bytes:
    return codec.compress(smooth_image(64, 64))


@pytest.fixture
def file(data: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "x.bin"
    path.write_bytes(data)
    return path


def by_label(answer: Predictions) -> dict[str, float]:
    return {p.label: p.probability for p in answer.predictions}


def test_weights_of_classes() -> None:
    assert class_weights(LABELS, None, None) is None
    for names in (["cat", "Tea"], ["n00000000", "2"], [0, 2]):
        weights = class_weights(LABELS, names, None)
        assert weights is not None
        assert weights.tolist() == [1, 0, 1]
    weights = class_weights(LABELS, ["cat", "dog"], {"dog": 3, "tea": 9})
    assert weights is not None
    assert weights.tolist() == [1, 3, 0]
    with pytest.raises(ValueError, match="all class weights are 0"):
        class_weights(LABELS, ["cat"], {"cat": 0})
    with pytest.raises(ValueError, match="all class weights are 0"):
        class_weights(LABELS, [], None)


def test_bayes_rule() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])
    weighted = reweighted(p, torch.tensor([0.0, 3.0, 1.0], dtype=torch.float64))
    assert weighted[0].tolist() == [0, 0.75, 0.25]
    assert weighted[1].tolist() == [0, 0.75, 0.25], "of classes without any probability the weights decide"


def test_classes_of_an_image_in_python(data: bytes) -> None:
    classifier = Classifier.load()
    plain = by_label(classifier(data))
    assert set(plain) == {"cat", "dog", "tea"}
    two = by_label(classifier(data, classes=["cat", "n00000002"]))
    assert two == pytest.approx({name: plain[name] / (plain["cat"] + plain["tea"]) for name in ("cat", "tea")})
    prior = by_label(package.classify(data, prior={"cat": 2.0}))
    assert prior == pytest.approx({name: plain[name] * (1 + (name == "cat")) / (1 + plain["cat"]) for name in plain})
    none = classifier(data, min_probability=1.0)
    assert (none.best, none.predictions) == (None, ())
    assert none.max_probability == pytest.approx(max(plain.values()))
    least = sorted(plain.values())[1]
    assert len(classifier(data, min_probability=least).predictions) == 2


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"classes": ["horse"]}, ValueError),
        ({"classes": "cat"}, TypeError),
        ({"classes": [1.5]}, TypeError),
        ({"prior": {"cat": -1}}, ValueError),
        ({"prior": {"cat": float("nan")}}, ValueError),
        ({"prior": {"cat": "2"}}, TypeError),
        ({"min_probability": 1.5}, ValueError),
        ({"min_probability": "0.5"}, TypeError),
    ],
)
def test_wrong_arguments(data: bytes, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        package.classify(data, **options)


def test_files_of_classes_and_weights(dcu: Dcu, file: Path, tmp_path: Path) -> None:
    (plain,) = dcu("classify", file, "--json").lines
    assert plain["max_probability"] == plain["predictions"][0]["probability"]
    classes, prior = tmp_path / "classes.txt", tmp_path / "prior.csv"
    classes.write_text("# animals\ncat\n\nN00000001\n")
    prior.write_text('label,weight\n"dog", 3\n0,1\n')
    (answer,) = dcu("classify", file, "--classes", classes, "--prior", prior, "--json").lines
    p = {each["label"]: each["probability"] for each in plain["predictions"]}
    total = p["cat"] + 3 * p["dog"]
    found = {each["label"]: each["probability"] for each in answer["predictions"]}
    assert found == pytest.approx({"cat": p["cat"] / total, "dog": 3 * p["dog"] / total}, abs=1e-5)


def test_no_label_is_said(dcu: Dcu, file: Path) -> None:
    (answer,) = dcu("classify", file, "--min-probability", "1", "--json").lines
    assert answer["predictions"] == []
    assert 0 < answer["max_probability"] < 1
    said = dcu("classify", file, "--min-probability", "1").out
    assert f"no label: the most probable class has {100 * answer['max_probability']:.1f} %" in said


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("--classes", b"cat\nhorse\n", "list:2: 'horse' is not a class of classifier-0.0983"),
        ("--classes", b"", "no classes"),
        ("--classes", b"# nothing\n", "no classes"),
        ("--classes", b"\xff\xfe", "not UTF-8"),
        ("--prior", b"cat\n", "list:1: expected label,weight"),
        ("--prior", b"cat,1,2\n", "list:1: expected label,weight"),
        ("--prior", b"cat,1\rdog,2\n", "not CSV"),
        ("--prior", b"c" * 200_000 + b",1\n", "not CSV"),
        ("--prior", b"cat,-1\n", "list:1: '-1' is not a weight"),
        ("--prior", b"cat,nan\n", "is not a weight"),
        ("--prior", b"cat,many\n", "is not a weight"),
        ("--prior", b"cat,1\nCat,2\n", "list:2: duplicate class 'Cat'"),
        ("--prior", b"label,weight\n", "no classes"),
        ("--prior", b"cat,0\ndog,0\ntea,0\n", "all class weights are 0"),
        ("--prior", b"horse,2\n", "'horse' is not a class"),
    ],
)
def test_broken_files_end_the_run_once(
    dcu: Dcu, file: Path, tmp_path: Path, option: str, text: bytes, message: str
) -> None:
    (tmp_path / "list").write_bytes(text)
    answer = dcu("classify", file, file, option, tmp_path / "list")
    assert (answer.code, answer.out) == (65, "")
    assert one_line(answer.err)
    assert message in answer.err


def test_files_that_cannot_be_read(dcu: Dcu, file: Path, tmp_path: Path) -> None:
    for option in ("--classes", "--prior"):
        for name in (tmp_path / "none", tmp_path, ""):
            answer = dcu("classify", file, option, name)
            assert answer.code == 66
            assert one_line(answer.err)
    large = tmp_path / "large"
    with large.open("wb") as opened:
        opened.truncate(2**30)
    assert dcu("classify", file, "--classes", large).code == 65
    assert dcu("classify", file, "--min-probability", "2").code == 2


def test_json_has_the_same_keys_with_and_without_a_label(dcu: Dcu, file: Path) -> None:
    some, none = (json.loads(dcu("classify", file, "--json", "--min-probability", p).out) for p in ("0", "1"))
    assert some.keys() == none.keys() == {"input", "predictions", "max_probability", "network", "codec"}
