"""The loop, and a codec and a classifier trained for a few steps on a tiny set."""

from __future__ import annotations

import io
import json
import math
import shutil
import signal
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dcu import store
from dcu.cards import Card
from dcu.codec import Codec
from dcu.data import items, replaceable
from dcu.errors import InvalidInputError, MissingInputError, OutputError, UnavailableError, UsageError
from dcu.image import standard_resize
from dcu.labels import IMAGENET
from dcu.labels import Label as Class
from dcu.nets.latent import adapter_shape, removed_blocks
from dcu.nets.norms import add_norms, fold_norms
from dcu.nets.rgb import to_input
from dcu.schema import build
from dcu.tasks import rgb
from dcu.tasks.classify import Classifier
from dcu.train import classifier, loop, parallel
from dcu.train.adapter import AdapterRecipe, AdapterTask
from dcu.train.checkpoint import Checkpoint
from dcu.train.classifier import ClassifierBatch, ClassifierTask, Distillation, mixed_with_labels
from dcu.train.codec import CodecBatch, CodecData, CodecTask, CodecTraining
from dcu.train.init import initialize, segmenter_network
from dcu.train.inputs import network_input
from dcu.train.loop import Run, prefetch
from dcu.train.recipe import Schedule, find_recipe
from dcu.train.student import ClassifierRecipe, LabeledViews
from dcu.train.teacher import SHARPER, Targets, Teacher
from dcu.train.views import ViewData, hold_out, mixed

from .conftest import RECIPE, Dcu, backbone_classifier, one_line, png, smooth_image

SCHEDULE = Schedule(steps=4, learning_rate=1e-3, warmup=2, validate_every=2, checkpoint_every=2)
DATA = CodecData(crop=32, batch=2, held_out=2, held_out_from=("pictures",))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    tar = tmp_path / "pictures.tar"
    with tarfile.open(tar, "w") as archive:
        for index in range(6):
            data = png(smooth_image(40 + index, 48, seed=index))
            info = tarfile.TarInfo(f"n{index % 3:08}/{index}.png")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return tar


def quiet() -> Console:
    return Console(file=io.StringIO())


def new_run(images: Path, directory: Path, schedule: Schedule = SCHEDULE) -> Run[Any]:
    return Run(CodecTask(RECIPE, DATA, items(images), schedule.seed), schedule, directory)


def test_resumed_run_is_the_same_run(images: Path, tmp_path: Path) -> None:
    straight = new_run(images, tmp_path / "a")
    assert straight.train(None, quiet())
    broken = new_run(images, tmp_path / "b")
    assert not broken.train(0, quiet())  # stops after one step
    resumed = new_run(images, tmp_path / "b")
    resumed.resume()
    assert resumed.step == 1
    assert resumed.train(None, quiet())
    a, b = (load_file(tmp_path / name / "checkpoint.safetensors") for name in "ab")
    assert set(a) == set(b)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert straight.task.scalars == resumed.task.scalars


def test_interrupted_run_is_the_same_run(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of a validation, when the module holds the averaged weights."""
    straight = new_run(images, tmp_path / "a")
    straight.train(None, quiet())
    broken = new_run(images, tmp_path / "b")
    validate = broken.task.validate

    def interrupted() -> dict[str, float]:
        signal.raise_signal(signal.SIGINT)
        return validate()

    monkeypatch.setattr(broken.task, "validate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        broken.train(None, quiet())
    resumed = new_run(images, tmp_path / "b")
    resumed.resume()
    assert resumed.step == SCHEDULE.validate_every
    resumed.train(None, quiet())
    a, b = (load_file(tmp_path / name / "checkpoint.safetensors") for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert straight.task.scalars == resumed.task.scalars


def test_numbers_that_are_none_end_a_run_before_they_are_saved(images: Path, tmp_path: Path) -> None:
    run = new_run(images, tmp_path / "a")
    assert not run.train(0, quiet())
    before = (tmp_path / "a" / "checkpoint.safetensors").read_bytes()
    run = new_run(images, tmp_path / "a")
    run.resume()
    with torch.no_grad():
        next(iter(run.task.module.parameters())).fill_(math.nan)
    with pytest.raises(InvalidInputError, match="step 2: loss or gradient is not finite"):
        run.train(None, quiet())
    assert (tmp_path / "a" / "checkpoint.safetensors").read_bytes() == before


def test_place_that_takes_no_checkpoint(images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        new_run(images, tmp_path / "file").train(None, quiet())


def test_too_few_images_to_hold_any_out(images: Path) -> None:
    with pytest.raises(UsageError):
        CodecTask(RECIPE, replace(DATA, held_out=6), items(images), 0)


def test_norms_fold_away() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    x = torch.randn(8, 3, 9, 9)
    add_norms(network)
    for _ in range(3):
        network.train()(x * 3 + 1)  # moves the running statistics
    trained = network.eval()(x)
    fold_norms(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert torch.allclose(network(x), trained, atol=1e-4)


def test_training_lowers_the_loss(images: Path, tmp_path: Path) -> None:
    run = new_run(images, tmp_path, replace(SCHEDULE, steps=40, validate_every=10))
    before = run.validate()
    run.train(None, quiet())
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30, 40]
    assert lines[-1]["psnr"] > before["psnr"]


def test_a_complete_run_is_validated_however_short(images: Path, tmp_path: Path) -> None:
    run = new_run(images, tmp_path, replace(SCHEDULE, steps=3, validate_every=10))
    assert run.train(None, quiet())
    (line,) = (json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines())
    assert line["step"] == 3
    assert line["psnr"] == pytest.approx(run.validate()["psnr"], abs=1e-3)


def test_short_runs_leave_a_log(images: Path, tmp_path: Path) -> None:
    """Stopped before the first validation: what the last step was is known all the same."""
    run = new_run(images, tmp_path, replace(SCHEDULE, steps=40, validate_every=10))
    run.train(0, quiet())
    (line,) = (json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines())
    assert line["step"] == 1
    assert {"loss", "crop_bpp", "seconds"} <= set(line)


@pytest.mark.usefixtures("random_rgb")
@pytest.mark.parametrize(("processes", "scales"), [(1, (1.0,)), (3, (1.0,)), (5, (1.0, 2.0)), (64, (1.0,))])
def test_what_is_kept_to_be_seen_again_is_seen_again(
    codec: Codec, images: Path, monkeypatch: pytest.MonkeyPatch, processes: int, scales: tuple[float, ...]
) -> None:
    """Also where the number of processes does not divide 64: nothing is kept for ever, nothing distilled twice."""
    data = ViewData(batch=2, again=1, scales=scales)
    task = ClassifierTask(ClassifierRecipe("x", codec.name, width=4, depth=1), data, codec, items(images), 0)
    monkeypatch.setattr(parallel, "count", lambda: processes)
    age = data.age(processes)
    assert age >= 64
    assert age % processes == age % len(scales) == 0
    seen = Distillation(torch.zeros(1), torch.zeros(1), torch.zeros(1))
    monkeypatch.setattr(task, "distilled", lambda *_: seen)
    views = LabeledViews(torch.zeros(1), torch.zeros(1), torch.zeros(1))
    monkeypatch.setattr(task, "views", lambda *_: views)
    monkeypatch.setattr(classifier, "distillation", lambda *_: (torch.zeros(1), torch.zeros(1)))
    for step in range(processes - 1, 3 * age, processes):  # those of the last process
        assert task.batch(step).earlier is None, "what is kept is distilled again"
        task.loss(ClassifierBatch(step, views))
        assert len(task.distilled_by_step) <= age // processes


def test_frozen_parts_stay_as_they_are(images: Path, tmp_path: Path) -> None:
    """So a better synthesis still decodes every old stream."""
    recipe = replace(RECIPE, frozen=("analysis", "quantizer", "context"))
    run = Run(CodecTask(recipe, DATA, items(images), 0), SCHEDULE, tmp_path)
    before = {name: tensor.clone() for name, tensor in run.task.module.state_dict().items()}
    run.train(None, quiet())
    changed = {
        name.split(".")[0] for name, tensor in run.average.tensors.items() if not torch.equal(tensor, before[name])
    }
    assert changed == {"synthesis"}


def test_similarity_is_part_of_the_loss(images: Path) -> None:
    data = replace(DATA, crop=168)
    plain = CodecTask(RECIPE, data, items(images), 0)
    both = CodecTask(replace(RECIPE, similarity=0.5), data, items(images), 0)
    assert both.loss(both.batch(0))[0] > plain.loss(plain.batch(0))[0]
    small = CodecTask(replace(RECIPE, similarity=0.5), DATA, items(images), 0)
    with pytest.raises(UsageError, match="161"):
        small.loss(small.batch(0))


def test_finer_start_decodes_better(images: Path) -> None:
    coarse, fine = (CodecTask(replace(RECIPE, step=step), DATA, items(images), 0) for step in (4.0, 1.0))
    batch = coarse.batch(0)
    assert fine.loss(batch)[1]["crop_psnr"] > coarse.loss(batch)[1]["crop_psnr"]


def test_lambda_grows_where_the_rate_is_too_high(images: Path, tmp_path: Path) -> None:
    low = CodecTask(replace(RECIPE, rate=1e-4), DATA, items(images), 0)
    start = low.scalars["lambda"]
    low.loss(low.batch(0))
    assert low.scalars["lambda"] > start
    high = CodecTask(replace(RECIPE, rate=99.0), DATA, items(images), 0)
    high.loss(high.batch(0))
    assert high.scalars["lambda"] < start


def test_batches_are_functions_of_seed_and_step(images: Path) -> None:
    one, two = (CodecTask(RECIPE, DATA, items(images), 0) for _ in range(2))
    assert torch.equal(one.batch(3).crops, two.batch(3).crops)
    assert not torch.equal(one.batch(3).crops, one.batch(4).crops)


def test_learning_rate_warms_up_and_decays() -> None:
    schedule = Schedule(steps=100, learning_rate=1.0, warmup=10)
    scales = [schedule.scale(step) for step in range(100)]
    assert scales[0] == pytest.approx(0.1)
    assert max(scales) == scales[10] == 1
    assert scales[-1] == pytest.approx(schedule.final, abs=1e-3)


def test_prefetch_keeps_the_order() -> None:
    assert list(prefetch(lambda i: i * i, range(3, 30))) == [i * i for i in range(3, 30)]


def test_checkpoints_that_are_none(images: Path, tmp_path: Path) -> None:
    run = new_run(images, tmp_path)
    with pytest.raises(MissingInputError):
        run.resume()
    run.checkpoint.path.write_bytes(b"nonsense")
    with pytest.raises(InvalidInputError):
        run.resume()
    for scalars in ("[" * 100_000, '{"task": {}, "optimizer": {}, "step": Infinity}', "{}", "[]"):
        save_file({"weights.x": torch.zeros(1)}, run.checkpoint.path, {"scalars": scalars})
        with pytest.raises(InvalidInputError, match="not a checkpoint"):
            run.checkpoint.load()
    with pytest.raises(MissingInputError):
        Checkpoint(tmp_path / ("x" * 300)).load()


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


@pytest.mark.parametrize("computed", [True, False])
def test_bf16_is_for_devices_that_compute_it(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, computed: bool
) -> None:
    monkeypatch.setattr(loop, "computes_bf16", lambda device: computed)
    run = new_run(images, tmp_path, replace(SCHEDULE, bf16=True, steps=1))
    seen: list[bool] = []
    loss = run.task.loss

    def watched(batch: CodecBatch) -> tuple[Tensor, dict[str, float]]:
        seen.append(torch.is_autocast_enabled("cpu"))
        return loss(batch)

    monkeypatch.setattr(run.task, "loss", watched)
    said = io.StringIO()
    run.train(None, Console(file=said))
    assert seen == [computed]
    assert ("training in float32" in said.getvalue()) is not computed


def test_codec_from_recipe_to_image(dcu: Dcu, images: Path, photo: Path, tmp_path: Path) -> None:
    recipe, model = tmp_path / "tiny.toml", tmp_path / "models" / "tiny"
    recipe.write_text(CODEC_TOML)
    call = ["train", "codec", recipe, "--data", images, "--out", model, "--runs", tmp_path / "runs"]
    assert dcu(*call, "--minutes", "0").code == 0
    again = dcu(*call)
    assert again.code == 2
    assert one_line(again.err)
    assert dcu(*call, "--resume").code == 0
    assert dcu("models", "verify", model).code == 0
    card = json.loads(dcu("models", "show", model).out)
    assert card["training"]["steps"] == 3
    assert dcu("eval", "codec", images, "--codec", model, "--record").code == 0
    recorded = (model / "card.json").read_bytes()
    again = dcu(*call, "--resume")
    assert (again.code, "nothing to train" in again.err) == (0, True)
    assert (model / "card.json").read_bytes() == recorded, "what its card states stays"
    assert card["training"]["images"] == {"pictures": 6}
    assert set(card["macs_per_pixel"]) == {"analysis", "synthesis", "context"}
    assert dcu("compress", photo, "-o", tmp_path / "x.bin", "--codec", model).code == 0


CLASSIFIER_TOML = """
[classifier]
name = "tiny-classifier"
codec = "codec-0.0983"
width = 4
depth = 1
[data]
batch = 3
held_out = 1
held_out_from = ["pictures"]
weights = { pictures = 1.5 }
[schedule]
steps = 2
learning_rate = 1e-3
"""


def classifier_run(codec: Codec, images: Path, directory: Path, steps: int) -> Run[Any]:
    recipe, data = ClassifierRecipe("x", codec.name, width=4, depth=1), ViewData(batch=3)
    schedule = Schedule(steps=steps, learning_rate=1e-2, warmup=1)
    return Run(ClassifierTask(recipe, data, codec, items(images), 0), schedule, directory)


def same(a: Path, b: Path) -> bool:
    one, two = load_file(a), load_file(b)
    return set(one) == set(two) and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.usefixtures("random_rgb")
def test_classifier_resumes_as_the_same_run(codec: Codec, images: Path, tmp_path: Path) -> None:
    straight = classifier_run(codec, images, tmp_path / "a", 2)
    straight.train(None, quiet())
    classifier_run(codec, images, tmp_path / "b", 2).train(0, quiet())
    resumed = classifier_run(codec, images, tmp_path / "b", 2)
    resumed.resume()
    assert resumed.step == 1
    resumed.train(None, quiet())
    assert same(straight.checkpoint.path, resumed.checkpoint.path)


@pytest.mark.usefixtures("random_rgb")
def test_views_are_seen_again_after_a_while_and_after_a_resume(
    codec: Codec, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an earlier step's views the first; neither codec nor teacher is asked twice, unless the run was resumed."""
    monkeypatch.setattr("dcu.train.views.AGE", 2)
    data = ViewData(batch=4, again=1)

    def task() -> ClassifierTask:
        return ClassifierTask(ClassifierRecipe("x", codec.name, width=4, depth=1), data, codec, items(images), 0)

    straight, resumed = task(), task()
    asked: list[Tensor] = []

    def ask(views: Tensor, points: Tensor) -> Tensor:
        asked.append(views)
        return network_input(codec, "latent", views, points)

    monkeypatch.setattr(straight, "seen", ask)
    given: list[Tensor] = []
    for module in (straight.module, resumed.module):
        module.stem.register_forward_pre_hook(lambda _, x: given.append(x[0]))
    with torch.no_grad():
        losses = [float(straight.loss(straight.batch(step))[0]) for step in range(3)]
        assert float(resumed.loss(resumed.batch(2))[0]) == pytest.approx(losses[2], rel=1e-4)
    assert [len(views) for views in asked] == [3, 3, 3]
    assert [len(latents) for latents in given] == [3, 3, 4, 4]
    assert torch.equal(given[2][3], given[0][0])
    assert torch.allclose(given[2], given[3])
    assert set(straight.distilled_by_step) == {1, 2}
    with pytest.raises(ValueError, match="half"):
        ViewData(batch=4, again=3)


@pytest.mark.usefixtures("random_rgb")
def test_views_of_several_scales_take_turns(codec: Codec, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger ones are fewer; the teacher sees all at 224x224; those seen again are of the step's scale."""
    monkeypatch.setattr("dcu.train.views.AGE", 2)
    data = ViewData(batch=8, again=4, scales=(1.0, 2.0))
    task = ClassifierTask(ClassifierRecipe("x", codec.name, width=4, depth=1), data, codec, items(images), 0)
    given: list[torch.Size] = []
    asked: list[torch.Size] = []
    task.module.stem.register_forward_pre_hook(lambda _, x: given.append(x[0].shape))
    teacher = task.teacher

    def ask(views: Tensor) -> Targets:
        asked.append(views.shape)
        return teacher(views)

    monkeypatch.setattr(task, "teacher", ask)
    with torch.no_grad():
        assert all(float(task.loss(task.batch(step))[0]) > 0 for step in range(4))
    assert [(shape[0], *shape[2:]) for shape in given] == [(4, 28, 28), (1, 56, 56), (8, 28, 28), (2, 56, 56)]
    assert [tuple(shape) for shape in asked] == [(n, 224, 224, 3) for n in (4, 1, 4, 1)]
    for scales in ((), (1.0, 1.5, 2.0), (0.5,), (1.0, 5.0)):
        with pytest.raises(ValueError, match="scales"):
            ViewData(scales=scales)


@pytest.mark.usefixtures("random_rgb")
def test_larger_views_are_of_the_data_sets_that_are_large_enough(codec: Codec, images: Path, tmp_path: Path) -> None:
    shutil.copy(images, tmp_path / "large.tar")
    found = [*items(images), *items(tmp_path / "large.tar")]
    recipe = ClassifierRecipe("x", codec.name, width=4, depth=1)
    data = ViewData(batch=8, scales=(1.0, 2.0), larger_from=("large",), held_out=0)
    task = ClassifierTask(recipe, data, codec, found, 0)
    task.sampler.items.clear()  # so that whoever draws from it fails
    assert task.views(1, 2.0).images.shape == (2, 448, 448, 3)
    assert {item.dataset for item in task.larger.items} == {"large"}
    with pytest.raises(ValueError, match="positive"):
        task.views(0)
    task = ClassifierTask(recipe, replace(data, larger_from=("elsewhere",)), codec, found, 0)
    assert len(task.larger.items) == len(found)


@pytest.mark.usefixtures("random_rgb")
def test_what_learns_and_what_stays_the_rgb_networks(codec: Codec, images: Path, tmp_path: Path) -> None:
    run = classifier_run(codec, images, tmp_path, 1)
    before = {name: tensor.clone() for name, tensor in run.task.module.state_dict().items()}
    run.train_step(run.task.batch(0))
    moved = {n for n, t in run.task.module.state_dict().items() if not torch.equal(t, before[n])}
    assert {"stem.convolution.weight", "backbone.blocks.0.project.weight", "backbone.head.weight"} <= moved
    assert not any("depthwise" in name or "classifier" in name for name in moved)


@pytest.mark.usefixtures("random_rgb")
def test_the_whole_network_learns(codec: Codec, images: Path) -> None:
    recipe = ClassifierRecipe("x", codec.name, width=4, depth=1, whole=True)
    task = ClassifierTask(recipe, ViewData(batch=2), codec, items(images), 0)
    task.loss(task.batch(0))[0].backward()
    assert all(p.grad is not None for p in task.module.parameters())


@pytest.mark.usefixtures("random_rgb")
def test_views_at_the_fields_size(codec: Codec, images: Path) -> None:
    """Mirrored or not, they are cut from what evaluation cuts its center from."""
    recipe = ClassifierRecipe("x", codec.name, width=4, depth=1)
    task = ClassifierTask(recipe, ViewData(batch=2, at_standard_size=1.0), codec, items(images), 0)
    for height, width in ((300, 310), (120, 130), (224, 224)):
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
        view = task.view(image, np.random.default_rng(2))
        cuts = np.lib.stride_tricks.sliding_window_view(standard_resize(image), view.shape)[..., 0, :, :, :]
        assert any((cut == view).all() or (cut[:, ::-1] == view).all() for row in cuts for cut in row)
    with pytest.raises(ValueError, match="at_standard_size"):
        ViewData(at_standard_size=1.5)


@pytest.mark.usefixtures("random_rgb")
def test_held_out_images_are_not_drawn(codec: Codec, images: Path) -> None:
    data = ViewData(batch=3, held_out=2, held_out_from=("pictures",))
    task = ClassifierTask(ClassifierRecipe("x", codec.name, width=4, depth=1), data, codec, items(images), 0)
    names = {item.name for item in task.held_out}
    assert len(names) == 2
    again = ClassifierTask(ClassifierRecipe("x", codec.name, width=4, depth=1), data, codec, items(images), seed=1)
    assert names == {item.name for item in again.held_out}, (
        "a run that goes on must not learn from what judged the first"
    )
    assert not names & {item.name for item in task.sampler.items}
    with torch.no_grad():
        metrics = task.validate()
    assert set(metrics) == {"held_agreement", "held_divergence"}


def test_held_out_images_are_of_the_data_sets_named_or_a_tenth_of_any(images: Path) -> None:
    found = items(images) * 5
    for datasets, count, held in ((("pictures",), 6, 6), (("others",), 250, 3), ((), 2, 2), ((), 0, 0)):
        train, out = hold_out(found, count, datasets)
        assert (len(train), len(out)) == (30 - held, held)
    for few, datasets in ((items(images), ("pictures",)), (items(images)[:1], ())):
        with pytest.raises(UsageError, match="none left"):
            hold_out(few, 6, datasets)


def test_no_held_out_image_takes_the_place_of_a_training_image(tmp_path: Path) -> None:
    """Nor the reverse, where some cannot be read."""
    for seed in range(20):
        (tmp_path / f"{seed:02d}.png").write_bytes(b"broken" if seed % 2 else png(smooth_image(8, 8, seed)))
    train, held = hold_out(replaceable(items(tmp_path)), 2)
    assert (len(train), len(held)) == (18, 2)
    seen = [{item.image().tobytes() for item in side} for side in (train, held)]
    assert [len(images) for images in seen] == [8, 2]
    assert not seen[0] & seen[1]


def test_validation_sets_are_not_trained_on(dcu: Dcu, images: Path, tmp_path: Path) -> None:
    """Not even where they lie in a directory of tars."""
    (tmp_path / "data").mkdir()
    images.rename(tmp_path / "data" / "kodak-odd.tar")
    (tmp_path / "tiny.toml").write_text(CODEC_TOML)
    refused = dcu("train", "codec", tmp_path / "tiny.toml", "--data", tmp_path / "data", "--out", tmp_path / "model")
    assert refused.code == 2
    assert one_line(refused.err)
    assert "kodak-odd.tar" in refused.err


def test_run_is_named_after_its_recipe(dcu: Dcu, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a shipped name with a dot in it too."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "codec-0.5.toml").write_text(CODEC_TOML)
    monkeypatch.setattr("dcu.paths.shipped", lambda kind: tmp_path / kind)
    call = ["train", "codec", "codec-0.5", "--data", images, "--runs", tmp_path / "runs", "--out", tmp_path / "m"]
    assert dcu(*call).code == 0
    assert (tmp_path / "runs" / "codec-0.5" / "checkpoint.safetensors").exists()


def test_mixed_views_are_views_of_the_batch() -> None:
    views = np.stack([np.full((224, 224, 3), value, np.uint8) for value in (0, 80, 160, 240)])
    out, alone = mixed(views, np.random.default_rng(3))
    assert out.shape == views.shape
    assert out.dtype == np.uint8
    assert (out != views).any()
    assert np.array_equal(out, mixed(views, np.random.default_rng(3))[0])
    flat = [view for view, own in zip(out, alone, strict=True) if own]
    assert 0 < len(flat) < len(views)
    assert all(np.ptp(view[..., channel]) == 0 for view in flat for channel in range(3)), "one image, one color"


@pytest.mark.usefixtures("random_rgb")
def test_target_is_the_mean_of_what_both_teachers_say() -> None:
    """Each as sure as it is right; the features are Lite0's."""
    views = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8))
    taught, first = Teacher("cpu")(views), rgb.RgbClassifier()(views)
    second = rgb.rgb_network("lite2")(to_input(views))
    said = ((SHARPER["lite0"] * first.logits).softmax(1), (SHARPER["lite2"] * second).softmax(1))
    assert torch.allclose(taught.target, (said[0] + said[1]) / 2, atol=1e-6)
    assert torch.equal(taught.features, first.features)
    assert torch.equal(Teacher("cpu", 0)(views).target, said[0])
    assert torch.allclose(Teacher("cpu", 0.2)(views).target, 0.8 * said[0] + 0.2 * said[1], atol=1e-6)
    with pytest.raises(ValueError, match="lite2"):
        build(ClassifierRecipe, {"name": "x", "codec": "codec-0.0983", "lite2": 1.5})


def test_known_class_is_part_of_the_target() -> None:
    target = mixed_with_labels(torch.tensor([[0.75, 0.25], [0.75, 0.25]]), torch.tensor([1, -1]), 0.5)
    assert target.tolist() == [[0.375, 0.625], [0.75, 0.25]]


@pytest.mark.usefixtures("random_rgb")
def test_classes_of_views_are_their_directories(codec: Codec, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known where the directory is a WNID of the 1000 and the view is not mixed, and only of the data sets named."""
    two = (Class("one", "n00000001"), Class("two", "n00000002"))
    monkeypatch.setattr("dcu.train.student.label_set", lambda _: two)
    data = ViewData(batch=32)
    task = ClassifierTask(
        ClassifierRecipe("x", codec.name, width=4, depth=1, label_weight=0.5), data, codec, items(images), 0
    )
    chosen, _ = task.sampler.draw(0, 32)
    classes = task.batch(0).views.classes.tolist()
    assert 0 < sum(number >= 0 for number in classes) < 32
    own = {"n00000000": -1, "n00000001": 0, "n00000002": 1}
    assert all(number in (-1, own[item.label]) for number, item in zip(classes, chosen, strict=True))
    for told_of, number in (("pictures",), 0), (("others",), -1):
        task.recipe = replace(task.recipe, labelled_from=told_of)
        assert task.number(replace(chosen[0], name="n00000001/x.png")) == number


@pytest.mark.usefixtures("random_rgb")
def test_classifier_from_recipe_to_label(dcu: Dcu, images: Path, photo: Path, tmp_path: Path) -> None:
    recipe, model = tmp_path / "tiny.toml", tmp_path / "models" / "tiny-classifier"
    recipe.write_text(CLASSIFIER_TOML)
    call = ["train", "classifier", recipe, "--data", images, "--out", model, "--runs", tmp_path / "runs"]
    assert dcu(*call).code == 0
    card = json.loads(dcu("models", "show", model).out)
    assert card["codec"] == "codec-0.0983"
    assert dcu("compress", photo, "-o", tmp_path / "x.bin").code == 0
    (answer,) = dcu("classify", tmp_path / "x.bin", "--network", model, "--json").lines
    assert answer["network"] == "tiny-classifier"
    assert answer["predictions"][0]["wnid"].startswith("n")


@pytest.mark.usefixtures("random_rgb")
@pytest.mark.parametrize("kind", ["codec", "classifier"])
@pytest.mark.parametrize("failure", ["damaged", "missing", "no package"])
def test_an_image_that_cannot_be_read_does_not_end_a_training(
    dcu: Dcu, images: Path, tmp_path: Path, kind: str, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told once; the model is written; the exit code is the image's."""
    data = tmp_path / "set"
    with tarfile.open(images) as archive:
        archive.extractall(data, filter="data")
    bad = data / "n00000001" / "1.png"
    bad.unlink()
    if failure == "missing":
        bad.symlink_to("nothing")
    else:
        bad.write_bytes(b"broken" if failure == "damaged" else b"\xff\x0a" + bytes(20))
        monkeypatch.setitem(sys.modules, "pillow_jxl.JpegXLImagePlugin", None)
    recipe, model = tmp_path / "tiny.toml", tmp_path / "model"
    text = (
        CODEC_TOML if kind == "codec" else CLASSIFIER_TOML.replace("pictures", "set").replace("steps = 2", "steps = 9")
    )
    recipe.write_text(text.replace("steps = 3", "steps = 9"))
    trained = dcu("train", kind, recipe, "--data", data, "--out", model, "--runs", tmp_path / "runs")
    assert trained.code in {"damaged": (65,), "missing": (66,), "no package": (65, 69)}[failure]
    assert trained.err.count("left out\n") == 1
    assert trained.err.endswith("dcu: images left out because they cannot be read: 1\n")
    assert dcu("models", "verify", model).code == 0


@pytest.mark.usefixtures("random_rgb")
def test_classifier_without_some_blocks(dcu: Dcu, images: Path, own_models: Path, tmp_path: Path) -> None:
    """From the recipe to the weights; a segmenter that begins with it has the RGB network's blocks there."""
    recipe, model = tmp_path / "tiny.toml", own_models / "classifier-0.0983"
    call = ["train", "classifier", recipe, "--data", images, "--out", model, "--runs", tmp_path / "runs", "--force"]
    recipe.write_text(CLASSIFIER_TOML.replace("[data]", "without = [3]\n[data]"))
    refused = dcu(*call)
    assert refused.code == 2
    assert one_line(refused.err)
    recipe.write_text(CLASSIFIER_TOML.replace("[data]", "without = [5, 9]\n[data]"))
    shutil.rmtree(model)
    assert dcu(*call).code == 0
    weights = store.read_model(model).weights()
    assert removed_blocks(weights) == {5, 9}
    codec = Codec.load("codec-0.0983")
    blocks = segmenter_network("latent", 8, 2, codec).blocks.state_dict()
    assert torch.equal(blocks["4.expand.weight"], weights["backbone.blocks.4.expand.weight"].float())
    assert torch.equal(blocks["5.expand.weight"], rgb.rgb_network().state_dict()["backbone.blocks.5.expand.weight"])


@pytest.mark.usefixtures("random_rgb")
@pytest.mark.parametrize("hidden", [0, 12], ids=["plain", "fused"])
def test_adapter_learns_what_the_rgb_network_has_at_the_split_point(
    dcu: Dcu, codec: Codec, images: Path, tmp_path: Path, hidden: int
) -> None:
    """The backbone stays; the distance falls; a classifier goes on from there."""
    recipe = ClassifierRecipe("x", codec.name, width=8, depth=1, hidden=hidden)
    task = AdapterTask(recipe, AdapterRecipe(views=6), ViewData(batch=3), codec, items(images), 0)
    assert task.kept.latents.shape == (6, codec.channels, 28, 28)
    wanted = task.teacher.rgb.network.split_features(network_input(codec, "decoded", *task.views(1)[::2]))
    assert torch.allclose(task.kept.wanted[3:].float(), wanted, atol=1e-2 * float(wanted.std()))
    before = {name: tensor.clone() for name, tensor in task.module.state_dict().items()}
    run = Run(task, Schedule(steps=30, learning_rate=1e-2, warmup=1), tmp_path)
    losses = [run.train_step(task.batch(step))["loss"] for step in range(30)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    backbone = {name: tensor for name, tensor in task.module.state_dict().items() if name.startswith("backbone.")}
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.items())

    adapter, whole = tmp_path / "tiny-adapter.toml", tmp_path / "tiny.toml"
    shape = CLASSIFIER_TOML.replace("depth = 1", f"depth = 1\nhidden = {hidden}")
    adapter.write_text(shape + "[adapter]\nviews = 3\n")
    whole.write_text(shape)
    call = ["--data", images, "--runs", tmp_path / "runs", "--out", tmp_path / "model"]
    assert dcu("train", "classifier", adapter, *call).code == 0
    start = tmp_path / "runs" / "tiny-adapter" / "checkpoint.safetensors"
    assert dcu("train", "classifier", whole, *call, "--init", start, "--force").code == 0
    tensors = store.read_model(tmp_path / "model").weights()
    assert adapter_shape(tensors) == (codec.channels, 4, 1, hidden)
    training = store.read_model(tmp_path / "model").card.training
    assert training is not None
    assert [origin.steps for origin in training.start] == [2]
    adapter.write_text(adapter.read_text().replace("width = 4", 'input = "decoded"'))
    refused = dcu("train", "classifier", adapter, *call)
    assert refused.code == 2
    assert one_line(refused.err)


@pytest.mark.usefixtures("random_rgb")
def test_classifier_begins_with_an_installed_one(codec: Codec, images: Path) -> None:
    """What it says is the same until it learns, its norms are there again, and fold away once more."""
    shipped = backbone_classifier(Classifier.load("classifier-0.0983", engine="pytorch"))
    _, width, depth, hidden = adapter_shape(shipped.state_dict())
    recipe = ClassifierRecipe("x", codec.name, width=width, depth=depth, hidden=hidden)
    task = ClassifierTask(recipe, ViewData(batch=3, held_out=0), codec, items(images), 0)
    initialize(task, ["classifier-0.0983"])
    seen = task.seen(*task.views(0)[::2])
    with torch.no_grad():
        wanted = shipped.split_features(seen)
        assert torch.allclose(task.module.eval().split_features(seen), wanted, atol=1e-3 * float(wanted.abs().max()))
        noisy = task.module.train().split_features(seen)  # norms that see a batch and not what was measured
    assert not torch.allclose(noisy, wanted, atol=1e-3 * float(wanted.abs().max()))
    fold_norms(task.module.eval())
    assert set(task.module.state_dict()) == set(shipped.state_dict())
    with pytest.raises(UnavailableError, match="another shape"):
        initialize(
            ClassifierTask(replace(recipe, depth=depth + 1), ViewData(batch=2), codec, items(images), 0),
            ["classifier-0.0983"],
        )


@pytest.mark.usefixtures("random_rgb")
def test_folded_classifier_learns_as_it_runs(codec: Codec, images: Path) -> None:
    """What it says while it learns is what it says of each image alone: no norm depends on the batch."""
    shipped = backbone_classifier(Classifier.load("classifier-0.0983", engine="pytorch"))
    _, width, depth, hidden = adapter_shape(shipped.state_dict())
    recipe = ClassifierRecipe("x", codec.name, width=width, depth=depth, hidden=hidden, folded=True)
    task = ClassifierTask(recipe, ViewData(batch=3), codec, items(images), 0)
    with pytest.raises(UsageError, match="--init"):
        initialize(task, [])
    initialize(task, ["classifier-0.0983"])
    assert set(task.module.state_dict()) == set(shipped.state_dict())
    seen = task.seen(*task.views(0)[::2])
    with torch.no_grad():
        wanted = shipped.split_features(seen)
        assert torch.allclose(task.module.train().split_features(seen), wanted, atol=1e-4 * float(wanted.abs().max()))
        task.measure_norms()
    task.loss(task.batch(0))[0].backward()
    learnt = task.module.get_parameter("adapter.0.conv1.weight").grad
    assert learnt is not None
    assert learnt.abs().sum() > 0


@pytest.mark.usefixtures("random_rgb")
def test_classifier_begins_with_the_last_layer_of_one_of_the_same_classes(
    codec: Codec, images: Path, tmp_path: Path
) -> None:
    recipe, data = ClassifierRecipe("x", codec.name, width=4, depth=1), ViewData(batch=2, held_out=0)
    module = ClassifierTask(recipe, data, codec, items(images), 0).module
    fold_norms(module)
    tensors = {name: tensor.detach() for name, tensor in module.state_dict().items()}
    tensors["backbone.classifier.weight"] += 1
    card = Card("classifier", codec.fingerprint, codec=codec.name, labels=IMAGENET)
    store.write_model(tmp_path / "whole", card, tensors)
    task = ClassifierTask(recipe, data, codec, items(images), 0)
    origin = initialize(task, [str(tmp_path / "whole")])
    assert torch.equal(task.module.backbone.classifier.weight, tensors["backbone.classifier.weight"])
    assert origin is not None
    assert origin["name"] == "whole"


@pytest.mark.usefixtures("random_rgb")
def test_adapter_learns_what_another_classifier_has_at_the_split_point(codec: Codec, images: Path) -> None:
    recipe = ClassifierRecipe("x", codec.name, width=8, depth=1)
    adapter = AdapterRecipe(views=3, imitate="classifier-0.0983")
    task = AdapterTask(recipe, adapter, ViewData(batch=3), codec, items(images), 0)
    model = backbone_classifier(Classifier.load("classifier-0.0983", engine="pytorch"))
    wanted = model.split_features(network_input(codec, "latent", *task.views(0)[::2]))
    assert torch.allclose(task.kept.wanted.float(), wanted, atol=1e-2 * float(wanted.std()))
    for part in ("blocks", "head"):  # which classes there are is another matter
        theirs = getattr(model.backbone, part).state_dict()
        ours = getattr(task.module.backbone, part).state_dict()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    with pytest.raises(UnavailableError, match="train it first"):
        AdapterTask(recipe, AdapterRecipe(views=3, imitate="none"), ViewData(batch=3), codec, items(images), 0)


@pytest.mark.usefixtures("random_rgb")
def test_adapter_learns_what_a_tuned_rgb_network_has_at_the_split_point(
    codec: Codec, images: Path, own_models: Path
) -> None:
    """Of the images that the codec rebuilds; the backbone is the tuned one's too, but for blocks that are left out."""
    tuned = rgb.rgb_network()
    for parameter in tuned.parameters():
        parameter.mul_(1.5)
    weights = {name: tensor.half() for name, tensor in tuned.state_dict().items()}
    card = Card("rgb-classifier", codec.fingerprint)
    store.write_model(own_models / "rgb-classifier-0.0983", card, weights)
    recipe = ClassifierRecipe("x", codec.name, width=8, depth=1, without=(5,))
    adapter = AdapterRecipe(views=3, imitate="rgb-classifier-0.0983")
    task = AdapterTask(recipe, adapter, ViewData(batch=3), codec, items(images), 0)
    wanted = tuned.split_features(network_input(codec, "decoded", *task.views(0)[::2]))
    assert torch.allclose(task.kept.wanted.float(), wanted, atol=1e-2 * float(wanted.std()))
    blocks = task.module.backbone.blocks.state_dict()
    assert torch.equal(blocks["6.expand.weight"], weights["backbone.blocks.6.expand.weight"].float())
    assert "5.expand.weight" not in blocks
    store.write_model(own_models / "rgb-classifier-0.0983", replace(card, fingerprint="ab" * 32), weights)
    with pytest.raises(UnavailableError):
        AdapterTask(recipe, adapter, ViewData(batch=3), codec, items(images), 0)


def test_start_from_another_architecture(images: Path, tmp_path: Path) -> None:
    new_run(images, tmp_path / "a").train(None, quiet())
    wider = CodecTask(replace(RECIPE, width=16), DATA, items(images), 0)
    deeper = CodecTask(replace(RECIPE, analysis_depth=2), DATA, items(images), 0)
    for other in (wider, deeper):
        with pytest.raises(InvalidInputError, match="architecture"):
            initialize(other, [str(tmp_path / "a" / "checkpoint.safetensors")])
    with pytest.raises(MissingInputError):
        initialize(wider, [str(tmp_path / "none.safetensors")])
    with pytest.raises(UsageError, match="checkpoint"):
        initialize(wider, ["codec-0.0983"])


class TwoBatches(CodecTask):
    """One process that sees what two would see together."""

    def batch(self, step: int) -> CodecBatch:
        return CodecBatch(torch.cat([super(TwoBatches, self).batch(2 * step + rank).crops for rank in range(2)]))


@pytest.mark.slow
def test_two_processes_learn_as_one_with_twice_the_batch(images: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(CODEC_TOML)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "dcu"]
    command += ["train", "codec", "tiny.toml", "--data", str(images), "--runs", "two", "--out", "model"]
    done = subprocess.run(
        [*command, "--threads", "1"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "model")]  # one of them speaks
    assert len((tmp_path / "two/tiny/log.jsonl").read_text().splitlines()) == 1
    parts = find_recipe(str(tmp_path / "tiny.toml")).sections(CodecTraining)
    arguments = (parts.codec, parts.data, items(images), parts.schedule.seed)
    start, task = CodecTask(*arguments).module.state_dict(), TwoBatches(*arguments)
    task.module.load_state_dict(start)  # its own comes from other batches
    alone = Run(task, parts.schedule, tmp_path / "one" / "tiny")
    alone.train(None, quiet())
    one, two = (Checkpoint(tmp_path / name / "tiny" / "checkpoint.safetensors").load() for name in ("one", "two"))
    apart, moved = 0.0, 0.0
    for name, tensor in start.items():
        apart += float((one.weights[name] - two.weights[name]).abs().sum())
        moved += float((one.weights[name] - tensor).abs().sum())
    assert apart < 0.01 * moved


@pytest.mark.usefixtures("random_rgb")
def test_rgb_network_is_tuned_to_decoded_images(dcu: Dcu, images: Path, tmp_path: Path, own_models: Path) -> None:
    """For comparison only: no command but eval takes it."""
    recipe, model = tmp_path / "tiny.toml", own_models / "tuned"
    recipe.write_text(CLASSIFIER_TOML.replace("width = 4", 'input = "decoded"'))
    assert dcu("train", "classifier", recipe, "--data", images, "--out", model, "--runs", tmp_path / "runs").code == 0
    card = json.loads((model / "card.json").read_text())
    assert card["kind"] == "rgb-classifier"
    assert dcu("models", "verify", "tuned").code == 0
    assert dcu("classify", "x.bin", "--network", "tuned").code == 69
