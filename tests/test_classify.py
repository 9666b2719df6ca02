from __future__ import annotations

import pytest
import torch

from dcu.codec import Codec
from dcu.errors import UnavailableError
from dcu.evaluate.cost import macs
from dcu.nets.efficientnet import EfficientNetLite0, LatentClassifier, SameConv2d
from dcu.nets.transforms import Synthesis
from dcu.tasks.classify import Classifier, centre

from .conftest import smooth_picture, write_classifier


def test_no_picture_is_computed(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    data = codec.compress(smooth_picture(64, 64))

    def refuse(*_: object) -> None:
        raise AssertionError("synthesis ran")

    monkeypatch.setattr(Synthesis, "forward", refuse)
    answer = Classifier.load()(data, top=2)
    assert answer.best.label in ("cat", "dog", "tea")
    assert len(answer.predictions) == 2
    assert answer.predictions[0].probability >= answer.predictions[1].probability
    assert (answer.network, answer.codec) == ("classifier-0.0983", "codec-0.0983")


def test_batch_answers_as_one_by_one_and_in_order(codec: Codec) -> None:
    classifier = Classifier.load()
    sizes = [(64, 64), (224, 224), (30, 80), (64, 64)]
    streams = [codec.compress(smooth_picture(*size, seed=i)) for i, size in enumerate(sizes)]
    together = classifier.logits([classifier.view(codec.read(s)) for s in streams])
    for data, logits in zip(streams, together, strict=True):
        assert torch.allclose(classifier.logits([classifier.view(codec.read(data))])[0], logits, atol=1e-4)


def test_probabilities_sum_to_one(codec: Codec) -> None:
    answer = Classifier.load()(codec.compress(smooth_picture(64, 64)), top=99)
    assert sum(p.probability for p in answer.predictions) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("size", "side"), [((28, 28), 28), ((32, 43), 28), ((30, 60), 28), ((64, 96), 56), ((3, 9), 3)]
)
def test_centre(size: tuple[int, int], side: int) -> None:
    assert centre(torch.zeros(1, 1, *size)).shape[-2:] == (side, side)


def test_classifier_of_another_codec(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("other") / "classifier"
    write_classifier(folder, "ab" * 32)
    with pytest.raises(UnavailableError):
        Classifier.load(folder)


def test_same_padding_is_tensorflows() -> None:
    """Of an even side, stride 2 pads behind only; of an odd side, on both sides."""
    convolution = SameConv2d(1, 1, 3, 2, bias=False)
    torch.nn.init.ones_(convolution.weight)
    even = convolution(torch.ones(1, 1, 4, 4))[0, 0]
    odd = convolution(torch.ones(1, 1, 5, 5))[0, 0]
    assert even.tolist() == [[9, 6], [6, 4]]
    assert odd[0].tolist() == [4, 6, 4]


def test_cost_of_the_networks() -> None:
    """The trunk is the 271 M MACs of the design; the RGB network is that and 114 M before the joint."""
    latent = LatentClassifier(16, 64, 2, 1000)
    assert macs(latent.trunk, torch.zeros(1, 40, 28, 28)) // 10**6 == 271
    front = macs(latent, torch.zeros(1, 16, 28, 28)) - macs(latent.trunk, torch.zeros(1, 40, 28, 28))
    assert front <= 150e6
    assert macs(EfficientNetLite0(), torch.zeros(1, 3, 224, 224)) // 10**6 == 385
