"""Bytes to latent to label. No picture is computed on the way."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcu import store
from dcu.bitstream import Stream
from dcu.codec import Codec, codec_of
from dcu.errors import UnavailableError
from dcu.nets import channels_last
from dcu.nets.efficientnet import LatentClassifier

CROP, SHORT = 28, 32
"""The field's protocol on latents: the centre 224 of a short side of 256."""


@dataclass(frozen=True)
class Prediction:
    """One class and its probability; ``wnid`` is None where classes are not ImageNet's."""

    label: str
    wnid: str | None
    index: int
    probability: float


@dataclass(frozen=True)
class Predictions:
    """The most probable classes, best first, and what named them."""

    predictions: tuple[Prediction, ...]
    network: str
    codec: str

    @property
    def best(self) -> Prediction:
        """The most probable class."""
        return self.predictions[0]


class Classifier:
    """A network that names what is in a picture from its latent.

    ``Classifier.load("classifier-0.0983")(data)`` gives :class:`Predictions`.
    """

    def __init__(self, model: store.Model, codec: Codec, device: str = "cpu") -> None:
        self.name, self.codec, self.device = model.name, codec, device
        self.labels: list[dict[str, Any]] = model.card.get("labels", [])
        if model.fingerprint != codec.fingerprint:
            raise UnavailableError(f"{model.name}: reads latents of another codec than {codec.name}")
        self.network = channels_last(build_network(model)).to(device)
        if len(self.labels) != self.network.trunk.classifier.out_features:
            raise UnavailableError(f"{model.name}: its card has not one label a class")

    @classmethod
    def load(cls, name: str | Path = "classifier-0.0983", device: str = "cpu") -> Classifier:
        """An installed classifier by name or path; raises UnavailableError."""
        model = store.find(str(name), "classifier")
        return cls(model, codec_of(bytes.fromhex(model.fingerprint)[: store.ID_BYTES], device), device)

    def __call__(self, data: bytes, top: int = 5) -> Predictions:
        """Name what a bitstream shows."""
        return self.predict([self.view(self.codec.read(data))], top)[0]

    def view(self, stream: Stream) -> Tensor:
        """The latent of the centre square of a stream's smallest layer, (1, C, s, s)."""
        self.codec.check(stream)
        return centre(self.codec.latent(stream))

    @torch.inference_mode()
    def logits(self, views: Sequence[Tensor]) -> Tensor:
        """(n, classes) of latents (1, C, s, s); those of one size go through the network together."""
        answers: dict[int, Tensor] = {}
        sizes = [view.shape[-2:] for view in views]
        for size in set(sizes):
            members = [index for index, s in enumerate(sizes) if s == size]
            batch = torch.cat([views[index] for index in members]).to(self.device)
            logits = self.network(batch.contiguous(memory_format=torch.channels_last)).float().cpu()
            answers |= dict(zip(members, logits, strict=True))
        return torch.stack([answers[index] for index in range(len(views))])

    def predict(self, views: Sequence[Tensor], top: int = 5) -> list[Predictions]:
        """The ``top`` most probable classes of each latent."""
        probabilities = torch.softmax(self.logits(views), 1)
        best = probabilities.topk(min(top, probabilities.shape[1]), dim=1)
        return [
            Predictions(tuple(map(self.prediction, indices, values)), self.name, self.codec.name)
            for indices, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def prediction(self, index: int, probability: float) -> Prediction:
        """A class number with its names."""
        label = self.labels[index]
        return Prediction(label["label"], label.get("wnid"), index, probability)


def centre(latent: Tensor) -> Tensor:
    """The centre square of a latent: 7/8 of the short side, as the field crops 224 of 256; all of it up to 28."""
    h, w = latent.shape[-2:]
    short = min(h, w)
    side = short if short <= CROP else max(CROP, short * CROP // SHORT)
    top, left = (h - side) // 2, (w - side) // 2
    return latent[:, :, top : top + side, left : left + side]


def build_network(model: store.Model) -> LatentClassifier:
    """The network of a classifier's weights, which alone say how wide and deep it is."""
    tensors = {name: tensor.float() for name, tensor in model.weights().items()}
    try:
        width, channels = tensors["stem.weight"].shape[:2]
        depth = sum(n.startswith("front.") and n.endswith(".conv1.weight") for n in tensors)
        network = LatentClassifier(channels, width, depth, tensors["trunk.classifier.bias"].shape[0])
        network.load_state_dict(tensors)
    except (KeyError, RuntimeError, ValueError) as error:
        raise UnavailableError(f"{model.name}: its weights are not those of a classifier") from error
    return network.eval().requires_grad_(False)


@functools.lru_cache(maxsize=4)
def classifier_for(identity: bytes, device: str = "cpu") -> Classifier:
    """The installed classifier of the codec that a stream names, loaded once."""
    codec = codec_of(identity, device)
    return Classifier(store.find_network("classifier", codec.fingerprint), codec, device)
