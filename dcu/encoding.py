"""An image on its way to a bitstream: analyzed once, written at one operating point or at several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from dcu import bitstream
from dcu.geometry import POINTS
from dcu.image import ImageArray, is_gray, psnr, resize, without_color

if TYPE_CHECKING:
    from dcu.codec import Codec


def thumbnail_of(image: ImageArray) -> ImageArray:
    """An image reduced to the size of a thumbnail layer, if it is larger."""
    return resize(image, *bitstream.reduced_size(image.shape[1], image.shape[0]), Image.Resampling.LANCZOS)


class Encoding:
    """An image, analyzed once, to be written at any operating point (see :class:`dcu.rate_control.Encoding`)."""

    def __init__(self, codec: Codec, image: ImageArray, metadata: bytes = b"", machines: bool = False) -> None:
        self.codec, self.image, self.metadata, self.machines = codec, image, metadata, machines
        self.first = POINTS * machines
        self.gray = codec.coding.version > 1 and is_gray(image)
        height, width = image.shape[:2]
        reduced = [thumbnail_of(image)] if bitstream.thumbnail_size(width, height) else []
        self.layers = [(layer.shape[1], layer.shape[0], codec.features(layer, machines)) for layer in (*reduced, image)]
        self.points = codec.points

    def write(self, q: int) -> bytes:
        """The bitstream at an operating point."""
        coding, point = self.codec.coding, self.first + q
        layers = []
        for width, height, features in self.layers:
            symbols = coding.symbols(features, torch.tensor([point]))[0]
            tiles = bitstream.tile_grid(width, height)
            layers.append([coding.encode(symbols[:, rows, columns], point) for rows, columns in tiles])
        stated = (self.machines, self.metadata, self.gray)
        header = bitstream.Header(self.codec.identity, q, coding.version, *stated)
        return bitstream.write(header, self.image.shape[1], self.image.shape[0], layers)

    def psnr(self, q: int) -> float:
        """PSNR in dB of the image that an operating point gives."""
        point = self.first + q
        symbols = self.codec.coding.symbols(self.layers[-1][2], torch.tensor([point]))
        decoded = self.codec.rebuilt(self.codec.dequantize([symbols], [point])[0], point)
        decoded = decoded[: self.image.shape[0], : self.image.shape[1]]
        return psnr(self.image, without_color(decoded) if self.gray else decoded)

    def estimated_bits(self) -> list[float]:
        """About how many bits each operating point takes: by histograms, corrected as the codec's card says."""
        rates = self.codec.rates[self.machines]
        layers = [self.codec.coding.estimated_bits(features, self.first) for _, _, features in self.layers]
        return [float(bits) for bits in np.sum(layers, 0) * (rates.of_estimate if rates else 1.0)]
