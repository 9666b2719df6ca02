"""The codec: image to bytes to symbols to latent to image.

::

    image ─► analysis ─► nearest center ─► symbols ─► entropy coder ─► bitstream
    image ◄─ synthesis ◄─ latent ◄─ centers[symbols] ◄─ entropy coder ◄─┘
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dcu import arguments, bitstream, engines, rate_control, store
from dcu.batching import MOST_POSITIONS
from dcu.bitstream import Layer, Stream
from dcu.cards import Rates
from dcu.coding import Coding, coding_of
from dcu.encoding import Encoding
from dcu.errors import InvalidInputError, UnavailableError
from dcu.geometry import BLOCK, POINTS
from dcu.image import ImageArray, pad, without_color
from dcu.nets.operating_point import with_point
from dcu.nets.transforms import ADAPTER_BLOCKS
from dcu.precision import NAMES as PRECISIONS
from dcu.precision import chosen
from dcu.regions import Box, common, in_pieces, moved, size, whole
from dcu.threads import LoadedOnce, inference
from dcu.weights import finite

log = logging.getLogger(__name__)
SYMBOLS_AT_ONCE = 2**26
"""Symbols of tiles that are decoded together: bounds memory, at 64 MiB, or 128 of int16."""


class Codec:
    """A trained codec; every width and depth is read from its weights.

    Torfason et al., ICLR 2018 (arXiv 1803.06131).
    """

    def __init__(self, tensors: dict[str, Tensor], name: str, device: str = "cpu", precision: str = "auto") -> None:
        self.name, self.device, self.precision = name, device, chosen(precision, device)
        self.model: store.Model | None = None
        try:
            self.coding: Coding = coding_of(tensors)
        except (LookupError, RuntimeError, ValueError, TypeError) as error:
            raise UnavailableError(f"{name}: its weights are not those of a codec") from error
        self.coding.to(device)
        self.analysis = self.coding.analysis
        of_kinds, most = (self.analysis, partial(self.analysis, machines=True)), MOST_POSITIONS * BLOCK**2
        self.analyses = [engines.ready(each, device, self.precision, most) for each in of_kinds]
        self.syntheses = engines.ready(self.coding.synthesize, device, self.precision)
        self.channels, self.points, self.fingerprint = self.coding.channels, self.coding.points, self.coding.fingerprint
        self.kinds = self.coding.kinds
        self.network_points = range(POINTS * (self.kinds - 1) + self.points)  # those for people, then for machines
        self.rates: list[Rates | None] = [None] * self.kinds
        self.analysis_halo = 2 * (len(self.analysis.blocks) + ADAPTER_BLOCKS * (self.kinds - 1))
        self.synthesis_halo = 2 * len(self.coding.synthesis.blocks) + 1

    @classmethod
    def load(cls, name: str | Path | None = None, device: str = "cpu", precision: str = "auto") -> Codec:
        """An installed codec by name or path (default: codec-2), to run in "float32", "bfloat16" or "auto".

        "auto" is bfloat16 on CPUs with instructions for it.

        Raises
        ------
        UnavailableError
            There is none of that name, or the device does not compute in this precision.
        TypeError, ValueError
            Arguments of other types, devices or precisions that do not exist.
        """
        arguments.device(device), arguments.one_of(precision, PRECISIONS, "precision")
        return cls.from_model(store.find(arguments.model_name(name), "codec"), device, precision)

    def __repr__(self) -> str:
        return f"<Codec {self.name}, fingerprint {self.fingerprint[:8]}, on {self.device}>"

    @classmethod
    def from_model(cls, model: store.Model, device: str = "cpu", precision: str = "auto") -> Codec:
        """The codec of a model's directory; raises UnavailableError where it is not what its card says."""
        codec = cls(model.weights(), model.name, device, precision)
        log.debug("%s from %s on %s, %s", model.name, model.directory, device, codec.precision)
        if codec.fingerprint != model.fingerprint:
            raise UnavailableError(f"{model.name}: its fingerprint is not that of its card")
        codec.model = model
        stated = model.card.rates, model.card.machine_rates
        codec.rates = [rates if rates and len(rates.bpp) == codec.points else None for rates in stated[: codec.kinds]]
        return codec

    def __reduce__(self) -> tuple[Any, ...]:
        if self.model is None:
            raise TypeError(f"{self.name} was not loaded from a model's directory: it cannot be pickled")
        return Codec.from_model, (self.model, self.device, self.precision)

    @property
    def identity(self) -> bytes:
        """The four bytes that name this codec in a stream."""
        return bytes.fromhex(self.fingerprint)[: store.ID_BYTES]

    @inference
    def compress(
        self,
        image: arguments.AnyImage,
        *,
        quality: int | None = None,
        target_bytes: int | None = None,
        target_psnr: float | None = None,
        fit: bool = False,
        metadata: bytes = b"",
        machines: bool = False,
    ) -> bytes:
        """A bitstream of an image (H, W, 3) uint8, or of a Pillow image (see :func:`dcu.arguments.image`).

        Parameters
        ----------
        image : array or PIL.Image.Image
            What to compress.
        quality : int, optional
            Operating point, 0 (smallest files) to 63, of a codec of many; by default the one of 0.0983 bits per pixel.
        target_bytes : int, optional
            Use the highest operating point whose bitstream has at most so many bytes.
        target_psnr : float, optional
            Use the lowest operating point that reaches this PSNR in dB.
        fit : bool
            With ``target_bytes``: reduce the image if its bitstream is too large at every operating point.
        metadata : bytes
            As :mod:`dcu.metadata` writes them; for codecs of version 2 of the container.
        machines : bool
            Make a stream for machines: at low rates fewer bytes for equal predictions of networks, and a lower PSNR.

        Raises
        ------
        TypeError, ValueError
            Not such an image; arguments that are out of range, exclude each other, or that this codec does not have.
        UsageError
            No operating point fits into ``target_bytes`` or reaches ``target_psnr``.
        """
        image = arguments.image(image)
        if self.coding.version == 1 and metadata:
            raise ValueError(f"{self.name} writes version 1 of the container, which has no metadata")
        if sum(value is not None for value in (quality, target_bytes, target_psnr)) > 1:
            raise ValueError("quality, target_bytes and target_psnr exclude each other")
        if fit and target_bytes is None:
            raise ValueError("fit needs target_bytes")
        encode = partial(Encoding, self, metadata=metadata, machines=machines)
        self.check_kind(machines)
        encoding = encode(image)
        if target_bytes is not None:
            arguments.at_least_one(target_bytes, "target_bytes")
            if fit:
                return rate_control.fitting(encoding, encode, target_bytes)
            return rate_control.within_bytes(encoding, target_bytes)
        if target_psnr is not None:
            return rate_control.reaching_psnr(encoding, target_psnr)
        return encoding.write(self.point(quality, machines))

    def check_kind(self, machines: bool) -> None:
        """Refuse streams for machines where there are none; raises TypeError and ValueError."""
        if arguments.instance(machines, bool, "machines") and self.kinds == 1:
            raise ValueError(f"{self.name} makes no streams for machines")

    def point(self, quality: int | None, machines: bool = False) -> int:
        """An operating point that a caller named, or the default; raises TypeError and ValueError."""
        self.check_kind(machines)
        if quality is None:
            return 0 if self.points == 1 else self.point_of_rate(rate_control.RATE, machines)
        if not 0 <= arguments.instance(quality, int, "quality") < self.points:
            raise ValueError(f"quality is 0 to {self.points - 1}, not {quality}")
        return quality

    def network_point(self, quality: int | None, machines: bool) -> int:
        """The same as the networks count it; raises as :meth:`point`."""
        return self.point(quality, machines) + POINTS * machines

    def point_of_rate(self, rate: float, machines: bool = False) -> int:
        """The operating point whose mean rate, by the codec's card, is nearest to one in bits per pixel.

        Raises
        ------
        ValueError
            The card states no rates of these streams; the codec makes none for machines.
        """
        self.check_kind(machines)
        rates = self.rates[machines]
        if rates is None:
            raise ValueError(f"the card of {self.name} states no rates: name the quality, 0 to {self.points - 1}")
        return rate_control.nearest(rates.bpp, rate)

    def quality(self, data: arguments.Data | Stream) -> int:
        """The operating point of a bitstream of this codec; raises as :meth:`read`."""
        return self.read(data).operating_point

    @inference
    def analyze(self, image: arguments.AnyImage, quality: int | None = None, machines: bool = False) -> Tensor:
        """The symbols (C, h, w) of an image, as :meth:`compress` takes them: uint8, or int16 where unbounded."""
        point = self.network_point(quality, machines)
        kept = self.features(arguments.image(image), machines)
        return self.coding.symbols(kept, torch.tensor([point]))[0].cpu()

    def features(self, image: ImageArray, machines: bool = False) -> Tensor:
        """What the codec keeps of its analysis of an image, (1, F, h, w): symbols of any quality come from it."""
        padded, analyses = pad(image, BLOCK), self.analyses[machines]

        def piece(rows: slice, columns: slice) -> Tensor:
            part = padded[rows.start * BLOCK : rows.stop * BLOCK, columns.start * BLOCK : columns.stop * BLOCK]
            x = analysis_input(torch.from_numpy(np.ascontiguousarray(part)).to(self.device)[None])
            return self.coding.kept(finite(analyses.alone(x), self.name))[0].cpu()

        h, w = padded.shape[0] // BLOCK, padded.shape[1] // BLOCK
        features = torch.empty(self.coding.features, h, w, dtype=self.coding.kept_dtype)
        return in_pieces(piece, features, h, w, 1, self.analysis_halo)[None]

    def read(self, data: arguments.Data | Stream) -> Stream:
        """Parse and check a bitstream that must be this codec's, or check a parsed one.

        Raises
        ------
        InvalidInputError
            Not a stream, or damaged.
        UnavailableError
            Another codec made it.
        TypeError
            ``data`` is neither bytes nor a parsed stream.
        """
        if isinstance(data, Stream):
            stream = data
        else:
            whole = arguments.data(data)
            stream = bitstream.read(whole)
            if stream.size != len(whole):
                raise InvalidInputError("bytes after the end of the stream")
        self.check(stream)
        return stream

    def check(self, stream: Stream) -> None:
        """Refuse a stream of another codec; raises UnavailableError, InvalidInputError."""
        if stream.codec != self.identity:
            made_by = store.find_codec(stream.codec).name  # or say that it is not installed
            raise UnavailableError(f"made by {made_by}, not by {self.name}")
        if stream.operating_point >= self.points:
            raise InvalidInputError(f"{self.name} has no operating point {stream.operating_point}")
        if stream.header.machines and self.kinds == 1:
            raise InvalidInputError(f"{self.name} makes no streams for machines")
        if stream.header.version != self.coding.version:
            raise InvalidInputError(f"{self.name} does not write version {stream.header.version} of the container")

    @inference
    def symbols(self, layers: Sequence[Layer], boxes: Sequence[Box] | None = None) -> list[Tensor]:
        """The symbols (C, h, w) of each layer, or of a box of latent positions of each.

        Tiles of one size and operating point are decoded together, on all threads; those outside of the boxes are not
        decoded.
        """
        out, tiles = [], defaultdict(list)
        for layer, (rows, columns) in zip(layers, boxes or map(whole, layers), strict=True):
            out.append(torch.empty(self.channels, size(rows), size(columns), dtype=self.coding.dtype))
            grid = bitstream.tile_grid(layer.width, layer.height)
            for (own_rows, own_columns), payload in zip(grid, layer.tiles, strict=True):
                y, x = common(rows, own_rows), common(columns, own_columns)
                if size(y) and size(x):
                    place = out[-1][:, moved(y, -rows.start), moved(x, -columns.start)]
                    part = moved(y, -own_rows.start), moved(x, -own_columns.start)
                    tiles[size(own_rows), size(own_columns), layer.operating_point].append((place, part, payload))
        for (h, w, q), members in tiles.items():
            at_once = max(1, SYMBOLS_AT_ONCE // (self.channels * h * w))
            for group in (members[at : at + at_once] for at in range(0, len(members), at_once)):
                decoded = self.coding.decode([payload for _, _, payload in group], h, w, q)
                for (place, (y, x), _), symbols in zip(group, decoded, strict=True):
                    place.copy_(symbols[:, y, x])
        return out

    def group_bytes(self, layer: Layer) -> list[int]:
        """Bytes of a layer that each group of channels takes, in the order of decoding; raises InvalidInputError."""
        sizes = [(size(rows), size(columns)) for rows, columns in bitstream.tile_grid(layer.width, layer.height)]
        tiles = [
            self.coding.group_bytes(payload, h, w, layer.operating_point)
            for payload, (h, w) in zip(layer.tiles, sizes, strict=True)
        ]
        return [sum(counts) for counts in zip(*tiles, strict=True)]

    def share_not_coded(self, quality: int) -> float:
        """Share of the symbols of an operating point of the networks that are zero by definition and take no bits."""
        return round(1 - float(self.coding.coded(quality).float().mean()), 4)

    @inference
    def latents(self, streams: Sequence[Stream], planes: int = 0) -> list[Tensor]:
        """The latent (1, C, h, w) float32 of each stream for networks: of the thumbnail layer, where there is one.

        ``planes``: of :meth:`dequantize`.
        """
        layers = [self.read(stream).layers[0] for stream in streams]
        symbols = [each[None] for each in self.symbols(layers)]
        return self.dequantize(symbols, [each.operating_point for each in layers], planes)

    @inference
    def dequantize(self, symbols: Sequence[Tensor], points: Sequence[int], planes: int = 0) -> list[Tensor]:
        """The latent (1, C, h, w) float32 of symbols (1, C, h, w), each at its operating point.

        With ``planes``, (1, C + planes, h, w): for networks that read the operating point behind the latent.
        """

        def of(part: Tensor, there: Sequence[int]) -> Tensor:
            q = torch.tensor(there, device=self.device)
            return with_point(self.coding.latent(part.to(self.device), q), q, planes, self.kinds)

        if len({each.shape for each in symbols}) == 1:  # one operation in place of many small ones
            return list(of(torch.cat(list(symbols)), points).split(1))
        return [of(each, [q]) for each, q in zip(symbols, points, strict=True)]

    def planes(self, channels: int, name: str) -> int:
        """How many planes a network of so many input channels reads beside the latent; raises UnavailableError."""
        planes = channels - self.channels
        if planes < 0 or planes in range(1, 2 * self.kinds) or planes % self.kinds or (planes and self.points == 1):
            raise UnavailableError(f"{name}: reads {channels} channels, {self.name} has {self.channels}")
        return planes

    def latent(self, data: arguments.Data | Stream) -> Tensor:
        """The latent (1, C, h, w) float32 of one stream; raises as :meth:`read`."""
        return self.latents([self.read(data)])[0]

    @inference
    def decode(self, data: arguments.Data | Stream, *, thumbnail: bool = False) -> ImageArray:
        """The image (H, W, 3) uint8 that a bitstream holds, or its thumbnail layer's, if it has one.

        Raises as :meth:`read`.
        """
        stream = self.read(data)
        layer = stream.layers[0] if arguments.instance(thumbnail, bool, "thumbnail") else stream.full
        (latent,) = self.dequantize([self.symbols([layer])[0][None]], [layer.operating_point])
        image = self.rebuilt(latent, layer.operating_point)[: layer.height, : layer.width]
        return without_color(image) if stream.header.gray else image

    @inference
    def synthesize(self, latent: Tensor, quality: int | None = None, machines: bool = False) -> ImageArray:
        """The image (8h, 8w, 3) uint8 of a latent (1, C, h, w) float32; raises TypeError and ValueError."""
        if not arguments.instance(latent, Tensor, "latent").is_floating_point():
            raise TypeError(f"a latent is of floating point, not {latent.dtype}")
        if latent.ndim != 4 or latent.shape[:2] != (1, self.channels) or not latent.numel():
            raise ValueError(f"a latent of {self.name} is (1, {self.channels}, h, w), not {tuple(latent.shape)}")
        return self.rebuilt(latent, self.network_point(quality, machines))

    def rebuilt(self, latent: Tensor, point: int) -> ImageArray:
        """The image (8h, 8w, 3) uint8 of a latent (1, C, h, w) float32 at an operating point of the networks."""
        points = torch.tensor([point], device=self.device)

        def piece(rows: slice, columns: slice) -> Tensor:
            x = self.syntheses.alone(latent[:, :, rows, columns], points)
            pixels: Tensor = ((finite(x[0], self.name) + 1) * 127.5).round_().clamp_(0, 255)
            return pixels.to(torch.uint8).cpu()

        h, w = latent.shape[-2:]
        image = torch.empty(3, h * BLOCK, w * BLOCK, dtype=torch.uint8)
        return in_pieces(piece, image, h, w, BLOCK, self.synthesis_halo).permute(1, 2, 0).numpy()


def analysis_input(images: Tensor) -> Tensor:
    """Images (B, H, W, 3) uint8 as (B, 3, H, W) float32 in [-1, 1], channels last in memory."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


@LoadedOnce
def codec_of(identity: bytes, device: str = "cpu", precision: str = "auto") -> Codec:
    """The installed codec that a stream names, loaded once."""
    return Codec.from_model(store.find_codec(identity), device, precision)
