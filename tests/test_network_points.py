"""Networks on the latents of a codec of many operating points, told which one it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from dcu import store
from dcu.cards import Card, Rates, Training
from dcu.codec import Codec
from dcu.data import items
from dcu.errors import UnavailableError, UsageError
from dcu.evaluate import baselines
from dcu.evaluate.cost import macs
from dcu.labels import Label
from dcu.nets.latent import LatentClassifier, adapter_shape
from dcu.nets.operating_point import with_point
from dcu.nets.segmenter import LatentSegmenter
from dcu.tasks.classify import Classifier
from dcu.tasks.segment import Segmenter
from dcu.train.classifier import ClassifierTask
from dcu.train.export import training_of
from dcu.train.head import views_of
from dcu.train.init import initialize, translated
from dcu.train.inputs import network_input, point_of, points_of, random_points
from dcu.train.student import ClassifierRecipe
from dcu.train.views import ViewData

from .conftest import SEGMENTER_LABELS, Dcu, one_line, png, smooth_image, write_classes, write_variable_rate_codec

ANCHORS = 4


@pytest.fixture
def many(own_models: Path) -> Codec:
    """A codec of 64 operating points."""
    return Codec.from_model(write_variable_rate_codec(own_models / "codec-9"))


def write_classifier(codec: Codec, directory: Path, planes: int = ANCHORS) -> store.Model:
    """Three classes; the first layer reads the planes alone."""
    torch.manual_seed(1)
    network = LatentClassifier(codec.channels + planes, 4, 1, 8, 3)
    with torch.no_grad():
        network.stem.weight[:, : codec.channels] = 0
    labels = tuple(Label(name) for name in ("cat", "dog", "tea"))
    cost = macs(network, torch.zeros(1, codec.channels + planes, 28, 28))
    card = Card("classifier", codec.fingerprint, codec=codec.name, labels=labels, macs=cost)
    return store.write_model(directory, card, {name: tensor.half() for name, tensor in network.state_dict().items()})


def test_planes_are_linear_between_anchors() -> None:
    q = torch.tensor([0.0, 63.0, 21.0, 31.5])
    planes = with_point(torch.zeros(4, 2, 3, 5), q, 4)[:, 2:]
    expected = torch.tensor([[1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0, 0.5, 0.5, 0]])
    assert planes.shape == (4, 4, 3, 5)
    assert torch.allclose(planes[:, :, 0, 0], expected)
    assert torch.allclose(planes.amin((2, 3)), planes.amax((2, 3)))
    latent = torch.rand(1, 2, 3, 5)
    assert with_point(latent, torch.tensor([7]), 0) is latent


def test_classifier_is_told_the_operating_point(many: Codec, own_models: Path) -> None:
    """Of a network that reads nothing else; together with others as alone."""
    classifier = Classifier(write_classifier(many, own_models / "classifier-9"), many)
    streams = [many.read(many.compress(smooth_image(64, 64), quality=q)) for q in (0, 40, 63)]
    together = classifier.probabilities(classifier.look(streams))
    alone = torch.cat([classifier.probabilities(classifier.look([stream])) for stream in streams])
    assert torch.equal(together, alone)
    assert len({tuple(row) for row in together.tolist()}) == 3
    assert classifier(streams[0]).best is not None


@pytest.mark.parametrize("planes", [-1, 1])
def test_networks_with_other_channels_are_refused(many: Codec, own_models: Path, planes: int) -> None:
    model = write_classifier(many, own_models / "classifier-9", planes)
    with pytest.raises(UnavailableError, match="channels"):
        Classifier(model, many)


def test_networks_of_a_codec_of_one_rate_have_no_planes(codec: Codec, own_models: Path) -> None:
    model = write_classifier(codec, own_models / "classifier-0.0983")
    with pytest.raises(UnavailableError, match="channels"):
        Classifier(model, codec)


@pytest.fixture
def labeled(tmp_path: Path) -> Path:
    """One image of each class."""
    for index, label in enumerate(("cat", "dog", "tea")):
        (tmp_path / "data" / label).mkdir(parents=True)
        (tmp_path / "data" / label / "0.png").write_bytes(png(smooth_image(64, 64, seed=index)))
    return tmp_path / "data"


def test_accuracy_at_an_operating_point(dcu: Dcu, many: Codec, own_models: Path, labeled: Path, codec: Codec) -> None:
    model = write_classifier(many, own_models / "classifier-9")
    sizes = []
    for quality in (5, 60):
        done = dcu("eval", "classifier", labeled, "--network", model.name, "--quality", quality, "--record", "--json")
        assert done.code == 0, done.err
        row = json.loads(done.out)
        assert row["quality"] == quality
        sizes.append(row["bytes"])
    assert sizes[0] < sizes[1]
    low, high = store.find(model.name).card.results
    assert (low.quality, high.quality) == (5, 60)
    assert model.card.macs < (low.macs or 0) < (high.macs or 0)
    done = dcu("eval", "classifier", labeled, "--network", "classifier-0.0983", "--quality", "5")
    assert done.code == 2
    assert one_line(done.err)


@pytest.mark.usefixtures("random_rgb")
def test_baselines_at_an_operating_point(
    dcu: Dcu, many: Codec, own_models: Path, labeled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_classifier(many, own_models / "classifier-9")
    monkeypatch.setattr("dcu.evaluate.classifier.check_imagenet", lambda _: None)
    monkeypatch.setattr("dcu.evaluate.classifier.SIDES", (64,))
    monkeypatch.setitem(baselines.FORMATS, "jpeg", replace(baselines.FORMATS["jpeg"], fine=(1, 80)))
    for quality in (60, 5, 60):
        call = ("eval", "baselines", labeled, "--network", model.name, "--formats", "jpeg", "--quality", quality)
        assert dcu(*call, "--record").code == 0
    low, high = store.find(model.name).card.baselines
    assert (low.quality, high.quality) == (5, 60)
    assert low.rows[0].bytes < high.rows[0].bytes
    done = dcu("eval", "baselines", labeled, "--network", model.name, "--for", "machines")
    assert (done.code, one_line(done.err)) == (2, True)


def test_the_temperature_is_fitted_at_all_operating_points(
    dcu: Dcu, many: Codec, own_models: Path, labeled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_classifier(many, own_models / "classifier-9")
    points: list[int] = []
    compress = Codec.compress

    def watched(codec: Codec, image: object, **named: object) -> bytes:
        points.append(cast(int, named["quality"]))
        return compress(codec, image, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Codec, "compress", watched)
    assert dcu("eval", "calibrate", labeled, "--network", model.name).code == 0
    assert points == list(range(len(points)))


def test_segmenter_is_told_the_operating_point(many: Codec, own_models: Path) -> None:
    torch.manual_seed(3)
    network = LatentSegmenter(many.channels + ANCHORS, 4, 1, 8, 8, 2)
    card = Card("segmenter", many.fingerprint, codec=many.name, labels=SEGMENTER_LABELS, void=7)
    model = store.write_model(own_models / "segmenter-9", card, network.state_dict())
    segmenter = Segmenter(model, many)
    seen: list[torch.Tensor] = []
    segmenter.run = lambda x: seen.append(x) or network.eval()(x)  # type: ignore[func-returns-value, assignment]
    data = many.compress(smooth_image(40, 56), quality=42)
    assert segmenter(data).classes.shape == (40, 56)
    assert torch.equal(seen[0], with_point(many.latent(data), torch.tensor([42]), ANCHORS))


def test_bitstreams_keep_their_operating_point(dcu: Dcu, many: Codec, own_models: Path, tmp_path: Path) -> None:
    model = write_classifier(many, own_models / "classifier-9")
    for index, label in enumerate(("cat", "dog", "tea")):
        (tmp_path / "data" / label).mkdir(parents=True)
        stream = many.compress(smooth_image(64, 64, seed=index), quality=7 * index)
        (tmp_path / "data" / label / "0.dcu").write_bytes(stream)
    call = ["eval", "classifier", tmp_path / "data", "--network", model.name, "--json"]
    done = dcu(*call)
    assert done.code == 0, done.err
    assert "quality" not in json.loads(done.out)
    assert dcu(*call, "--quality", "3").code == 2
    assert dcu("models", "verify", model.directory).code == 0
    answer = dcu(*call, "--record")
    assert (answer.code, "several operating points" in answer.err) == (2, True)
    for path in (tmp_path / "data").rglob("*.dcu"):
        path.write_bytes(many.compress(smooth_image(64, 64), quality=9))
    assert dcu(*call, "--record").code == 0
    (result,) = store.find(model.name).card.results
    assert (result.quality, result.machines) == (9, False)


@pytest.fixture
def both(own_models: Path) -> Codec:
    """The same, with streams for machines."""
    return Codec.from_model(write_variable_rate_codec(own_models / "codec-8", adapter=4))


def test_points_are_spread_over_the_range(many: Codec, both: Codec, codec: Codec) -> None:
    for streams, first in (("people", 0), ("machines", 64)):
        points = random_points(points_of(both, streams), 32, np.random.default_rng(0))  # type: ignore[arg-type]
        assert sorted((points // 2).tolist()) == list(range(first // 2, first // 2 + 32))
    assert sorted((random_points(points_of(both), 64, np.random.default_rng(0)) // 2).tolist()) == list(range(64))
    assert points_of(many) == points_of(both, "people") == range(64)
    assert [int(point_of(points_of(both, "machines"), number, 3)) for number in range(3)] == [64, 95, 127]
    with pytest.raises(UsageError, match="makes no streams for machines"):
        points_of(many, "machines")
    rng = np.random.default_rng(0)
    assert random_points(points_of(codec), 5, rng).tolist() == [0] * 5
    assert rng.random() == np.random.default_rng(0).random()  # runs of codecs of one rate stay as they were


def test_networks_are_trained_on_what_files_of_both_kinds_contain(both: Codec) -> None:
    views = torch.from_numpy(np.stack([smooth_image(24, 16, seed=index) for index in range(4)]))
    points = torch.tensor([70, 9, 127, 63])
    seen = network_input(both, "latent", views, points, 2 * ANCHORS)
    for index, point in enumerate(points.tolist()):
        data = both.compress(views[index].numpy(), quality=point % 64, machines=point >= 64)
        (expected,) = both.latents([both.read(data)], 2 * ANCHORS)
        assert torch.equal(seen[index], expected[0])
    one_kind = network_input(both, "latent", views[::2], points[::2], 2 * ANCHORS)
    assert torch.equal(one_kind, seen[::2])


@pytest.mark.usefixtures("random_rgb")
def test_trained_at_all_operating_points(dcu: Dcu, many: Codec, own_models: Path, street: Path, tmp_path: Path) -> None:
    """A classifier, then a segmenter that begins with it."""
    pictures = write_classes(tmp_path / "pictures", ["any"], 6)
    recipe = ClassifierRecipe("x", many.name, width=4, depth=1, hidden=8, anchors=ANCHORS)
    task = ClassifierTask(recipe, ViewData(batch=4, held_out=1), many, items(pictures), 0)
    views = task.views(3)
    assert len(set(views.points.tolist())) == 4
    latent = network_input(many, "latent", views.images, views.points)
    assert torch.equal(task.seen(views.images, views.points), with_point(latent, views.points, ANCHORS))
    torch.manual_seed(0)
    start = LatentClassifier(many.channels + ANCHORS, 4, 1, 8, 1000)
    card = Card("classifier", many.fingerprint, codec=many.name, labels="imagenet-1k")
    store.write_model(own_models / "classifier-9", card, start.state_dict())
    settings = (f"segmenter.codec={many.name}", "schedule.steps=2", "data.batch=2", "data.held_out=1", "data.crop=64")
    call = ["train", "segmenter", "segmenter-0.0983", "--data", street, "--runs", tmp_path / "runs"]
    done = dcu(*call, "--out", own_models / "new", *(f"--set={each}" for each in settings))
    assert done.code == 0, done.err
    segmenter = Segmenter(store.read_model(own_models / "new"), many)
    assert segmenter.planes == ANCHORS
    assert segmenter(many.compress(smooth_image(40, 56), quality=3)).classes.shape == (40, 56)
    call = ["eval", "segmenter", street, "--network", own_models / "new"]
    measured = [dcu(*call, "--record", "--json", "--quality", q).lines[0] for q in ("3", "50")]
    assert [(line["quality"], line["machines"]) for line in measured] == [(3, False), (50, False)]
    assert measured[0]["bpp"] != measured[1]["bpp"]
    assert len(store.read_model(own_models / "new").card.results) == 2
    refused = dcu(*call, "--for", "machines")
    assert refused.code == 2
    assert one_line(refused.err)


@pytest.mark.parametrize("kernel", [1, 3])
def test_first_layer_is_translated_between_latents(kernel: int) -> None:
    """Where one codec's latent is an affine map of another's, the network says the same of both."""
    torch.manual_seed(0)
    stem = torch.nn.Conv2d(3, 4, kernel, padding=kernel // 2)
    ours = [torch.randn(2, 5, 6, 7) for _ in range(3)]
    matrix, shift = torch.randn(3, 5), torch.randn(3, 1, 1)
    theirs = [torch.einsum("dc,bchw->bdhw", matrix, x) + shift for x in ours]
    other = torch.nn.Conv2d(5, 4, kernel, padding=kernel // 2)
    other.load_state_dict(
        {n.removeprefix("stem."): t for n, t in translated(stem, zip(ours, theirs, strict=True)).items()}
    )
    inside = (..., slice(1, -1), slice(1, -1))
    assert torch.allclose(other(ours[0])[inside], stem(theirs[0])[inside], atol=1e-2)


@pytest.mark.usefixtures("random_rgb")
def test_network_begins_with_one_of_another_codec(many: Codec, codec: Codec, own_models: Path, tmp_path: Path) -> None:
    shipped = store.find("classifier-0.0983")
    _, width, depth, hidden = adapter_shape(shipped.weights())
    recipe = ClassifierRecipe("x", many.name, width=width, depth=depth, hidden=hidden, anchors=ANCHORS)
    pictures = items(write_classes(tmp_path / "pictures", ["any"], 3))
    task = ClassifierTask(recipe, ViewData(batch=2, held_out=1), many, pictures, 0)
    before = task.module.state_dict()["stem.convolution.weight"].clone()
    assert initialize(task, [shipped.name]) == {"name": shipped.name, "sha256": shipped.sha256}
    begun = task.module.state_dict()
    assert not torch.equal(begun["stem.convolution.weight"], before)
    assert torch.equal(begun["join.convolution.weight"], shipped.weights()["join.weight"].float())
    model = write_classifier(many, own_models / "classifier-9")
    back = ClassifierTask(replace(recipe, codec=codec.name, anchors=0), ViewData(batch=2), codec, pictures, 0)
    with pytest.raises(UsageError, match="states no rates"):
        initialize(back, [model.name])


@pytest.mark.usefixtures("random_rgb")
def test_network_begins_with_one_that_reads_streams_for_people_alone(
    many: Codec, both: Codec, own_models: Path, tmp_path: Path
) -> None:
    """What it is to read is fitted to what it read, operating point by operating point."""
    torch.manual_seed(0)
    network = LatentClassifier(many.channels + ANCHORS, 4, 1, 8, 1000)
    card = Card("classifier", many.fingerprint, codec=many.name, labels="imagenet-1k")
    model = store.write_model(own_models / "classifier-9", card, network.state_dict())
    recipe = ClassifierRecipe("x", both.name, width=4, depth=1, hidden=8, anchors=2 * ANCHORS)
    pictures = items(write_classes(tmp_path / "pictures", ["any"], 3))
    task = ClassifierTask(recipe, ViewData(batch=4, held_out=1), both, pictures, 0)
    ours, theirs = task.seen_beside(many, ANCHORS, 0)
    assert ours.shape[1] == both.channels + 2 * ANCHORS
    assert theirs.shape[1] == many.channels + ANCHORS
    points = task.views(-1).points
    assert torch.equal(theirs[:, -ANCHORS:], with_point(theirs[:, :0], points % 64, ANCHORS))
    assert initialize(task, [model.name]) == {"name": model.name, "sha256": model.sha256}


def test_a_card_lists_the_images_of_the_model_that_training_began_with(own_models: Path) -> None:
    model = store.find("classifier-0.0983")
    how = Training(images={"a": 5}, test_images={"a": 2})
    store.amend(model, lambda card: replace(card, training=how))
    assert training_of({"name": model.name, "sha256": model.sha256}) == how
    assert training_of({"sha256": "0" * 64, "steps": 3}) == training_of(None) == Training()


def test_own_classes_are_learned_at_many_operating_points(many: Codec, own_models: Path, tmp_path: Path) -> None:
    """The center at the default, other views at random ones: what the network is told differs."""
    many.rates = [Rates("waves", 2, tuple(0.04 * 1.06**q for q in range(64)), (1.0,) * 64)]
    classifier = Classifier(write_classifier(many, own_models / "classifier-9"), many)
    item = items(write_classes(tmp_path / "classes", ["a"], 1))[0]
    views = cast(list[torch.Tensor], views_of(classifier, item, 4, np.random.default_rng(0)))
    told = [view[0, many.channels :, 0, 0] for view in views]
    default = with_point(torch.zeros(1, 1, 1, 1), torch.tensor([many.point(None)]), ANCHORS)[0, 1:, 0, 0]
    assert torch.allclose(told[0], default)
    assert len({tuple(each.tolist()) for each in told}) == 4


def test_own_classes_need_a_codec_that_states_rates(many: Codec, own_models: Path, dcu: Dcu, tmp_path: Path) -> None:
    write_classifier(many, own_models / "classifier-9")
    ran = dcu("train", "head", write_classes(tmp_path / "classes", ["a", "b"], 4), "--codec", "codec-9")
    assert ran.code == 2
    assert "states no rates" in ran.err.splitlines()[-1]
