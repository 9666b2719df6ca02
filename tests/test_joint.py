"""Streams for machines: a codec's second kind of operating points, trained together with a classifier."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from dcu import bitstream, store
from dcu.cards import Card
from dcu.codec import Codec, analysis_input
from dcu.coding import VariableRate
from dcu.data import Item, items
from dcu.errors import InvalidInputError, UsageError
from dcu.labels import IMAGENET
from dcu.nets.context import UnboundedGroup
from dcu.nets.latent import LatentClassifier, adapter_shape
from dcu.nets.norms import fold_norms
from dcu.nets.operating_point import AnchorVectors, between, with_point
from dcu.nets.variable_rate import VariableRateCodec
from dcu.tasks.classify import Classifier
from dcu.train.checkpoint import Checkpoint, OptimizerState, State
from dcu.train.export import joint_models, variable_rate_tensors
from dcu.train.init import READER, initialize
from dcu.train.joint import STEM, JointData, JointTask, JointTraining, ReaderRecipe
from dcu.train.loop import Run
from dcu.train.recipe import Schedule, find_recipe
from dcu.train.variable_rate import VariableRateData, VariableRateRecipe, VariableRateTask

from .conftest import Dcu, smooth_image, write_classes, write_variable_rate_codec

RECIPE = VariableRateRecipe(
    "codec-9", (UnboundedGroup(1, 2), UnboundedGroup(2, 1)), 8, 1, 1, 8, anchors=3, largest_lambda=0.2
)
ADAPTED = replace(RECIPE, adapter=4)
READS = ReaderRecipe(weight=0.1, width=4, depth=1)
DATA = JointData(batch=4, window=64, held_out=2, validate_on=1)
SCHEDULE = Schedule(steps=3, learning_rate=1e-2, warmup=1, validate_every=3, checkpoint_every=3)


TOML = """
[variable_rate]
name = "codec-9"
width = 8
analysis_depth = 1
synthesis_depth = 1
context_hidden = 8
anchors = 3
largest_lambda = 0.2
adapter = 4
groups = [{ channels = 1, passes = 2 }, { channels = 2, passes = 1 }]
[reader]
width = 4
depth = 1
[data]
batch = 4
window = 64
held_out = 2
validate_on = 1
[schedule]
steps = 2
learning_rate = 1e-3
"""


@pytest.fixture
def pictures(tmp_path: Path) -> list[Item]:
    return items(write_classes(tmp_path / "pictures", ["any"], 6))


def quiet() -> Console:
    return Console(file=io.StringIO())


def codec_checkpoint(pictures: list[Item], directory: Path) -> Path:
    task = VariableRateTask(RECIPE, VariableRateData(crop=32, batch=2, held_out=2, validate_on=1), pictures, 0)
    run = Run(task, replace(SCHEDULE, steps=1), directory)
    run.train(None, quiet())
    return run.checkpoint.path


def joint_run(pictures: list[Item], directory: Path, start: Path | None = None) -> Run[object]:
    task = JointTask(ADAPTED, READS, DATA, pictures, 0)
    if start:
        initialize(task, [str(start)])
    return Run(task, SCHEDULE, directory)  # type: ignore[arg-type]


def test_anchors_of_each_kind() -> None:
    anchors = torch.tensor([[0.0], [63.0], [100.0], [163.0]])
    q = torch.tensor([0.0, 10.0, 63.0, 64.0, 74.0, 127.0])
    assert torch.allclose(between(anchors, q, 2)[:, 0], torch.tensor([0.0, 10.0, 63.0, 100.0, 110.0, 163.0]))
    assert torch.allclose(between(anchors[:2], q)[:, 0], torch.tensor([0.0, 10.0, 63.0, 0.0, 10.0, 63.0]))
    planes = with_point(torch.zeros(6, 1, 1, 1), q, 4, 2)[:, 1:, 0, 0]
    assert torch.allclose(planes @ anchors, between(anchors, q, 2))


@pytest.mark.usefixtures("random_rgb")
def test_begins_as_the_codec_and_leaves_images_for_people_alone(pictures: list[Item], tmp_path: Path) -> None:
    start = codec_checkpoint(pictures, tmp_path / "codec")
    run = joint_run(pictures, tmp_path / "joint")
    task = run.task
    assert isinstance(task, JointTask)
    initialize(task, [str(start)])
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    people, machines = torch.tensor([5.0, 50.0]), torch.tensor([69.0, 114.0])
    with torch.no_grad():
        before = task.module(x, people)
        same = task.module(x, machines)
    assert all(torch.equal(one, other) for one, other in zip(before, same, strict=True))
    run = Run(task, SCHEDULE, tmp_path / "joint")
    run.train(None, quiet())
    task.module.load_state_dict(run.average.tensors)
    with torch.no_grad():
        after, changed = task.module(x, people), task.module(x, machines)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])  # the context model learns from both kinds
    assert not torch.allclose(before[0], changed[0])
    assert not torch.allclose(before[1], changed[1])
    assert not torch.equal(task.module.analysis.adapter[0].conv2.weight, torch.zeros(8, 4, 3, 3))


@pytest.mark.usefixtures("random_rgb")
def test_resumed_run_is_the_same_run(pictures: list[Item], tmp_path: Path) -> None:
    start = codec_checkpoint(pictures, tmp_path / "codec")
    joint_run(pictures, tmp_path / "a", start).train(None, quiet())
    joint_run(pictures, tmp_path / "b", start).train(0, quiet())
    resumed = joint_run(pictures, tmp_path / "b")
    resumed.resume()
    assert resumed.step == 1
    resumed.train(None, quiet())
    a, b = (load_file(tmp_path / name / "checkpoint.safetensors") for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.usefixtures("random_rgb")
def test_codec_and_classifier_are_written(pictures: list[Item], tmp_path: Path, own_models: Path) -> None:
    """The classifier is told kind and operating point; both kinds are coded as the network says."""
    run = joint_run(pictures, tmp_path / "joint", codec_checkpoint(pictures, tmp_path / "codec"))
    run.train(None, quiet())
    assert isinstance(run.task, JointTask)
    directories = own_models / "codec-9", own_models / "codec-9-classifier"
    model, written = joint_models(run, run.task, pictures, *directories)
    codec = Codec.from_model(model, precision="float32")
    assert isinstance(codec.coding, VariableRate)
    assert codec.coding.gain.shape == (128, 3)
    classifier = Classifier(store.read_model(written.directory), codec)
    assert classifier.planes == 6
    image = smooth_image(64, 72)
    streams = {machines: codec.compress(image, quality=40, machines=machines) for machines in (False, True)}
    parsed = {machines: codec.read(data) for machines, data in streams.items()}
    assert [stream.header.machines for stream in parsed.values()] == [False, True]
    assert {codec.quality(data) for data in streams.values()} == {40}
    for machines, stream in parsed.items():
        symbols = codec.symbols([stream.full])[0]
        assert torch.equal(symbols, codec.analyze(image, 40, machines))
        again = codec.synthesize(codec.latent(stream), 40, machines)
        assert np.array_equal(codec.decode(stream), again[:64, :72])
        network = run.task.module  # holds the average
        x = analysis_input(torch.from_numpy(image)[None])
        expected = network.scaled(x, torch.tensor([40.0 + 64 * machines])).round()
        assert (symbols != expected[0]).float().mean() < 0.02  # float16 weights
    looked = classifier.look(list(parsed.values()))
    assert not torch.equal(*classifier.probabilities(looked))
    assert len(codec.compress(image, target_bytes=200, machines=True)) <= 200


@pytest.mark.usefixtures("random_rgb")
def test_the_reader_begins_with_an_installed_classifier(pictures: list[Item], tmp_path: Path, own_models: Path) -> None:
    """One that reads streams for people alone reads both kinds alike, as it read those before."""
    start = codec_checkpoint(pictures, tmp_path / "codec")
    run = joint_run(pictures, tmp_path / "joint", start)
    task, q = run.task, torch.tensor([70.0])
    assert isinstance(task, JointTask)
    fold_norms(task.module.reader)
    tensors = task.module.reader.state_dict()
    stem = tensors["stem.weight"]
    tensors["stem.weight"] = stem[:, : -task.recipe.anchors].clone()
    card = Card("classifier", "0" * 64, labels=IMAGENET)
    model = store.write_model(own_models / "classifier-9", card, tensors)
    begun = JointTask(ADAPTED, READS, DATA, pictures, 0)
    origin = initialize(begun, [str(start), model.name])
    assert origin is not None
    assert origin["reader"] == {"name": "classifier-9", "sha256": model.sha256}
    symbols = torch.randint(-3, 4, (1, stem.shape[1] - 2 * task.recipe.anchors, 28, 28)).float()
    seen = begun.read(symbols, q)
    alone = LatentClassifier(*adapter_shape(tensors), 1000)
    alone.load_state_dict(tensors)
    people = torch.cat([seen[:, : symbols.shape[1]], seen[:, -task.recipe.anchors :]], 1)
    with torch.no_grad():
        expected, found = (network.eval()(x) for network, x in ((alone, people), (begun.module.reader, seen)))
    assert torch.allclose(found, expected, atol=1e-2)


@pytest.mark.usefixtures("random_rgb")
def test_joint_training_on_the_command_line(dcu: Dcu, pictures: list[Item], tmp_path: Path) -> None:
    """From a codec's checkpoint and a classifier's; neither model is overwritten; a resumed run writes both."""
    start = codec_checkpoint(pictures, tmp_path / "codec")
    recipe = tmp_path / "machines.toml"
    recipe.write_text(TOML)
    out, runs = tmp_path / "models" / "codec-9", tmp_path / "runs"
    call = ["train", "joint", recipe, "--data", tmp_path / "pictures", "--runs", runs, "--out", out]
    assert dcu(*call).code == 2
    done = dcu(*call, "--init", start, "--minutes", "0")
    assert done.code == 0, done.err
    state = Checkpoint(runs / "machines" / "checkpoint.safetensors").load()
    reader = {n.removeprefix(READER): t for n, t in state.average.items() if n.startswith(READER)}
    stem = STEM.removeprefix(READER)
    reader[stem] = reader[stem][:, :6].clone()  # of a codec of streams for people alone
    path = tmp_path / "reader.safetensors"
    Checkpoint(path).save(State(1, reader, reader, OptimizerState({}, {})))
    alone = dcu(*call[:-4], "--runs", tmp_path / "r2", "--out", tmp_path / "m2", "--init", path)
    assert alone.code == 2
    assert "checkpoint of a codec" in alone.err
    both = ("--init", start, "--init", path)
    done = dcu(*call[:-4], "--runs", tmp_path / "r3", "--out", tmp_path / "m3", *both)
    assert done.code == 0, done.err
    model = out.with_name("codec-9-classifier")
    done = dcu(*call[:-4], "--runs", tmp_path / "r4", "--out", tmp_path / "m4", "--init", start, "--init", model)
    assert done.code == 0, done.err
    assert dcu(*call[:-4], "--runs", tmp_path / "r5", "--out", tmp_path / "m5", "--init", model).code == 2
    (out.with_name("codec-9-classifier") / "card.json").rename(tmp_path / "card.json")
    (out.with_name("codec-9-classifier") / "card.json").write_text("{}")
    assert dcu(*call, "--resume").code == 73
    (tmp_path / "card.json").rename(out.with_name("codec-9-classifier") / "card.json")
    done = dcu(*call, "--resume")
    assert done.code == 0, done.err
    assert store.read_model(out).card.machines
    last = json.loads((runs / "machines" / "log.jsonl").read_text().splitlines()[-1])
    assert {"held_agreement", "held_divergence", "held_out_loss", "bpp_0"} <= set(last)


@pytest.mark.parametrize(
    "setting",
    [
        "variable_rate.adapter=0",
        "variable_rate.similarity=0.1",
        "variable_rate.exponent=0.5",
        "schedule.optimizer=soap",
        "data.held_out=1",
        "data.window=400",
        "data.batch=3",
    ],
)
def test_joint_recipes_that_are_refused(tmp_path: Path, setting: str) -> None:
    (tmp_path / "machines.toml").write_text(TOML.replace("validate_on = 1", "validate_on = 2"))
    with pytest.raises(UsageError):
        find_recipe(str(tmp_path / "machines.toml"), [setting]).sections(JointTraining)


def test_info_of_a_stream_that_claims_to_be_for_machines(dcu: Dcu, own_models: Path, tmp_path: Path) -> None:
    many = Codec.from_model(write_variable_rate_codec(own_models / "codec-8"))
    stream = many.read(many.compress(smooth_image(16, 16), quality=3))
    forged = bitstream.write(replace(stream.header, machines=True), 16, 16, [stream.full.tiles])
    (tmp_path / "x.dcu").write_bytes(forged)
    for command in ("info", "decode", "verify"):
        done = dcu(command, tmp_path / "x.dcu", *(["-o", tmp_path / "x.png"] if command == "decode" else []))
        assert done.code == 65, (command, done.err)


def test_streams_for_machines_of_codecs_that_make_none(codec: Codec, own_models: Path) -> None:
    many = Codec.from_model(write_variable_rate_codec(own_models / "codec-8"))
    for each in (codec, many):
        with pytest.raises(ValueError, match="machines"):
            each.compress(smooth_image(16, 16), machines=True)
    stream = many.read(many.compress(smooth_image(16, 16), quality=3))
    header = replace(stream.header, machines=True)
    with pytest.raises(InvalidInputError, match="machines"):
        many.decode(bitstream.write(header, 16, 16, [stream.full.tiles]))


def test_symbols_of_both_kinds_are_coded_with_their_own_vectors() -> None:
    torch.manual_seed(0)
    network = VariableRateCodec(*ADAPTED.shape())
    network.begin_at_steps(2.0, 0.1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, AnchorVectors):
                module.anchors.add_(0.3 * torch.randn_like(module.anchors))
    coding = VariableRate(variable_rate_tensors(network.eval(), torch.ones(128, 3, dtype=torch.bool)))
    symbols = torch.randint(-3, 4, (3, 6, 5), dtype=torch.int16)
    payloads = {q: coding.encode(symbols, q) for q in (20, 84)}
    assert payloads[20] != payloads[84]
    for q, payload in payloads.items():
        assert torch.equal(coding.decode([payload], 6, 5, q)[0], symbols)
        point = torch.tensor([q])
        expected = network.reconstruct(symbols[None].float(), point.float())
        found = coding.synthesize(coding.latent(symbols[None], point), point)
        assert torch.allclose(found, expected, atol=2e-2)
