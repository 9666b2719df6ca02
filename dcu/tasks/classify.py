"""Bytes to latent to label. No image is computed on the way."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcu import engines, store
from dcu.bitstream import Stream
from dcu.codec import Codec, codec_of
from dcu.data import sample_items
from dcu.errors import UnavailableError
from dcu.geometry import LATENT_CROP, LATENT_RESIZE
from dcu.nets import channels_last
from dcu.nets.latent import LatentClassifier, adapter_shape, removed_blocks

LOG = logging.getLogger(__name__)
Views = list[Tensor]
"""Latents (1, C, h, w) of one image."""
MAX_POSITIONS = 32 * 28 * 28
"""Latent positions that go through the network together: bounds memory."""

DILUTION = 0.625
"""What fills a larger square is spread over more positions than the network was taught: logits fall by this power."""


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
    """A network that names what is in an image from its latent.

    ``Classifier.load("classifier-0.0983")(data)`` gives :class:`Predictions`.
    """

    def __init__(self, model: store.Model, codec: Codec, device: str = "cpu", engine: str = "auto") -> None:
        self.model, self.name, self.codec, self.device = model, model.name, codec, device
        self.keeps_int8 = bool(model.card.get("int8", True))  # a card may say that it loses
        self.engine = engines.chosen(engine, device, self.keeps_int8)
        LOG.debug("%s on %s, engine %s", model.name, device, self.engine)
        self.temperature = float(model.card.get("temperature", 1.0))
        self.labels: list[dict[str, Any]] = model.card.get("labels", [])
        if model.fingerprint != codec.fingerprint:
            raise UnavailableError(f"{model.name}: reads latents of another codec than {codec.name}")
        self.network = channels_last(build_network(model)).to(device)
        if len(self.labels) != self.network.backbone.classifier.out_features:
            raise UnavailableError(f"{model.name}: its card has not one label a class")

    @classmethod
    def load(cls, name: str | Path = "classifier-0.0983", device: str = "cpu", engine: str = "auto") -> Classifier:
        """An installed classifier by name or path, on one of ``dcu.engines.NAMES``; raises UnavailableError."""
        model = store.find(str(name), "classifier")
        return cls(model, codec_of(model.identity, device), device, engine)

    def __call__(self, data: bytes, top: int = 5, view: str = "center") -> Predictions:
        """Name what a bitstream shows; ``view`` is one of ``VIEWS``."""
        return self.predict(self.look([self.codec.read(data)], view), top)[0]

    def look(self, streams: Sequence[Stream], view: str = "center") -> list[Views]:
        """What the network is to see of each stream's smallest layer; ``view`` is one of ``VIEWS``."""
        for stream in streams:
            self.codec.check(stream)
        return [VIEWS[view](latent) for latent in self.codec.latents(streams)]

    def embed(self, images: Sequence[Views]) -> Tensor:
        """(n, 1280) float32, the features from which the classes are told, each the mean over an image's views."""
        return self.through(self.network.features, images)

    def probabilities(self, images: Sequence[Views]) -> Tensor:
        """(n, classes), each the mean over an image's views."""
        return self.through(lambda latent: torch.softmax(self.logits(latent).float() / self.temperature, 1), images)

    def logits(self, latent: Tensor) -> Tensor:
        """(B, classes) of latents of one size: the field's square by the fastest engine, others by PyTorch.

        Those of larger latents are brought to the scale of the field's square, for which the temperature is right.
        """
        if self.engine != "pytorch" and latent.shape[-2:] == (LATENT_CROP, LATENT_CROP):
            return self.fast(latent)
        return undiluted(self.network(latent), latent[0, 0].numel())

    @functools.cached_property
    def fast(self) -> engines.Engine:
        """What runs the network on the field's squares."""
        return self.on(self.engine)

    def on(self, engine: str) -> engines.Engine:
        """The network on one of ``dcu.engines.TITLES``; ranges of eight bits come from ``sample_items`` photographs."""
        if engine == "pytorch":
            return engines.pytorch(self.network)

        def exported() -> bytes:
            return engines.exported(self.network, torch.zeros(1, len(self.codec.levels), LATENT_CROP, LATENT_CROP))

        def quantized() -> bytes:
            streams = [self.codec.read(self.codec.compress(item.image())) for item in sample_items()]
            views = [view for latent in self.codec.latents(streams) for view in five(latent)]
            return engines.quantized(exported(), torch.cat(views).clone())

        make, kind = (exported, "float32") if engine == "onnx" else (quantized, f"{engines.weight_bits()}bit")
        return engines.kept(f"{self.name}-{self.model.card['sha256'][:16]}-{kind}", make, torch.get_num_threads())

    @torch.inference_mode()
    def through(self, network: Callable[[Tensor], Tensor], images: Sequence[Views]) -> Tensor:
        """The mean of what a network gives for the views of each image; those of one size go through together."""
        flat = [(owner, view) for owner, views in enumerate(images) for view in views]
        answers: dict[int, Tensor] = {}
        sizes = [view.shape[-2:] for _, view in flat]
        for size in set(sizes):
            members = [index for index, s in enumerate(sizes) if s == size]
            most = max(1, MAX_POSITIONS // (size[0] * size[1]))
            for part in (members[at : at + most] for at in range(0, len(members), most)):
                batch = torch.cat([flat[index][1] for index in part]).to(self.device)
                answer = network(batch.contiguous(memory_format=torch.channels_last)).float().cpu()
                answers |= dict(zip(part, answer, strict=True))
        owners = torch.tensor([owner for owner, _ in flat])
        stacked = torch.stack([answers[index] for index in range(len(flat))])
        return torch.stack([stacked[owners == owner].mean(0) for owner in range(len(images))])

    def predict(self, images: Sequence[Views], top: int = 5) -> list[Predictions]:
        """The ``top`` most probable classes of each image."""
        probabilities = self.probabilities(images)
        best = probabilities.topk(min(top, probabilities.shape[1]), dim=1)
        return [
            Predictions(tuple(map(self.prediction, indices, values)), self.name, self.codec.name)
            for indices, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def prediction(self, index: int, probability: float) -> Prediction:
        """A class number with its names."""
        label = self.labels[index]
        return Prediction(label["label"], label.get("wnid"), index, probability)


def undiluted(logits: Tensor, positions: int) -> Tensor:
    """Logits of a latent of so many positions, brought to the scale of the field's square if it is larger."""
    scale: float = max(1.0, positions / LATENT_CROP**2) ** DILUTION
    return logits * scale


def square(latent: Tensor) -> int:
    """Side of the field's square: 7/8 of the short side, as 224 of 256; all of it up to 28."""
    short = min(latent.shape[-2:])
    return short if short <= LATENT_CROP else max(LATENT_CROP, short * LATENT_CROP // LATENT_RESIZE)


def center(latent: Tensor) -> Views:
    """The field's square in the middle."""
    side = square(latent)
    top, left = ((size - side) // 2 for size in latent.shape[-2:])
    return [latent[:, :, top : top + side, left : left + side]]


def five(latent: Tensor) -> Views:
    """The field's square in the middle and in the four corners."""
    side = square(latent)
    h, w = latent.shape[-2:]
    corners = [latent[:, :, y : y + side, x : x + side] for y in (0, h - side) for x in (0, w - side)]
    return center(latent) + corners


VIEWS: dict[str, Callable[[Tensor], Views]] = {"center": center, "five": five, "full": lambda latent: [latent]}
"""What a network may see of a latent (1, C, h, w): the center, five squares, all of it."""


def build_network(model: store.Model) -> LatentClassifier:
    """The network of a classifier's weights, which alone say of what shape it is."""
    tensors = {name: tensor.float() for name, tensor in model.weights().items()}
    try:
        network = LatentClassifier(*adapter_shape(tensors), tensors["backbone.classifier.bias"].shape[0])
        network.backbone.remove_blocks(removed_blocks(tensors))
        network.load_state_dict(tensors)
    except (KeyError, RuntimeError, ValueError) as error:
        raise UnavailableError(f"{model.name}: its weights are not those of a classifier") from error
    return network.eval().requires_grad_(False)


@functools.lru_cache(maxsize=4)
def classifier_for(identity: bytes, device: str = "cpu", engine: str = "auto") -> Classifier:
    """The installed classifier of the codec that a stream names, loaded once."""
    codec = codec_of(identity, device)
    return Classifier(store.find_network("classifier", codec.fingerprint), codec, device, engine)
