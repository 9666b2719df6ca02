"""The loop, and a codec and a classifier trained for a few steps on a tiny set."""

from __future__ import annotations

import io
import json
import signal
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import nn

from dcu.codec import Codec
from dcu.data import items
from dcu.errors import BrokenInputError, MissingInputError, OutputError, UsageError
from dcu.nets.efficientnet import EfficientNetLite0
from dcu.nets.norms import add_norms, fold_norms
from dcu.store import shipped
from dcu.train import classifier as classifier_module
from dcu.train import views as views_module
from dcu.train.classifier import ClassifierRecipe, ClassifierTask
from dcu.train.codec import CodecData, CodecRecipe, CodecTask
from dcu.train.loop import Run, Schedule, prefetch, read_recipe
from dcu.train.views import Cache, ClassifierData, plan_views

from .conftest import RECIPE, Dcu, one_line, png, smooth_picture

SCHEDULE = Schedule(steps=4, learning_rate=1e-3, warmup=2, validate_every=2, checkpoint_every=2)
DATA = CodecData(crop=32, batch=2, held_out=2)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    tar = tmp_path / "pictures.tar"
    with tarfile.open(tar, "w") as archive:
        for index in range(6):
            data = png(smooth_picture(40 + index, 48, seed=index))
            info = tarfile.TarInfo(f"n{index % 3:08}/{index}.png")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return tar


def quiet() -> Console:
    return Console(file=io.StringIO())


def new_run(pictures: Path, folder: Path, schedule: Schedule = SCHEDULE) -> Run:
    return Run(CodecTask(RECIPE, DATA, items(pictures), schedule.seed), schedule, folder)


def test_resumed_run_is_the_same_run(pictures: Path, tmp_path: Path) -> None:
    straight = new_run(pictures, tmp_path / "a")
    assert straight.train(None, quiet())
    broken = new_run(pictures, tmp_path / "b")
    assert not broken.train(0, quiet())  # stops after one step
    resumed = new_run(pictures, tmp_path / "b")
    resumed.resume()
    assert resumed.step == 1
    assert resumed.train(None, quiet())
    a, b = (load_file(tmp_path / name / "checkpoint.safetensors") for name in "ab")
    assert set(a) == set(b)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert straight.task.scalars == resumed.task.scalars


def test_interrupted_run_is_the_same_run(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of a validation, when the module holds the averaged weights."""
    straight = new_run(pictures, tmp_path / "a")
    straight.train(None, quiet())
    broken = new_run(pictures, tmp_path / "b")
    validate = broken.task.validate

    def interrupted() -> dict[str, float]:
        signal.raise_signal(signal.SIGINT)
        return validate()

    monkeypatch.setattr(broken.task, "validate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        broken.train(None, quiet())
    resumed = new_run(pictures, tmp_path / "b")
    resumed.resume()
    assert resumed.step == SCHEDULE.validate_every
    resumed.train(None, quiet())
    a, b = (load_file(tmp_path / name / "checkpoint.safetensors") for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert straight.task.scalars == resumed.task.scalars


def test_place_that_takes_no_checkpoint(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        new_run(pictures, tmp_path / "file").train(None, quiet())


def test_too_few_pictures_to_hold_any_out(pictures: Path) -> None:
    with pytest.raises(UsageError):
        CodecTask(RECIPE, replace(DATA, held_out=6), items(pictures), 0)


def test_norms_start_as_the_identity_and_fold_away() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    x = torch.randn(8, 3, 9, 9)
    before = network(x)
    statistics = {"0": (torch.tensor([0.1, -2.0, 0.5, 0.0]), torch.tensor([0.02, 1.0, 3.0, 0.5]))}
    add_norms(network, statistics | {"2": (torch.zeros(2), torch.ones(2))})
    assert torch.allclose(network.eval()(x), before, atol=1e-2)
    network.train()(x * 3 + 1)  # moves the running statistics
    trained = network.eval()(x)
    assert not torch.allclose(trained, before, atol=1e-2)
    fold_norms(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert torch.allclose(network(x), trained, atol=1e-4)


def test_training_lowers_the_loss(pictures: Path, tmp_path: Path) -> None:
    run = new_run(pictures, tmp_path, replace(SCHEDULE, steps=40, validate_every=10))
    before = run.validate()
    run.train(None, quiet())
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30, 40]
    assert lines[-1]["psnr"] > before["psnr"]


def test_lambda_grows_where_the_rate_is_too_high(pictures: Path, tmp_path: Path) -> None:
    low = CodecTask(replace(RECIPE, rate=1e-4), DATA, items(pictures), 0)
    start = low.scalars["lambda"]
    low.loss(low.batch(0))
    assert low.scalars["lambda"] > start
    high = CodecTask(replace(RECIPE, rate=99.0), DATA, items(pictures), 0)
    high.loss(high.batch(0))
    assert high.scalars["lambda"] < start


def test_batches_are_functions_of_seed_and_step(pictures: Path) -> None:
    one, two = (CodecTask(RECIPE, DATA, items(pictures), 0) for _ in range(2))
    assert torch.equal(one.batch(3)[0], two.batch(3)[0])
    assert not torch.equal(one.batch(3)[0], one.batch(4)[0])


def test_learning_rate_warms_up_and_decays() -> None:
    schedule = Schedule(steps=100, learning_rate=1.0, warmup=10)
    scales = [schedule.scale(step) for step in range(100)]
    assert scales[0] == pytest.approx(0.1)
    assert max(scales) == scales[10] == 1
    assert scales[-1] == pytest.approx(schedule.final, abs=1e-3)


def test_prefetch_keeps_the_order() -> None:
    assert list(prefetch(lambda i: i * i, range(3, 30))) == [i * i for i in range(3, 30)]


def test_checkpoints_that_are_none(pictures: Path, tmp_path: Path) -> None:
    run = new_run(pictures, tmp_path)
    with pytest.raises(MissingInputError):
        run.resume()
    run.checkpoint.path.write_bytes(b"nonsense")
    with pytest.raises(BrokenInputError):
        run.resume()


@pytest.mark.parametrize(
    "text",
    [
        "[codec",
        "[wrong]",
        "[codec]\nname='x'\nrate='1'\ngroups=[]",
        "[codec]\nname = 'x'",
        "[codec]\nname='x'\nrate=1\ngroups=[]\ncolour=1",
        "codec = 3",
    ],
)
def test_broken_recipes(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_recipe(path, codec=CodecRecipe)
    assert "\n" not in str(caught.value)


def test_shipped_recipes_can_be_read() -> None:
    folder = shipped("configs")
    for path in folder.glob("codec-*.toml"):
        parts = read_recipe(path, codec=CodecRecipe, data=CodecData, schedule=Schedule)
        assert parts["codec"].name == path.stem
    for path in folder.glob("classifier-*.toml"):
        parts = read_recipe(path, classifier=ClassifierRecipe, data=ClassifierData, schedule=Schedule)
        assert parts["classifier"].name == path.stem


CODEC_TOML = """
[codec]
name = "tiny"
rate = 0.5
width = 8
analysis_depth = 1
synthesis_depth = 1
context_hidden = 8
groups = [{ channels = 1, levels = 9, passes = 3 }, { channels = 2, levels = 5, passes = 2 }]
[data]
crop = 32
batch = 2
held_out = 1
[schedule]
steps = 3
learning_rate = 1e-3
"""


def test_codec_from_recipe_to_picture(dcu: Dcu, pictures: Path, photo: Path, tmp_path: Path) -> None:
    recipe, model = tmp_path / "tiny.toml", tmp_path / "models" / "tiny"
    recipe.write_text(CODEC_TOML)
    call = ["train", "codec", recipe, "--data", pictures, "--out", model, "--runs", tmp_path / "runs"]
    assert dcu(*call, "--minutes", "0").code == 0
    again = dcu(*call)
    assert again.code == 2
    assert one_line(again.err)
    assert dcu(*call, "--resume").code == 0
    assert dcu("models", "verify", model).code == 0
    card = json.loads(dcu("models", "show", model).out)
    assert card["steps"] == 3
    assert card["data"] == {"pictures": 6}
    assert set(card["macs_per_pixel"]) == {"analysis", "synthesis", "context"}
    assert dcu("compress", photo, "-o", tmp_path / "x.bin", "--codec", model).code == 0


CLASSIFIER_TOML = """
[classifier]
name = "tiny-classifier"
codec = "codec-0.0983"
width = 4
depth = 1
adapt_steps = 1
[data]
batch = 3
held_out = 1
held_out_from = ["pictures"]
views = { pictures = 1.5 }
[schedule]
steps = 2
learning_rate = 1e-3
"""


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random RGB network in the place of the trained one."""

    def network() -> EfficientNetLite0:
        torch.manual_seed(0)
        return EfficientNetLite0().eval()

    for module in (classifier_module, views_module):
        monkeypatch.setattr(module, "rgb_network", network)
    monkeypatch.setattr(classifier_module, "trunk_statistics", dict)


def classifier_run(codec: Codec, pictures: Path, folder: Path, steps: int) -> Run:
    recipe, data = ClassifierRecipe("x", codec.name, width=4, depth=1, adapt_steps=2), ClassifierData(batch=3)
    schedule = Schedule(steps=steps, learning_rate=1e-2, warmup=1)
    views, held_out = plan_views(items(pictures), data, 0)
    train, held = (Cache(folder / n, chosen, codec, data, schedule) for n, chosen in (("a", views), ("b", held_out)))
    train.build(lambda values, total: values)
    return Run(ClassifierTask(recipe, data, codec, train, held, 0), schedule, folder)


@pytest.mark.usefixtures("teacher")
def test_trunk_adapts_then_settles(codec: Codec, pictures: Path, tmp_path: Path) -> None:
    run = classifier_run(codec, pictures, tmp_path, 5)
    name, states = "trunk.blocks.0.project.convolution.weight", []
    for step in range(5):
        run.train_step(run.task.batch(step))
        states.append({n: t.clone() for n, t in run.task.module.state_dict().items()})
    assert not torch.equal(states[0][name], states[1][name])
    assert torch.equal(states[2][name], states[4][name])
    assert torch.equal(states[2]["trunk.head.norm.running_mean"], states[4]["trunk.head.norm.running_mean"])
    assert not torch.equal(states[2]["stem.convolution.weight"], states[4]["stem.convolution.weight"])


@pytest.mark.usefixtures("teacher")
def test_settled_run_resumes_as_the_same_run(codec: Codec, pictures: Path, tmp_path: Path) -> None:
    straight = classifier_run(codec, pictures, tmp_path, 4)
    straight.train(None, quiet())
    whole = load_file(straight.checkpoint.path)
    straight.checkpoint.path.unlink()
    for _ in range(4):
        part = classifier_run(codec, pictures, tmp_path, 4)
        if part.checkpoint.path.exists():
            part.resume()
        part.train(0, quiet())
    assert part.step == 4
    resumed = load_file(part.checkpoint.path)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@pytest.mark.usefixtures("teacher")
def test_views_are_made_once_and_continued(codec: Codec, pictures: Path, tmp_path: Path) -> None:
    cache = classifier_run(codec, pictures, tmp_path, 1).task.train  # type: ignore[attr-defined]
    made = cache.logits.copy()
    assert cache.done() == len(cache) == 6
    cache.logits[:] = 0
    cache.keep(0)
    again = classifier_run(codec, pictures, tmp_path, 1).task.train  # type: ignore[attr-defined]
    assert (again.logits == made).all()
    assert (made != 0).any()


@pytest.mark.usefixtures("teacher")
def test_classifier_from_recipe_to_label(dcu: Dcu, pictures: Path, photo: Path, tmp_path: Path) -> None:
    recipe, model = tmp_path / "tiny.toml", tmp_path / "models" / "tiny-classifier"
    recipe.write_text(CLASSIFIER_TOML)
    call = ["train", "classifier", recipe, "--data", pictures, "--out", model, "--runs", tmp_path / "runs"]
    assert dcu(*call).code == 0
    card = json.loads(dcu("models", "show", model).out)
    assert card["codec"] == "codec-0.0983"
    assert dcu("compress", photo, "-o", tmp_path / "x.bin").code == 0
    (answer,) = dcu("classify", tmp_path / "x.bin", "--network", model, "--json").lines
    assert answer["network"] == "tiny-classifier"
    assert answer["predictions"][0]["wnid"].startswith("n")
