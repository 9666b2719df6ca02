"""Recipes: how they are read, and that every one that dcu ships trains."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from dcu import paths, store
from dcu.cards import Card
from dcu.cli import train
from dcu.data import items
from dcu.datasets import table
from dcu.errors import MissingInputError, UsageError
from dcu.tasks import rgb
from dcu.train.adapter import ClassifierTraining
from dcu.train.codec import CodecTraining
from dcu.train.joint import JointTraining
from dcu.train.loop import Run
from dcu.train.recipe import find_recipe
from dcu.train.resnet import ResNetTraining
from dcu.train.segmenter import SegmenterTraining
from dcu.train.variable_rate import VariableRateTask, VariableRateTraining

from .conftest import Dcu, write_classes

CONFIGS = paths.shipped("configs")
FILES = sorted(path for path in CONFIGS.glob("*.toml") if path.stem != "mixtures")
RATES = ("0.0983", "0.330", "0.635")
WITHOUT_RATES = (
    "classifier-2",
    "codec-2",
    "codec-2-machines",
    "codec-2-ms-ssim",
    "codec-2-sharp",
    "paper",
    "paper-small",
)
"""Recipes of one model each."""
NAMES = [path.stem if path.stem in WITHOUT_RATES else f"{path.stem}-{rate}" for path in FILES for rate in RATES]
NAMES += ["segmenter-2"]
SMALL = ("schedule.steps=2", "data.batch=2", "data.held_out=1")
VIEWS = (*SMALL, "data.again=1")
RUNS = {
    "codec-0.0983": ("codec", ["schedule.steps=20", "data.crop=32", *SMALL[1:]]),
    "codec-2": ("codec", ["data.validate_on=1", *SMALL]),
    "codec-2-ms-ssim": ("codec", ["data.validate_on=1", *SMALL]),
    "codec-2-sharp": ("codec", ["data.validate_on=1", *SMALL]),
    "paper": ("classifier", ["schedule.steps=20", "data.crop=32", "resnet.width=0.0625", *SMALL[1:]]),
    "paper-small": ("classifier", ["data.crop=32", *SMALL]),
    "codec-2-machines": ("joint", ["data.validate_on=1", "data.window=64", *SMALL, "data.batch=4"]),
    "codec-ms-ssim-0.0983": ("codec", SMALL),
    "rgb-classifier-0.0983": ("classifier", VIEWS),
    "adapter-0.0983": ("classifier", ["schedule.steps=20", "adapter.views=4", *SMALL[1:]]),
    "classifier-0.0983": ("classifier", VIEWS),
    "classifier-2": ("classifier", ["classifier.codec=codec-0.0983", "classifier.anchors=0", *VIEWS]),
    "classifier-lite0-0.0983": ("classifier", ["--init", "classifier-0.0983", *VIEWS]),
    "segmenter-0.0983": ("segmenter", ["data.crop=64", *SMALL]),
}
"""Of each file one recipe: the command that trains it, and what makes it small."""


def section_type(name: str) -> type[Any]:
    """The dataclass of a shipped recipe's sections."""
    if name == "codec-2-machines":
        return JointTraining
    if name.startswith("codec-2"):
        return VariableRateTraining
    kinds = {"codec": CodecTraining, "segmenter": SegmenterTraining, "paper": ResNetTraining}
    return kinds.get(name.split("-")[0], ClassifierTraining)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_recipes_begin_with_command_time_and_result(path: Path) -> None:
    head = path.read_text("utf-8").partition("\n[")[0]
    for word in ("Command", "Time", "Result"):
        assert re.search(rf"^# {word}: +\S", head, re.MULTILINE), word
    assert re.search(rf"dcu train \w+ {path.stem}\b", head)
    for experiment in re.findall(r"experiments/([\w.-]+)", head):
        assert (CONFIGS.parent / "experiments" / experiment / "notes.md").exists()


@pytest.mark.parametrize("name", sorted(set(NAMES)))
def test_recipes_are_read(name: str) -> None:
    found = find_recipe(name)
    assert found.name == name
    parts = found.sections(section_type(name))
    sections = ("codec", "variable_rate", "classifier", "resnet", "segmenter")
    (kind,) = (section for section in sections if found.has(section))
    assert name in WITHOUT_RATES or getattr(parts, kind).name.endswith(name.rpartition("-")[2])


def test_recipes_name_published_data_sets_only() -> None:
    published = {Path(tar.name).stem for data_set in table.DATA_SETS.values() for tar in data_set.tars}
    named = {name for mixture in tomllib.loads((CONFIGS / "mixtures.toml").read_text()).values() for name in mixture}
    for path in FILES:
        tables = tomllib.loads(path.read_text("utf-8"))
        data, network = tables.get("data", {}), tables.get("classifier", {})
        named |= {*data.get("held_out_from", ()), *data.get("larger_from", ()), *network.get("labelled_from", ())}
    assert named
    assert named <= published


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twelve images, called pictures."""
    return write_classes(tmp_path / "pictures", [f"n{index:08}" for index in range(3)])


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The released models, and beside them an rgb-classifier, which one stage trains for the next."""
    monkeypatch.delenv("DCU_MODELS")
    place = paths.user_models()
    assert place is not None
    card = Card("rgb-classifier", store.find("codec-0.0983").fingerprint)
    store.write_model(place / "rgb-classifier-0.0983", card, rgb.rgb_network().state_dict())


def test_every_recipe_is_run() -> None:
    assert {find_recipe(name).path for name in RUNS} == set(FILES)


@pytest.mark.slow
@pytest.mark.usefixtures("random_rgb", "tuned")
@pytest.mark.parametrize("name", RUNS)
def test_recipes_train(
    dcu: Dcu, images: Path, street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """With the networks as they are released, few images and few steps."""
    for module in ("init", "student", "segmenter"):
        monkeypatch.setattr(f"dcu.train.{module}.NORM_BATCHES", 1)
    kind, settings = RUNS[name]
    if kind == "joint":
        start = find_recipe("codec-2", ["data.validate_on=1", *SMALL]).sections(VariableRateTraining)
        begun = Run(
            VariableRateTask(start.variable_rate, start.data, items(images), 0), start.schedule, tmp_path / "start"
        )
        begun.save()
        settings = [*settings, "--init", str(begun.checkpoint.path)]
    chosen = [part for setting in settings for part in (("--set", setting) if "=" in setting else (setting,))]
    data = street if kind == "segmenter" else images
    call = ["train", kind, name, "--data", data, "--runs", tmp_path / "runs", "--out", tmp_path / "models" / "new"]
    done = dcu(*call, *chosen)
    assert done.code == 0, done.err
    assert f"held out for validation: 1 of {3 if kind == 'segmenter' else 12} images" in done.err
    (line,) = (json.loads(line) for line in (tmp_path / "runs" / name / "log.jsonl").read_text().splitlines())
    assert line["step"] == (20 if "schedule.steps=20" in settings else 2)
    assert np.isfinite(line["loss"])
    if not name.startswith("codec-2"):
        assert dcu("models", "verify", tmp_path / "models" / "new").code == 0


SHARED = """
[codec]
width = 8
[data]
mixture = "mine"
weights = { b = 3 }
[schedule]
steps = 3
learning_rate = 1e-3
[rate."0.5"]
schedule = { steps = 4 }
[rate."0.5".codec]
name = "tiny"
rate = 0.5
groups = [{ channels = 1, levels = 9, passes = 3 }]
"""


def test_rates_bases_mixtures_and_settings(tmp_path: Path) -> None:
    """Later ones in the place of earlier ones: base, recipe, rate, setting."""
    (tmp_path / "own.toml").write_text(SHARED)
    (tmp_path / "mixtures.toml").write_text("[mine]\na = 2\nb = 5\n")
    (tmp_path / "other.toml").write_text('base = "own"\n[schedule]\nseed = 7\n[rate."0.5".codec]\nrate = 0.6')
    for name in (f"{tmp_path}/own-0.5", f"{tmp_path}/own-0.5.toml"):
        found = find_recipe(name)
        parts = found.sections(CodecTraining)
        assert (found.name, parts.codec.rate, parts.codec.width, parts.schedule.steps) == ("own-0.5", 0.5, 8, 4)
        assert parts.data.weights == {"a": 2, "b": 3}
    found = find_recipe(f"{tmp_path}/other-0.5", ["schedule.steps = 9", "codec.name=new-0.5", "data.weights.c=1"])
    parts = found.sections(CodecTraining)
    assert (found.name, parts.codec.name, parts.codec.rate) == ("other-0.5", "new-0.5", 0.6)
    assert (parts.schedule.steps, parts.schedule.seed) == (9, 7)
    assert parts.data.weights == {"a": 2, "b": 3, "c": 1}
    (tmp_path / "third.toml").write_text('base = "other"\n[schedule]\nseed = 8')
    parts = find_recipe(f"{tmp_path}/third-0.5").sections(CodecTraining)
    assert (parts.codec.rate, parts.codec.width, parts.schedule.steps, parts.schedule.seed) == (0.6, 8, 4, 8)
    (tmp_path / "own.toml").write_text('base = "third"\n')
    with pytest.raises(UsageError, match="base leads back to third"):
        find_recipe(f"{tmp_path}/third-0.5")
    shutil.copy(CONFIGS / "codec.toml", tmp_path)  # a copy of a shipped one finds the mixtures that dcu ships
    (tmp_path / "mixtures.toml").unlink()
    assert find_recipe(f"{tmp_path}/codec-0.330").sections(CodecTraining).data.weights["imagenet1000-train"] == 4


@pytest.mark.parametrize("name", ["codec", "codec-0.5", "codec.toml", "codec-2-0.5", "none", "none-0.5", ""])
def test_recipes_that_do_not_exist(name: str) -> None:
    with pytest.raises((UsageError, MissingInputError)) as caught:
        find_recipe(name)
    assert "\n" not in str(caught.value)
    assert name != "codec-0.5" or "codec-0.330" in str(caught.value)
    assert name != "codec-2-0.5" or "codec-2-0.5: no such recipe" in str(caught.value)
    assert name != "none" or "none: no such recipe; there are adapter, " in str(caught.value)


@pytest.mark.parametrize(
    "setting", ["", "=3", "steps", "steps=3", "batch=4", "schedule.steps=x", "schedule=3", "a.b=1", "..=3"]
)
def test_settings_that_are_none(setting: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_recipe("codec-0.330", [setting]).sections(CodecTraining)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "[codec",
        "[wrong]",
        "[codec]\nname='x'\nrate='1'\ngroups=[]",
        "[codec]\nname = 'x'",
        "[codec]\nname='x'\nrate=1\ngroups=[]\ncolour=1",
        "codec = 3",
        "rate = 3",
        "[rate]\nx = 3",
        "base = 3",
        "base = '../recipe'",
        "base = 'none'",
        "base = 'recipe'",
        "[data]\nmixture = 'none'",
        "[data]\nmixture = 3",
    ],
)
def test_broken_recipes(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises((UsageError, MissingInputError)) as caught:
        find_recipe(str(tmp_path / "recipe.toml")).sections(CodecTraining)
    assert "\n" not in str(caught.value)


COMMANDS = sorted(
    {
        line.strip("`# ")
        for path in (CONFIGS.parent / "docs" / "training.md", CONFIGS.parent / "README.md", *FILES)
        for line in re.findall(r"(?:`|^|: +|^# +)(dcu train [^`\n]+)", path.read_text("utf-8"), re.MULTILINE)
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_documented_commands_exist(command: str) -> None:
    """Their recipes and their options; what they do is tested above."""
    words = shlex.split(re.sub(r"\$[A-Z]+", "--data a.tar", command.partition("  #")[0]).replace("DATA", "a.tar"))
    group = typer.main.get_command(train.app)
    assert isinstance(group, typer.core.TyperGroup)
    name, arguments = words[2], words[3:]
    group.commands[name].make_context(name, list(arguments))
    if name in ("codec", "classifier", "joint", "segmenter"):
        settings = [value for option, value in pairwise(arguments) if option == "--set"]
        if not store.is_path(arguments[0]) and not arguments[0].startswith("--"):
            find_recipe(arguments[0], settings).sections(section_type(arguments[0]))
