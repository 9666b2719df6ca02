from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dcu import store
from dcu.bitstream import Layer
from dcu.codec import Codec
from dcu.errors import UnavailableError
from dcu.evaluate.cost import macs
from dcu.nets.efficientnet import LITE2, EfficientNetLite, SameConv2d
from dcu.nets.latent import LatentClassifier
from dcu.nets.transforms import Synthesis
from dcu.tasks.classify import DILUTION, VIEWS, Classifier, View, center

from .conftest import Dcu, backbone_classifier, fixed, one_line, png, smooth_image, write_classifier


def test_no_image_is_computed(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    data = codec.compress(smooth_image(64, 64))

    def refuse(*_: object) -> None:
        raise AssertionError("synthesis ran")

    monkeypatch.setattr(Synthesis, "forward", refuse)
    answer = Classifier.load()(data, top=2)
    assert answer.best == answer.predictions[0]
    assert answer.predictions[0].label in ("cat", "dog", "tea")
    assert len(answer.predictions) == 2
    assert answer.predictions[0].probability >= answer.predictions[1].probability
    assert (answer.network, answer.codec) == ("classifier-0.0983", "codec-0.0983")


def test_batch_answers_as_one_by_one_and_in_order(codec: Codec) -> None:
    classifier = Classifier.load()
    sizes = [(64, 64), (224, 224), (30, 80), (64, 64)]
    streams = [codec.compress(smooth_image(*size, seed=i)) for i, size in enumerate(sizes)]
    together = classifier.probabilities(classifier.look([codec.read(s) for s in streams]))
    for data, logits in zip(streams, together, strict=True):
        assert torch.allclose(classifier.probabilities(classifier.look([codec.read(data)]))[0], logits, atol=1e-4)


def test_probabilities_sum_to_one(codec: Codec) -> None:
    answer = Classifier.load()(codec.compress(smooth_image(64, 64)), top=99)
    assert sum(p.probability for p in answer.predictions) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("size", "side"), [((28, 28), 28), ((32, 43), 28), ((30, 60), 28), ((64, 96), 56), ((3, 9), 3)]
)
def test_center(size: tuple[int, int], side: int) -> None:
    assert [torch.zeros(size)[box].shape for box in center(*size)] == [(side, side)]


def test_classifier_of_another_codec(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("other") / "classifier"
    write_classifier(directory, "ab" * 32)
    with pytest.raises(UnavailableError):
        Classifier.load(directory)


def test_same_padding_is_tensorflows() -> None:
    """Of an even side, stride 2 pads behind only; of an odd side, on both sides."""
    convolution = SameConv2d(1, 1, 3, 2, bias=False)
    torch.nn.init.ones_(convolution.weight)
    even = convolution(torch.ones(1, 1, 4, 4))[0, 0]
    odd = convolution(torch.ones(1, 1, 5, 5))[0, 0]
    assert even.tolist() == [[9, 6], [6, 4]]
    assert odd[0].tolist() == [4, 6, 4]


def test_cost_of_the_networks() -> None:
    """The backbone is the 271 M MACs of the design; the RGB network is that and 114 M before the split point."""
    latent = LatentClassifier(16, 64, 2, 0, 1000)
    assert macs(latent.backbone, torch.zeros(1, 40, 28, 28)) // 10**6 == 271
    adapter = macs(latent, torch.zeros(1, 16, 28, 28)) - macs(latent.backbone, torch.zeros(1, 40, 28, 28))
    assert adapter <= 150e6
    assert macs(EfficientNetLite(), torch.zeros(1, 3, 224, 224)) // 10**6 == 385
    assert macs(EfficientNetLite(LITE2), torch.zeros(1, 3, 260, 260)) == pytest.approx(869e6, rel=0.06)


def test_blocks_that_a_classifier_does_without(own_models: Path, codec: Codec) -> None:
    """Its weights tell which; those left keep their names and work; one that changes the shape has to be there."""
    model = store.read_model(own_models / "classifier-0.0983")
    whole = backbone_classifier(Classifier(model, codec))
    tensors = {
        n: t for n, t in model.weights().items() if not n.startswith(("backbone.blocks.5.", "backbone.blocks.9."))
    }
    less = Classifier(store.write_model(own_models / "less", model.card, tensors), codec).network
    latent = torch.randn(1, 3, 28, 28)
    x = whole.split_features(latent)
    for number, block in enumerate(whole.backbone.blocks):
        x = x if number in (5, 9) else block(x)
    assert torch.equal(less.features(latent), whole.backbone.pool(x))
    assert macs(less, latent) < macs(whole, latent)
    tensors = {n: t for n, t in tensors.items() if not n.startswith("backbone.blocks.3.")}
    with pytest.raises(UnavailableError):
        Classifier(store.write_model(own_models / "broken", model.card, tensors), codec)


def test_five_views_are_averaged_and_full_is_everything(codec: Codec) -> None:
    classifier = Classifier.load()
    stream = codec.read(codec.compress(smooth_image(300, 520)))
    latent = codec.latent(stream)
    views = [view for view in classifier.look([stream], "five")[0] if isinstance(view, torch.Tensor)]
    side = views[0].shape[-1]
    assert side == 38 * 28 // 32
    assert torch.equal(views[1], latent[:, :, :side, :side])
    assert torch.equal(views[4], latent[:, :, -side:, -side:])
    each = torch.cat([classifier.probabilities([[view]]) for view in views])
    assert torch.allclose(classifier.probabilities([views])[0], each.mean(0), atol=1e-5)
    ((whole,),) = classifier.look([stream], "full")
    assert isinstance(whole, torch.Tensor)
    assert torch.equal(whole, latent)


def test_only_tiles_that_are_seen_are_decoded(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a panorama of 30 tiles one; what is seen is what it would be of all."""
    image = smooth_image(16, 60_000)
    stream, classifier = codec.read(codec.compress(image)), Classifier.load()
    latent, decode = codec.latent(stream), fixed(codec).entropy.decode
    decoded: list[bytes] = []

    def watched(tiles: list[bytes], height: int, width: int) -> torch.Tensor:
        decoded.extend(tiles)
        return decode(tiles, height, width)

    monkeypatch.setattr(fixed(codec).entropy, "decode", watched)
    monkeypatch.setattr(classifier, "codec", codec)
    for view, seen in (("center", 1), ("five", 5)):
        decoded.clear()
        for box, part in zip(VIEWS[view](2, 7500), classifier.look([stream], view)[0], strict=True):
            assert isinstance(part, torch.Tensor)
            assert torch.equal(part, latent[:, :, *box])
        assert len(decoded) == seen


def test_large_views_are_the_mean_of_their_pieces(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Near to what one piece gives; logits are those of the mean features."""
    monkeypatch.setattr("dcu.tasks.classify.MOST", 1000)
    monkeypatch.setattr("dcu.tasks.classify.PIECE", 40)
    classifier, stream = Classifier.load(), codec.read(codec.compress(smooth_image(512, 640)))
    views = classifier.look([stream, codec.read(codec.compress(smooth_image(64, 64)))], "full")
    assert isinstance(views[0][0], Layer)
    features = classifier.embed(views)
    latent = codec.latent(stream)
    pieces = [piece for rows in latent.split(40, 2) for piece in rows.split(40, 3)]
    expected = sum(classifier.embed([[piece]])[0] * piece[0, 0].numel() for piece in pieces) / latent[0, 0].numel()
    assert torch.allclose(features[0], expected, atol=1e-5)
    logits = classifier.through(classifier.logits, views)
    scale = (64 * 80 / 784) ** DILUTION
    told = backbone_classifier(classifier).classifier(features[0]) * scale
    assert torch.allclose(logits[0], told, atol=1e-4)
    assert not torch.equal(logits[0], logits[1])


def test_temperature_of_the_card_softens(own_models: Path) -> None:
    latent: list[View] = [torch.randn(1, 3, 28, 28)]
    classifier = Classifier.load(own_models / "classifier-0.0983")
    expected = torch.softmax(classifier.network(latent[0]) / 2, 1)
    model = store.read_model(own_models / "classifier-0.0983")
    store.amend(model, lambda card: replace(card, temperature=2.0))
    softer = Classifier.load(own_models / "classifier-0.0983")
    assert torch.allclose(softer.probabilities([latent]), expected, atol=1e-6)


def test_larger_latents_are_named_as_surely(own_models: Path) -> None:
    """By how many more positions there are than the network was taught; smaller ones are left as they are."""
    classifier = Classifier.load(own_models / "classifier-0.0983")
    for size, scale in ((28, 1.0), (56, 4**DILUTION), (14, 1.0)):
        latent = torch.randn(1, 3, size, size)
        expected = torch.softmax(classifier.network(latent) * scale, 1)
        assert torch.allclose(classifier.probabilities([[latent]]), expected, atol=1e-5)


def test_embedding_is_what_the_classes_are_told_from(
    dcu: Dcu, codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Synthesis, "forward", None)  # no image is computed
    for index in range(2):
        (tmp_path / f"{index}.bin").write_bytes(codec.compress(smooth_image(64, 64, seed=index)))
    assert dcu("embed", tmp_path, "-o", tmp_path / "out").code == 0
    lines = dcu("embed", tmp_path / "0.bin", tmp_path / "1.bin", "--json").lines
    classifier = Classifier.load()
    for index, line in enumerate(lines):
        features = np.load(tmp_path / "out" / f"{index}.npy", allow_pickle=False)
        assert features.shape == (1280,)
        assert features.dtype == np.float32
        assert np.allclose(features, line["embedding"], atol=1e-4)
        ((view,),) = classifier.look([codec.read((tmp_path / f"{index}.bin").read_bytes())])
        told = backbone_classifier(classifier).classifier(torch.from_numpy(features))
        assert torch.allclose(told, classifier.network(view)[0], atol=1e-4)


def test_embed_and_views_refuse_what_makes_no_sense(dcu: Dcu, codec: Codec, tmp_path: Path) -> None:
    stream = tmp_path / "x.bin"
    stream.write_bytes(codec.compress(smooth_image(64, 64)))
    assert dcu("embed", stream).code == 2
    assert dcu("embed", stream, "-o", tmp_path / "x.npy", "--json").code == 2
    assert dcu("classify", stream, "--view", "left").code == 2
    assert dcu("classify", stream, "--views", 3).code == 2
    assert dcu("classify", stream, "--views", 5, "--view", "full").code == 2
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.bin").write_bytes(stream.read_bytes())
    assert dcu("embed", tmp_path / "sub", tmp_path / "sub" / "a.bin", tmp_path, "-o", tmp_path / "out").code == 2
    assert dcu("embed", tmp_path, tmp_path / "sub" / "a.bin", "-o", tmp_path / "out").code == 0  # one file, two places
    assert (tmp_path / "out" / "sub" / "a.npy").exists()
    assert (tmp_path / "out" / "a.npy").exists()
    two = tmp_path / "two.bin"
    two.write_bytes(stream.read_bytes() * 2)
    answer = dcu("embed", two, "-o", tmp_path / "two.npy")
    assert answer.code == 65
    assert one_line(answer.err)


def test_improbable_classes_are_left_out(dcu: Dcu, codec: Codec, tmp_path: Path) -> None:
    stream = tmp_path / "x.bin"
    stream.write_bytes(codec.compress(smooth_image(64, 64)))
    (all_of_them,) = dcu("classify", stream, "--json").lines
    least = all_of_them["predictions"][0]["probability"]
    (some,) = dcu("classify", stream, "--json", "--min-probability", least - 1e-5).lines
    assert some["predictions"] == [p for p in all_of_them["predictions"] if p["probability"] >= least - 1e-5]
    assert len(some["predictions"]) < 3


@pytest.mark.parametrize("shape", [(60, 60), (1, 1), (32, 256), (256, 32), (224, 224), (480, 640), (1030, 1400)])
def test_images_of_any_size_are_named(dcu: Dcu, tmp_path: Path, shape: tuple[int, int]) -> None:
    """Icons, panoramas, gray scans, what lies between and what has a thumbnail layer."""
    for name, image in (("colour", smooth_image(*shape)), ("grey", smooth_image(*shape)[..., 0])):
        (tmp_path / f"{name}.png").write_bytes(png(image))
    assert dcu("compress", tmp_path, "-o", tmp_path / "bins").code == 0
    for view in (["--views", 1], ["--views", 5], ["--view", "full"]):
        answer = dcu("classify", tmp_path / "bins", "--json", *view)
        assert answer.code == 0
        assert [len(line["predictions"]) for line in answer.lines] == [3, 3]
