"""Bitstream to latent to segmentation map, without decoding pixels."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from dcu import arguments, engines, store
from dcu.bitstream import TILE, Layer, Stream, latent_size
from dcu.cards import Card
from dcu.codec import Codec, codec_of
from dcu.errors import UnavailableError
from dcu.geometry import BLOCK
from dcu.image import ImageArray
from dcu.nets import channels_last
from dcu.nets.latent import adapter_shape
from dcu.nets.resnet import DilatedResNet, shape_of
from dcu.nets.segmenter import STRIDE, LatentSegmenter
from dcu.regions import common, grid, in_pieces, moved, size, whole
from dcu.threads import inference
from dcu.weights import finite

HALO = 32
"""Latent positions around a piece of a large image: 256 pixels of surroundings."""
TILES_AT_ONCE = 16
"""Tiles that are decoded together, as far as a line of them has so many: for threads to share."""
BAND = 2**24
"""Logits at the image's size that are in memory at once, 64 MiB: those of 11 classes and 2^20 pixels in one piece."""
ROWS = 64
"""Rows of a segmentation map that are counted, or colored, together: bounds memory."""
OPACITY = 0.5
"""Of the colors over the image."""


@dataclass(frozen=True)
class SegmentationMap:
    """A segmentation map, with the names of network and codec."""

    classes: NDArray[np.uint8]  # (H, W), positions in ``labels``
    labels: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    network: str
    codec: str

    @property
    def class_fractions(self) -> dict[str, float]:
        """Fraction of the image's pixels per class."""
        parts = (self.classes[top : top + ROWS] for top in range(0, len(self.classes), ROWS))  # counted in 64 bits each
        counts = np.sum([np.bincount(part.ravel(), minlength=len(self.labels)) for part in parts], axis=0)
        return {label: float(count) / self.classes.size for label, count in zip(self.labels, counts, strict=True)}

    def image(self) -> Image.Image:
        """An indexed image: index = position in ``labels``."""
        height, width = self.classes.shape
        image = Image.frombuffer("P", (width, height), np.ascontiguousarray(self.classes), "raw", "P", 0, 1)
        image.putpalette(np.array(self.palette, np.uint8).tobytes())
        return image

    def over(self, image: arguments.AnyImage) -> ImageArray:
        """Blend the class colors over an image (H, W, 3) or a Pillow image; raises TypeError and ValueError."""
        image = arguments.image(image)
        if image.shape[:2] != self.classes.shape:
            raise ValueError(f"image must have the shape {self.classes.shape}, not {image.shape[:2]}")
        palette, out = np.array(self.palette, np.float32), np.empty_like(image)
        for top in range(0, len(image), ROWS):
            rows = slice(top, top + ROWS)
            out[rows] = np.rint(OPACITY * palette[self.classes[rows]] + (1 - OPACITY) * image[rows])
        return out


class Segmenter:
    """A network that segments an image from its latent.

    ``Segmenter.load("segmenter-2")(data)`` gives a :class:`SegmentationMap`.
    """

    def __init__(self, model: store.Model, codec: Codec, device: str = "cpu") -> None:
        self.model, self.name, self.codec, self.device = model, model.name, codec, device
        labels = model.card.classes
        self.labels = tuple(label.label for label in labels)
        self.palette = tuple(color(label.color or "") for label in labels)
        self.void = model.card.void
        if model.fingerprint != codec.fingerprint:
            raise UnavailableError(f"{model.name}: requires another codec than {codec.name}")
        self.network = channels_last(build_network(model)).to(device)
        self.planes = codec.planes(self.network.channels, model.name)
        self.run = engines.pytorch(self.network)
        if len(labels) != self.network.classes:
            raise UnavailableError(f"{model.name}: number of labels differs from number of classes")

    @classmethod
    def load(cls, name: str | Path | None = None, device: str = "cpu") -> Segmenter:
        """Load a segmenter by name or path (default: segmenter-2); raises UnavailableError, TypeError or ValueError."""
        arguments.device(device)
        model = store.find(arguments.model_name(name), "segmenter")
        return cls(model, codec_of(model.identity, device), device)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.model, self.codec, self.device)

    def __repr__(self) -> str:
        return f"<Segmenter {self.name}, {len(self.labels)} classes, on {self.device}>"

    def __call__(self, data: arguments.Data | Stream, full: bool = False) -> SegmentationMap:
        """Segment a bitstream at the size of its image; from the thumbnail layer, enlarged, unless ``full``.

        Raises
        ------
        InvalidInputError, UnavailableError, TypeError
            As :meth:`dcu.Codec.read`.
        """
        stream = self.codec.read(data)
        arguments.instance(full, bool, "full")
        layer = stream.full if full else stream.layers[0]
        classes = self.classes(layer)
        size = (stream.full.height, stream.full.width)
        if classes.shape != size:
            resized = Image.fromarray(classes).resize(size[::-1], Image.Resampling.NEAREST)
            classes = np.asarray(resized)
        return SegmentationMap(classes, self.labels, self.palette, self.name, self.codec.name)

    @inference
    def classes(self, layer: Layer) -> NDArray[np.uint8]:
        """The segmentation map of a layer, (height, width)."""
        symbols = Lines(self.codec, layer)

        def piece(rows: slice, columns: slice) -> Tensor:
            box = symbols.box(rows, columns)
            (seen,) = self.codec.dequantize([box], [layer.operating_point], self.planes)
            return most_probable(finite(self.run(seen), self.name)).cpu()

        h, w = latent_size(layer.width, layer.height)
        classes = torch.empty(1, layer.height, layer.width, dtype=torch.uint8)
        return in_pieces(piece, classes, h, w, BLOCK, HALO)[0].numpy()


class Lines:
    """The symbols of a layer for boxes that follow each other along its longer side.

    Tiles are decoded in lines across it, and those that are behind are forgotten: bounds memory.
    """

    def __init__(self, codec: Codec, layer: Layer) -> None:
        self.codec, self.layer = codec, layer
        rows, columns = whole(layer)
        self.wide = size(rows) < size(columns)
        self.across = rows if self.wide else columns
        along = columns if self.wide else rows
        length = TILE * max(1, TILES_AT_ONCE * TILE // size(self.across))
        self.lines = [line for line, _ in grid((along, slice(0, 1)), length)]
        self.decoded: dict[int, Tensor] = {}

    def box(self, rows: slice, columns: slice) -> Tensor:
        """The symbols (1, C, h, w) uint8 of a box."""
        along = columns if self.wide else rows
        needed = [number for number, line in enumerate(self.lines) if size(common(line, along))]
        self.decoded = {number: self.decoded[number] for number in needed if number in self.decoded}
        for number in needed:
            if number not in self.decoded:
                line = self.lines[number]
                place = (self.across, line) if self.wide else (line, self.across)
                (self.decoded[number],) = self.codec.symbols([self.layer], [place])
        parts = [(self.decoded[number], self.lines[number]) for number in needed]
        inside = [(symbols, moved(common(line, along), -line.start)) for symbols, line in parts]
        if self.wide:
            return torch.cat([symbols[:, rows, part] for symbols, part in inside], 2)[None]
        return torch.cat([symbols[:, part, columns] for symbols, part in inside], 1)[None]


def most_probable(logits: Tensor) -> Tensor:
    """The class (1, 4 h, 4 w) uint8 of the largest of the enlarged logits, (1, classes, h, w), in bands of rows."""
    _, classes, h, w = logits.shape
    rows = max(1, BAND // (classes * w * STRIDE**2))
    bands = []
    for top in range(0, h, rows):
        first, last = max(0, top - 1), min(h, top + rows + 1)  # a row more on either side, for what is between rows
        band = enlarged(logits[:, :, first:last]).argmax(1).to(torch.uint8)
        start = (top - first) * STRIDE
        bands.append(band[:, start : start + min(rows, h - top) * STRIDE])
    return torch.cat(bands, 1)


def enlarged(logits: Tensor) -> Tensor:
    """Logits (B, classes, h, w) at the size of the image, bilinear: (B, classes, 4 h, 4 w)."""
    return F.interpolate(logits.float(), scale_factor=STRIDE, mode="bilinear", align_corners=False)


def color(text: str) -> tuple[int, int, int]:
    """#rrggbb as three numbers; raises UnavailableError."""
    try:
        red, green, blue = bytes.fromhex(text.removeprefix("#"))
    except ValueError as error:
        raise UnavailableError(f"{text!r} on the card is not a color #rrggbb") from error
    return red, green, blue


def build_network(model: store.Model) -> LatentSegmenter | DilatedResNet:
    """The network of a segmenter: of the kind that its card says, as wide and deep as its weights."""
    tensors = {name: tensor.float() for name, tensor in model.weights().items()}
    try:
        with torch.device("meta"):  # nothing is allocated for what the weights do not hold
            network = empty_network(tensors, model.card)
        network.load_state_dict(tensors, assign=True)
    except (LookupError, RuntimeError, ValueError, TypeError) as error:
        raise UnavailableError(f"{model.name}: invalid segmenter weights") from error
    return network.eval().requires_grad_(False)


def empty_network(tensors: Mapping[str, Tensor], card: Card) -> LatentSegmenter | DilatedResNet:
    """A network of the shape of these weights; LookupError, TypeError or ValueError if they are no segmenter's."""
    if card.network == "resnet":
        return DilatedResNet(shape_of(tensors, card.stride_in), len(tensors["aspp.0.bias"]))
    classes = len(tensors["head.answer.bias"]) // (BLOCK // STRIDE) ** 2
    return LatentSegmenter(*adapter_shape(tensors), len(tensors["pyramid.mix.bias"]), classes)


@functools.lru_cache(maxsize=4)
def segmenter_for(identity: bytes, device: str = "cpu") -> Segmenter:
    """The installed segmenter of the codec that a stream names, loaded once."""
    codec = codec_of(identity, device)
    return Segmenter(store.find_network("segmenter", codec.fingerprint), codec, device)
