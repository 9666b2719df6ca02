"""Bytes to latent to label. No image is computed on the way."""

from __future__ import annotations

import functools
import itertools
import logging
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcu import arguments, bitstream, engines, store
from dcu.bitstream import TILE, Layer, Stream
from dcu.cards import Card
from dcu.codec import Codec, codec_of
from dcu.data import sample_items
from dcu.errors import UnavailableError
from dcu.geometry import LATENT_CROP, LATENT_RESIZE, quality_of
from dcu.nets import channels_last
from dcu.nets.latent import LatentClassifier, adapter_shape, removed_blocks
from dcu.nets.resnet import ResNet, shape_of
from dcu.regions import Box, grid, positions, whole
from dcu.tables import DIMENSIONS
from dcu.tasks.prior import Class, class_weights, reweighted
from dcu.threads import each, inference
from dcu.weights import finite

log = logging.getLogger(__name__)
View = Tensor | Layer
"""A latent (1, C, h, w); a layer of which more than ``MOST`` positions are to be seen, which is all of it."""
Views = Sequence[View]
"""What is seen of one image."""
MOST = 2**16
"""Latent positions (2^22 pixels) up to which a view goes through the network in one piece."""
PIECE = TILE
"""Latent positions a side of the fixed grid in which a larger one does; its features are the mean over all of it."""
CALIBRATED = 21
"""Every how many operating points ranges of eight bits are measured."""
DILUTION = 0.625
"""What fills a larger square is spread over more positions than in training: logits fall by this power."""


@dataclass(frozen=True)
class Prediction:
    """A class and its probability; ``wnid`` is None for classes that are not ImageNet's."""

    label: str
    wnid: str | None
    index: int
    probability: float


@dataclass(frozen=True)
class Predictions:
    """The most probable classes in descending order, with the names of network and codec.

    ``predictions`` is empty if no class reaches ``min_probability``; ``max_probability`` is that of the most probable
    class in any case.
    """

    predictions: tuple[Prediction, ...]
    network: str
    codec: str
    max_probability: float

    @property
    def best(self) -> Prediction | None:
        """The most probable class; None if no class reaches ``min_probability``."""
        return self.predictions[0] if self.predictions else None


class Classifier:
    """A network that classifies an image from its latent.

    ``Classifier.load("classifier-2")(data)`` gives :class:`Predictions`.
    """

    def __init__(self, model: store.Model, codec: Codec, device: str = "cpu", engine: str = "auto") -> None:
        self.model, self.name, self.codec, self.device = model, model.name, codec, device
        self.keeps_int8 = model.card.int8  # a card may say that it loses
        self.engine = engines.chosen(engine, device, self.keeps_int8)
        log.debug("%s on %s, engine %s", model.name, device, self.engine)
        self.making = threading.Lock()
        self.temperature = model.card.temperature
        self.labels = model.card.classes
        if model.fingerprint != codec.fingerprint:
            raise UnavailableError(f"{model.name}: requires another codec than {codec.name}")
        self.network = channels_last(build_network(model)).to(device)
        self.planes = codec.planes(self.network.channels, model.name)
        if len(self.labels) != self.network.classifier.out_features:
            raise UnavailableError(f"{model.name}: number of labels differs from number of classes")

    @classmethod
    def load(cls, name: str | Path | None = None, device: str = "cpu", engine: str = "auto") -> Classifier:
        """Load a classifier by name or path (default: classifier-2), to run on "pytorch", "onnx", "int8" or "auto".

        "auto" is the fastest that is installed and that the card allows.

        Raises
        ------
        UnavailableError
            The classifier or the engine is not installed.
        TypeError, ValueError
            An argument of the wrong type, an unknown device or engine.
        """
        arguments.device(device), arguments.one_of(engine, engines.NAMES, "engine")
        model = store.find(arguments.model_name(name), "classifier")
        return cls(model, codec_of(model.identity, device), device, engine)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.model, self.codec, self.device, self.engine)

    def __repr__(self) -> str:
        return f"<Classifier {self.name}, {len(self.labels)} classes, {self.engine} on {self.device}>"

    def __call__(
        self,
        data: arguments.Data | Stream,
        top: int = 5,
        view: str = "center",
        *,
        classes: Iterable[Class] | None = None,
        prior: Mapping[str, float] | Mapping[int, float] | None = None,
        min_probability: float = 0.0,
    ) -> Predictions:
        """Classify a bitstream.

        Parameters
        ----------
        data : bytes-like or Stream
            A bitstream of the classifier's codec.
        top : int
            Number of classes to return, at least 1.
        view : str
            What the network sees: "center" (the central square), "five" (squares, averaged) or "full".
        classes : iterable of str or int, optional
            The only classes that may occur, by label, WNID or index.
        prior : mapping, optional
            Class frequencies relative to training; 1 for classes that are not listed.
        min_probability : float
            Leave out less probable classes, possibly all.

        Raises
        ------
        InvalidInputError, UnavailableError, TypeError
            As :meth:`dcu.Codec.read`.
        ValueError
            ``top``, ``view``, a class, a weight or a probability is invalid.
        """
        weights = class_weights(self.labels, classes, prior)
        return self.predict(self.look([self.codec.read(data)], view), top, weights, min_probability)[0]

    def look(self, streams: Sequence[Stream], view: str = "center") -> list[Views]:
        """What the network is to see of each stream's smallest layer; ``view`` is one of ``VIEWS``."""
        arguments.one_of(view, VIEWS, "view")
        layers = [self.codec.read(stream).layers[0] for stream in streams]
        boxes = [VIEWS[view](*bitstream.latent_size(layer.width, layer.height)) for layer in layers]
        small = [(layer, box) for layer, part in zip(layers, boxes, strict=True) for box in part if fits(box)]
        latents = iter(self.latents(small))
        return [
            [next(latents) if fits(box) else layer for box in part] for layer, part in zip(layers, boxes, strict=True)
        ]

    def latents(self, boxes: Sequence[tuple[Layer, Box]]) -> list[Tensor]:
        """The latent (1, C, h, w) of boxes of layers; a layer of one tile is decoded once."""
        once = {layer: whole(layer) for layer, _ in boxes if len(layer.tiles) == 1}
        decoded = dict(zip(once, self.codec.symbols(list(once), list(once.values())), strict=True))
        others = [(layer, box) for layer, box in boxes if layer not in once]
        rest = iter(self.codec.symbols([layer for layer, _ in others], [box for _, box in others]))
        parts = [decoded[layer][:, *box] if layer in once else next(rest) for layer, box in boxes]
        points = [layer.operating_point for layer, _ in boxes]
        return self.codec.dequantize([part[None] for part in parts], points, self.planes)

    def embed(self, images: Sequence[Views]) -> Tensor:
        """(n, 1280) float32, the features from which the classes are predicted, each the mean over an image's views.

        Raises
        ------
        UnavailableError
            The network has other features: it is a ResNet.
        """
        if self.network.classifier.in_features != DIMENSIONS:
            raise UnavailableError(f"{self.name}: is a ResNet, whose features are no embeddings")
        return self.through(self.features, images)

    def probabilities(self, images: Sequence[Views]) -> Tensor:
        """(n, classes), each the mean over an image's views."""

        def of(views: Views) -> list[Tensor]:
            return [torch.softmax(logits.float() / self.temperature, 1) for logits in self.logits(views)]

        return self.through(of, images)

    def features(self, views: Views) -> list[Tensor]:
        """(1, 1280) of each view, by PyTorch."""
        return routed(views, lambda view: self.large_features if isinstance(view, Layer) else self.pooled.each)

    def logits(self, views: Views) -> list[Tensor]:
        """(1, classes) of each view: of the field's square by the fastest engine, of others by PyTorch.

        Those of larger latents are brought to the scale of the field's square, for which the temperature is right.
        """

        def way(view: View) -> Callable[[Any], list[Tensor]]:
            if isinstance(view, Layer):
                return self.large_logits
            return self.fast.each if view.shape[-2:] == (LATENT_CROP, LATENT_CROP) else self.plain.each

        return list(map(undiluted, routed(views, way), map(positions_of, views)))

    def large_features(self, layers: Sequence[Layer]) -> list[Tensor]:
        """(1, 1280) of each large layer: the mean over its tiles, which are decoded one after the other."""

        def mean(layer: Layer) -> Tensor:
            tiles = grid(whole(layer), PIECE)
            sums = (self.pooled(self.latents([(layer, tile)])[0]) * positions(tile) for tile in tiles)
            return functools.reduce(torch.add, sums) / positions_of(layer)

        return list(map(mean, layers))

    def large_logits(self, layers: Sequence[Layer]) -> list[Tensor]:
        """(1, classes) of each large layer."""
        return each(self.network.classifier, self.large_features(layers))

    @functools.cached_property
    def plain(self) -> engines.Ready:
        """The network in PyTorch."""
        return self.on("pytorch")

    @functools.cached_property
    def pooled(self) -> engines.Ready:
        """The network in PyTorch, up to its features."""
        return engines.pytorch(self.network, "features")

    @functools.cached_property
    def fast(self) -> engines.Ready:
        """What runs the network on the field's squares; of several threads that ask for it, one makes it."""
        with self.making:
            return self.__dict__.get("fast") or self.on(self.engine)

    def on(self, engine: str) -> engines.Ready:
        """The network on one of ``dcu.engines.TITLES``; ranges of eight bits come from ``sample_items`` photographs."""
        if engine == "pytorch":
            return engines.pytorch(self.network)

        def exported() -> bytes:
            return engines.exported(self.network, torch.zeros(1, self.network.channels, LATENT_CROP, LATENT_CROP))

        def quantized() -> bytes:
            points = itertools.cycle(map(quality_of, self.codec.network_points[::CALIBRATED]))
            streams = [
                self.codec.read(self.codec.compress(item.image(), quality=quality, machines=machines))
                for item, (quality, machines) in zip(sample_items(), points, strict=False)
            ]
            views = [view for views in self.look(streams, "five") for view in views if isinstance(view, Tensor)]
            return engines.quantized(exported(), torch.cat(views).clone())

        make, kind = (exported, "float32") if engine == "onnx" else (quantized, f"{engines.weight_bits()}bit")
        key, title = f"{self.name}-{str(self.model.card.sha256)[:16]}-{kind}", f"{self.name} ({kind})"
        return engines.kept(key, title, make, torch.get_num_threads())

    @inference
    def through(self, network: Callable[[Views], list[Tensor]], images: Sequence[Views]) -> Tensor:
        """The mean of what a network gives for the views of each image; UnavailableError where it is not finite."""
        flat = [view for views in images for view in views]
        answers = iter(network([view if isinstance(view, Layer) else view.to(self.device) for view in flat]))
        means = [torch.cat([next(answers) for _ in views]).float().mean(0).cpu() for views in images]
        return finite(torch.stack(means), self.name)

    def predict(
        self, images: Sequence[Views], top: int = 5, weights: Tensor | None = None, min_probability: float = 0.0
    ) -> list[Predictions]:
        """The ``top`` most probable classes of each image, under the ``weights`` of :func:`class_weights`."""
        arguments.at_least_one(top, "top")
        arguments.share(min_probability, "min_probability")
        probabilities = self.probabilities(images)
        possible = len(self.labels)
        if weights is not None:
            probabilities, possible = reweighted(probabilities, weights), int(weights.count_nonzero())
        best = probabilities.topk(min(top, possible), dim=1)
        return [
            self.predictions(indices, values, min_probability)
            for indices, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def predictions(self, indices: Sequence[int], values: Sequence[float], least: float) -> Predictions:
        """The classes of these indices, by falling probability, as far as they are probable enough."""
        classes = [(self.labels[index], index, value) for index, value in zip(indices, values, strict=True)]
        probable = tuple(Prediction(c.label, c.wnid, index, value) for c, index, value in classes if value >= least)
        return Predictions(probable, self.name, self.codec.name, values[0])


def fits(box: Box) -> bool:
    """Whether a view goes through the network in one piece."""
    return positions(box) <= MOST


def positions_of(view: View) -> int:
    """How many latent positions a view has."""
    return positions(whole(view)) if isinstance(view, Layer) else math.prod(view.shape[-2:])


def routed(views: Views, way: Callable[[View], Callable[[Any], list[Tensor]]]) -> list[Tensor]:
    """The answer to each view, those that go the same way together."""
    ways = [way(view) for view in views]
    answers = {
        one: iter(one([view for view, other in zip(views, ways, strict=True) if other == one])) for one in set(ways)
    }
    return [next(answers[one]) for one in ways]


def undiluted(logits: Tensor, positions: int) -> Tensor:
    """Logits of a latent of so many positions, brought to the scale of the field's square if it is larger."""
    scale: float = max(1.0, positions / LATENT_CROP**2) ** DILUTION
    return logits * scale


def square(h: int, w: int) -> int:
    """Side of the field's square: 7/8 of the short side, as 224 of 256; all of it up to 28."""
    short = min(h, w)
    return short if short <= LATENT_CROP else max(LATENT_CROP, short * LATENT_CROP // LATENT_RESIZE)


def center(h: int, w: int) -> list[Box]:
    """The field's square in the middle."""
    side = square(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    return [(slice(top, top + side), slice(left, left + side))]


def five(h: int, w: int) -> list[Box]:
    """The field's square in the middle and in the four corners."""
    side = square(h, w)
    corners = [(slice(y, y + side), slice(x, x + side)) for y in (0, h - side) for x in (0, w - side)]
    return center(h, w) + corners


VIEWS: dict[str, Callable[[int, int], list[Box]]] = {
    "center": center,
    "five": five,
    "full": lambda h, w: [(slice(0, h), slice(0, w))],
}
"""What a network may see of a latent of h x w positions: the center, five squares, all of it."""


def build_network(model: store.Model) -> LatentClassifier | ResNet:
    """The network of a classifier: of the kind that its card says, of the shape of its weights."""
    tensors = {name: tensor.float() for name, tensor in model.weights().items()}
    try:
        with torch.device("meta"):  # nothing is allocated for what the weights do not hold
            network = empty_network(tensors, model.card)
        network.load_state_dict(tensors, assign=True)
    except (LookupError, RuntimeError, ValueError, TypeError) as error:
        raise UnavailableError(f"{model.name}: invalid classifier weights") from error
    return network.eval().requires_grad_(False)


def empty_network(tensors: Mapping[str, Tensor], card: Card) -> LatentClassifier | ResNet:
    """A network of the shape of these weights; LookupError, TypeError or ValueError if they are no classifier's."""
    if card.network == "resnet":
        return ResNet(shape_of(tensors, card.stride_in), len(tensors["fc.weight"]))
    network = LatentClassifier(*adapter_shape(tensors), tensors["backbone.classifier.bias"].shape[0])
    network.backbone.remove_blocks(removed_blocks(tensors))
    return network


@functools.lru_cache(maxsize=4)
def classifier_for(identity: bytes, device: str = "cpu", engine: str = "auto") -> Classifier:
    """The installed classifier of the codec that a stream names, loaded once."""
    codec = codec_of(identity, device)
    return Classifier(store.find_network("classifier", codec.fingerprint), codec, device, engine)
