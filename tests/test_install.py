"""Training harms no model that is there: neither shipped nor installed, neither by name nor by place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dcu import install, paths, store
from dcu.errors import UsageError
from dcu.train import averaging, head
from dcu.train.loop import Run

from .conftest import Dcu, one_line, png, smooth_image, write_classifier, write_codec
from .test_segment import RECIPE as SEGMENTER_TOML
from .test_segment import street as street
from .test_train import CLASSIFIER_TOML, CODEC_TOML

Call = Callable[..., list[Any]]


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """The user's data directory."""
    place = paths.user_models()
    assert place is not None
    return place


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of three images, called pictures."""
    for index in range(6):
        path = tmp_path / "pictures" / f"n{index % 2:08}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(smooth_image(40, 48, seed=index)))
    return tmp_path / "pictures"


@pytest.fixture(params=["codec", "classifier", "segmenter", "labels", "mean"])
def call(request: pytest.FixtureRequest, tmp_path: Path, images: Path, street: Path, user: Path) -> tuple[str, Call]:
    """Of each command that writes a model: that model's name, and the command's arguments."""
    kind = request.param
    if kind in ("labels", "mean"):
        name = "classifier-0.0983"
        images.rename(tmp_path / "classifier")

        def arguments(out: Path | None = None) -> list[Any]:
            where = ["--out", out] if out else []
            if kind == "mean":
                return ["train", "mean", name, name, "--out", out or user / name]
            return ["train", "head", tmp_path / "classifier", *where]

        return name, arguments
    name = f"{kind}-0.0983"
    tomls = {"codec": CODEC_TOML, "classifier": CLASSIFIER_TOML, "segmenter": SEGMENTER_TOML.format(input="latent")}
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(tomls[kind].replace('"tiny"', f'"{name}"').replace(f'"tiny-{kind}"', f'"{name}"'))
    data = street if kind == "segmenter" else images

    def trained(out: Path | None = None) -> list[Any]:
        where = ["--out", out] if out else []
        return ["train", kind, recipe, "--data", data, "--runs", tmp_path / "runs", *where]

    return name, trained


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


@pytest.mark.usefixtures("random_rgb")
def test_installing_hides_and_overwrites_nothing(
    dcu: Dcu, call: tuple[str, Call], own_models: Path, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found out before anything is trained; --force does it all the same."""
    name, arguments = call
    there = own_models / name
    if not there.exists():
        write_classifier(there, store.find("codec-0.0983").fingerprint)
    before = contents(there)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained first")

    with monkeypatch.context() as untrained:
        untrained.setattr(Run, "train", refuse)
        untrained.setattr(head, "own_classifier", refuse)
        untrained.setattr(averaging, "mean_model", refuse)
        hidden, overwritten = dcu(*arguments()), dcu(*arguments(there))
        (user / name).mkdir(parents=True)
        (user / name / "card.json").write_text("{")  # an invalid one is not overwritten either
        own = dcu(*arguments())
    for answer, codes in ((hidden, {2}), (overwritten, {2, 73}), (own, {73})):  # 2: the output is an input, too
        assert answer.code in codes, answer.err
        assert one_line(answer.err)
        assert "--force" in answer.err or "is the input" in answer.err
    assert contents(there) == before
    assert dcu(*arguments(), "--force").code == 0
    assert dcu("models", "verify", user / name).code == 0
    assert contents(there) == before


def test_a_model_that_appears_meanwhile_is_kept(
    dcu: Dcu, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint is not lost: the model is written elsewhere, without training again."""
    recipe, model = tmp_path / "tiny.toml", tmp_path / "model"
    recipe.write_text(CODEC_TOML)
    arguments = ["train", "codec", recipe, "--data", images, "--runs", tmp_path / "runs"]
    train = Run.train

    def appears(run: Run[Any], *rest: Any) -> bool:
        done = train(run, *rest)
        write_codec(model)
        return done

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Run, "train", appears)
        answer = dcu(*arguments, "--out", model)
    assert answer.code == 73
    assert "--resume with another --out" in answer.err
    assert "training" not in json.loads((model / "card.json").read_text())
    assert dcu(*arguments, "--out", tmp_path / "other", "--resume").code == 0
    assert dcu("models", "verify", tmp_path / "other").code == 0


def test_a_resumed_run_replaces_its_own_model_and_no_other(dcu: Dcu, images: Path, tmp_path: Path) -> None:
    recipe, model = tmp_path / "tiny.toml", tmp_path / "model"
    recipe.write_text(CODEC_TOML)
    arguments = ["train", "codec", recipe, "--data", images, "--runs", tmp_path / "runs", "--out", model]
    assert dcu(*arguments, "--minutes", "0").code == 0
    first = store.read_model(model).card.training
    assert dcu(*arguments, "--resume").code == 0
    then = store.read_model(model).card.training
    assert (first and first.steps, then and then.steps) == (1, 3)
    write_codec(model, seed=5)
    before = contents(model)
    assert dcu(*arguments, "--resume").code == 73
    assert contents(model) == before


def test_places_that_cannot_hold_a_model(dcu: Dcu, images: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    (tmp_path / "file").write_text("")
    for name, out, code in (
        ("tiny", tmp_path / "file", 73),
        ("tiny", tmp_path / "file" / "model", 73),
        ("tiny", Path("/"), 2),
        ("../../tiny", None, 2),
        ("..", None, 2),
        ("", None, 2),
        ("a/b", None, 2),
    ):
        recipe.write_text(CODEC_TOML.replace('"tiny"', f'"{name}"'))
        where = ["--out", out] if out else []
        answer = dcu("train", "codec", recipe, "--data", images, "--runs", tmp_path / "runs", *where)
        assert answer.code == code
        assert one_line(answer.err)


def test_without_a_home_directory_the_place_must_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(paths, "user_models", lambda: None)
    with pytest.raises(UsageError, match="--out"):
        install.place_for("tiny", None)
    assert install.place_for("tiny", tmp_path / "x") == tmp_path / "x"


def test_models_are_removed_by_name(dcu: Dcu, user: Path, tmp_path: Path, models: Path) -> None:
    write_codec(user / "mine", seed=5)
    write_codec(user / "codec-0.0983", seed=6)
    write_codec(user / "broken").directory.joinpath("card.json").write_text("{")
    (user / "mine" / "notes.txt").write_text("kept")
    (user / "linked").symlink_to(write_codec(tmp_path / "elsewhere", seed=7).directory)
    for name in ("mine", "codec-0.0983", "broken", "linked"):
        answer = dcu("models", "remove", name)
        assert answer.code == 0, answer.err
        assert dcu("models", "remove", name).code == (2 if name == "codec-0.0983" else 69)
    assert [path.name for path in user.iterdir()] == ["mine"]
    assert contents(user / "mine") == {"notes.txt": b"kept"}
    assert store.read_model(tmp_path / "elsewhere").weights()
    assert dcu("models", "verify", "codec-0.0983").code == 0


@pytest.mark.parametrize(
    ("name", "code"),
    [("none", 69), ("", 69), (".", 69), ("..", 69), ("codec-0.330", 2), ("codec-0.0983", 2), ("./x", 2), ("/x", 2)],
)
def test_models_that_cannot_be_removed(dcu: Dcu, name: str, code: int) -> None:
    answer = dcu("models", "remove", name)
    assert answer.code == code
    assert one_line(answer.err)


HOLDER = """
import sys
from pathlib import Path
from dcu.io import locked
with locked(Path(sys.argv[1]) / "lock"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_trainings_in_one_directory_refuse_each_other(dcu: Dcu, images: Path, tmp_path: Path) -> None:
    """A process that was killed blocks nobody."""
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(CODEC_TOML)
    arguments = ["train", "codec", recipe, "--data", images, "--runs", tmp_path / "runs", "--out", tmp_path / "model"]
    holder = [sys.executable, "-c", HOLDER, str(tmp_path / "runs" / "tiny")]
    with subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        answer = dcu(*arguments)
        assert answer.code == 2
        assert "another training" in answer.err
        assert one_line(answer.err)
        assert not (tmp_path / "model").exists()
        other.kill()
    assert dcu(*arguments).code == 0


def test_a_recipe_is_named_or_a_path(dcu: Dcu, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory or file of the current directory does not stand in the way of a shipped recipe's name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "codec-0.0983").write_text("not a recipe")
    seen: list[str] = []

    def stop(run: Run[Any], *_: object) -> bool:
        seen.append(run.task.recipe.name)  # type: ignore[attr-defined]
        raise UsageError("enough")

    monkeypatch.setattr(Run, "train", stop)
    torch.manual_seed(0)
    (tmp_path / "mine.toml").write_text(CODEC_TOML)
    (tmp_path / "mine").write_text(CODEC_TOML.replace("tiny", "small"))
    for name in ("mine.toml", "./mine.toml", "./mine", str(tmp_path / "mine")):
        assert dcu("train", "codec", name, "--data", images, "--out", tmp_path / "out").code == 2
    assert seen == ["tiny", "tiny", "small", "small"]
    assert dcu("train", "codec", "mine", "--data", images).code == 66
