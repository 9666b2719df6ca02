"""Averages of weights: over the steps of a run, and of several models."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dcu import store
from dcu.cards import Card, Result, Sample, Training
from dcu.codec import Codec
from dcu.labels import IMAGENET
from dcu.nets.latent import LatentClassifier
from dcu.tasks import rgb
from dcu.tasks.classify import Classifier
from dcu.train.averaging import MovingAverage, weight_mean

from .conftest import Dcu, one_line


def test_moving_average_follows_the_weights() -> None:
    """The plain mean of the first steps at first; counters are those of the last step."""
    module = nn.BatchNorm1d(1)
    average = MovingAverage(module, 0.5)
    for step, value in enumerate((11.0, 21.0)):
        module.weight.data.fill_(value)
        module.state_dict()["num_batches_tracked"].fill_(step)
        average.update(module, step)
    expected = (0.1 * 1 + 0.9 * 11) * 2 / 11 + 21 * 9 / 11
    assert average.tensors["weight"].item() == pytest.approx(expected)
    assert average.tensors["num_batches_tracked"].item() == 1
    with average.applied(module):
        assert module.weight.item() == pytest.approx(expected)
    assert module.weight.item() == 21


def test_weights_come_back_after_an_error() -> None:
    module = nn.Linear(1, 1)
    average, before = MovingAverage(module, 0.5), module.weight.item()
    average.tensors["weight"].add_(1)
    with pytest.raises(KeyboardInterrupt), average.applied(module):
        raise KeyboardInterrupt
    assert module.weight.item() == before


def test_weighted_mean() -> None:
    models = [{"a": torch.tensor([1.0])}, {"a": torch.tensor([5.0])}]
    assert weight_mean(models, [0.75, 0.25])["a"].item() == 2


def test_mean_of_runs(dcu: Dcu, own_models: Path, tmp_path: Path) -> None:
    model = store.find("classifier-0.0983")
    stated = partial(replace, temperature=0.7, calibration=Sample("x", 9), results=(Result("x", 9),), int8=False)
    model = store.amend(model, partial(stated, training=Training("r", images={"a": 5})))
    bias = "backbone.classifier.bias"
    tensors = {name: tensor.float() for name, tensor in model.weights().items()}
    seen = replace(model.card, training=Training("r", images={"a": 3, "b": 9}, test_images={"b": 2}))
    other = store.write_model(tmp_path / "other", seen, tensors | {bias: tensors[bias] + 4})
    assert (
        dcu("train", "mean", model.directory, other.directory, "--share", 3, "--share", 1, "--out", tmp_path / "m").code
        == 0
    )
    mean = store.read_model(tmp_path / "m")
    found = mean.weights()
    assert found[bias].dtype == torch.float16
    assert torch.allclose(found.pop(bias).float(), tensors[bias] + 1, atol=1e-2)
    assert all(torch.equal(tensor.float(), tensors[name]) for name, tensor in found.items())
    assert mean.card.training
    assert (mean.card.training.images, mean.card.training.test_images) == ({"a": 5, "b": 9}, {"b": 2}), "of all"
    assert [(part.sha256, part.share) for part in mean.card.training.mean_of] == [
        (model.sha256, 0.75),
        (other.sha256, 0.25),
    ]
    found_for_others = (mean.card.temperature, mean.card.calibration, mean.card.results, mean.card.int8)
    assert found_for_others == (1.0, None, (), True)
    assert Classifier(mean, Codec.load("codec-0.0983")).name == "m"

    own = store.write_model(tmp_path / "own", replace(model.card, labels=model.card.classes[::-1]), tensors)
    narrow = store.write_model(tmp_path / "narrow", model.card, tensors | {bias: tensors[bias][1:]})
    codec = store.find("codec-0.0983").directory
    calls: list[list[Any]] = [
        [model.directory],
        [codec, codec],
        [codec, own.directory],
        [model.directory, own.directory],
        [model.directory, narrow.directory],
        [model.directory, other.directory, "--share", "1"],
        [model.directory, other.directory, "--share", "1", "--share", "0"],
        [model.directory, other.directory, "--rgb", "2"],
        [model.directory, "--rgb", "0.5"],  # it does not name the 1000 classes
    ]
    for call in calls:
        answer = dcu("train", "mean", *call, "--out", tmp_path / "none")
        assert answer.code == 2, call
        assert one_line(answer.err)
    assert not (tmp_path / "none").exists()


@pytest.mark.usefixtures("random_rgb")
def test_mean_with_a_share_of_the_rgb_networks_late_layers(dcu: Dcu, codec: Codec, tmp_path: Path) -> None:
    """Blocks at 14x14 and the adapter stay as they are, and blocks that a classifier goes without stay away."""
    network = LatentClassifier(3, 4, 1, 0, 1000)
    network.backbone.remove_blocks((7,))
    card = Card("classifier", codec.fingerprint, codec=codec.name, labels=IMAGENET)
    given = {name: tensor.half() for name, tensor in network.state_dict().items()}
    model = store.write_model(tmp_path / "x", card, given)
    theirs = {f"backbone.{name}": tensor for name, tensor in rgb.rgb_network().backbone.state_dict().items()}
    assert dcu("train", "mean", model.directory, "--rgb", "0.25", "--out", tmp_path / "m").code == 0
    mean = store.read_model(tmp_path / "m")
    assert mean.card.training
    assert mean.card.training.rgb_share == 0.25
    found, late = mean.weights(), [f"backbone.blocks.{block}." for block in range(6, 11)]
    assert found.keys() == given.keys()
    for name, tensor in found.items():
        moves = name.startswith((*late, "backbone.head.", "backbone.classifier."))
        wanted = 0.75 * given[name].float() + 0.25 * theirs[name] if moves else given[name].float()
        assert torch.allclose(tensor.float(), wanted, atol=2e-3), name
