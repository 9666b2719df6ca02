"""The codec: image to bytes to symbols to latent to image.

::

    image ─► analysis ─► nearest center ─► symbols ─► entropy coder ─► bitstream
    image ◄─ synthesis ◄─ latent ◄─ centers[symbols] ◄─ entropy coder ◄─┘
"""

from __future__ import annotations

import functools
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dcu import arguments, bitstream, store
from dcu.bitstream import Layer, Stream
from dcu.entropy import EntropyCoder
from dcu.errors import InvalidInputError, UnavailableError, UsageError
from dcu.geometry import BLOCK
from dcu.image import ImageArray, pad, psnr, resize
from dcu.nets import MOST_BLOCKS, channels_last
from dcu.nets.quantizer import Quantizer
from dcu.nets.transforms import Analysis, Synthesis
from dcu.regions import Box, common, moved, size, whole
from dcu.threads import inference
from dcu.weights import finite

T = TypeVar("T", bound=nn.Module)

log = logging.getLogger(__name__)
DEFAULT = "codec-0.0983"
ONE_PIECE = 2**14
"""Latent positions (2^20 pixels) up to which an image goes through the transforms in one piece."""
PIECE = 128
"""Latent positions a side of the fixed grid in which larger ones do, each piece with its halo."""
SYMBOLS_AT_ONCE = 2**26
"""Symbols of tiles that are decoded together: bounds memory, at 64 MiB."""


class Codec:
    """A trained codec; every width and depth is read from its weights.

    Torfason et al., ICLR 2018 (arXiv 1803.06131).
    """

    def __init__(self, tensors: dict[str, Tensor], name: str, device: str = "cpu") -> None:
        self.name, self.device = name, device
        self.model: store.Model | None = None
        try:
            context = {n.removeprefix("context."): t for n, t in tensors.items() if n.startswith("context.")}
            centers = tensors["quantizer.centers"].float()
            self.entropy = EntropyCoder(context, centers)
            self.levels = [g.levels for g in self.entropy.groups for _ in range(g.channels)]
            self.fingerprint = store.fingerprint(self.levels, centers, context)
            self.quantizer = Quantizer(self.levels)
            self.quantizer.centers.data.copy_(centers)
            width, depth = transform_shape(tensors, "analysis")
            with torch.device("meta"):  # nothing is allocated for what the weights do not hold
                analysis = Analysis(len(self.levels), width, depth)
            self.analysis = load_transform(analysis, tensors, "analysis.")
            self.analysis_halo = 2 * depth
            width, depth = transform_shape(tensors, "synthesis")
            with torch.device("meta"):
                synthesis = Synthesis(len(self.levels), width, depth)
            self.synthesis = load_transform(synthesis, tensors, "synthesis.")
            self.synthesis_halo = 2 * depth + 1
        except (LookupError, RuntimeError, ValueError, TypeError) as error:
            raise UnavailableError(f"{name}: its weights are not those of a codec") from error
        for module in (self.analysis, self.synthesis, self.quantizer):
            module.to(device).requires_grad_(False)

    @classmethod
    def load(cls, name: str | Path = DEFAULT, device: str = "cpu") -> Codec:
        """An installed codec by name or path; raises UnavailableError, and TypeError or ValueError for arguments."""
        return cls.from_model(store.find(arguments.model_name(name), "codec"), arguments.device(device))

    def __repr__(self) -> str:
        return f"<Codec {self.name}, fingerprint {self.fingerprint[:8]}, on {self.device}>"

    @classmethod
    def from_model(cls, model: store.Model, device: str = "cpu") -> Codec:
        """The codec of a model's directory; raises UnavailableError where it is not what its card says."""
        codec = cls(model.weights(), model.name, device)
        log.debug("%s from %s on %s", model.name, model.directory, device)
        if codec.fingerprint != model.fingerprint:
            raise UnavailableError(f"{model.name}: its fingerprint is not that of its card")
        codec.model = model
        return codec

    def __reduce__(self) -> tuple[Any, ...]:
        if self.model is None:
            raise TypeError(f"{self.name} was not loaded from a model's directory: it cannot be pickled")
        return Codec.from_model, (self.model, self.device)

    @property
    def identity(self) -> bytes:
        """The four bytes that name this codec in a stream."""
        return bytes.fromhex(self.fingerprint)[: store.ID_BYTES]

    @inference
    def compress(self, image: arguments.AnyImage) -> bytes:
        """A bitstream of an image (H, W, 3) uint8, or of a Pillow image (see :func:`dcu.arguments.image`).

        Raises
        ------
        TypeError, ValueError
            Not such an image.
        """
        image = arguments.image(image)
        height, width = image.shape[:2]
        thumbnail = bitstream.thumbnail_size(width, height)
        layers = [self.encode_layer(resize(image, *thumbnail, Image.Resampling.LANCZOS))] if thumbnail else []
        layers.append(self.encode_layer(image))
        return bitstream.write(bitstream.Header(self.identity), width, height, layers)

    def encode_layer(self, image: ImageArray) -> list[bytes]:
        """The payload of each tile of an image."""
        symbols = self.analyze(image)
        height, width = image.shape[:2]
        return [self.entropy.encode(symbols[:, rows, columns]) for rows, columns in bitstream.tile_grid(width, height)]

    @inference
    def analyze(self, image: arguments.AnyImage) -> Tensor:
        """The symbols (C, h, w) uint8 of an image, as :meth:`compress` takes them."""
        padded = pad(arguments.image(image), BLOCK)

        def piece(rows: slice, columns: slice) -> Tensor:
            part = padded[rows.start * BLOCK : rows.stop * BLOCK, columns.start * BLOCK : columns.stop * BLOCK]
            x = analysis_input(torch.from_numpy(np.ascontiguousarray(part)).to(self.device)[None])
            return self.quantizer.symbols(finite(self.analysis(x), self.name))[0].cpu()

        h, w = padded.shape[0] // BLOCK, padded.shape[1] // BLOCK
        symbols = torch.empty(len(self.levels), h, w, dtype=torch.uint8)
        return in_pieces(piece, symbols, h, w, 1, self.analysis_halo)

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
        if stream.operating_point:
            raise InvalidInputError(f"{self.name} has no operating point {stream.operating_point}")

    @inference
    def symbols(self, layers: Sequence[Layer], boxes: Sequence[Box] | None = None) -> list[Tensor]:
        """The symbols (C, h, w) uint8 of each layer, or of a box of latent positions of each.

        Tiles of one size are decoded together, on all threads; those outside of the boxes are not decoded.
        """
        out, tiles = [], defaultdict(list)
        for layer, (rows, columns) in zip(layers, boxes or map(whole, layers), strict=True):
            out.append(torch.empty(len(self.levels), size(rows), size(columns), dtype=torch.uint8))
            grid = bitstream.tile_grid(layer.width, layer.height)
            for (own_rows, own_columns), payload in zip(grid, layer.tiles, strict=True):
                y, x = common(rows, own_rows), common(columns, own_columns)
                if size(y) and size(x):
                    place = out[-1][:, moved(y, -rows.start), moved(x, -columns.start)]
                    part = moved(y, -own_rows.start), moved(x, -own_columns.start)
                    tiles[size(own_rows), size(own_columns)].append((place, part, payload))
        for (h, w), members in tiles.items():
            at_once = max(1, SYMBOLS_AT_ONCE // (len(self.levels) * h * w))
            for group in (members[at : at + at_once] for at in range(0, len(members), at_once)):
                decoded = self.entropy.decode([payload for _, _, payload in group], h, w)
                for (place, (y, x), _), symbols in zip(group, decoded, strict=True):
                    place.copy_(symbols[:, y, x])
        return out

    @inference
    def latents(self, streams: Sequence[Stream]) -> list[Tensor]:
        """The latent (1, C, h, w) float32 of each stream for networks: of the thumbnail layer, where there is one."""
        layers = [self.read(stream).layers[0] for stream in streams]
        return self.dequantize([each[None] for each in self.symbols(layers)])

    @inference
    def dequantize(self, symbols: Sequence[Tensor]) -> list[Tensor]:
        """The latent (1, C, h, w) float32 of symbols (1, C, h, w) uint8: centers[symbols]."""
        if len({each.shape for each in symbols}) == 1:  # one operation in place of many small ones
            return list(self.quantizer.latent(torch.cat(list(symbols)).to(self.device)).split(1))
        return [self.quantizer.latent(each.to(self.device)) for each in symbols]

    def latent(self, data: arguments.Data | Stream) -> Tensor:
        """The latent (1, C, h, w) float32 of one stream; raises as :meth:`read`."""
        return self.latents([self.read(data)])[0]

    @inference
    def decode(self, data: arguments.Data | Stream) -> ImageArray:
        """The image (H, W, 3) uint8 that a bitstream holds; raises as :meth:`read`."""
        stream = self.read(data)
        latent = self.quantizer.latent(self.symbols([stream.full])[0][None].to(self.device))
        return self.synthesize(latent)[: stream.full.height, : stream.full.width]

    @inference
    def synthesize(self, latent: Tensor) -> ImageArray:
        """The image (8h, 8w, 3) uint8 of a latent (1, C, h, w) float32; raises TypeError and ValueError."""
        if not arguments.instance(latent, Tensor, "latent").is_floating_point():
            raise TypeError(f"a latent is of floating point, not {latent.dtype}")
        if latent.ndim != 4 or latent.shape[:2] != (1, len(self.levels)) or not latent.numel():
            raise ValueError(f"a latent of {self.name} is (1, {len(self.levels)}, h, w), not {tuple(latent.shape)}")

        def piece(rows: slice, columns: slice) -> Tensor:
            x = self.synthesis(latent[:, :, rows, columns].contiguous(memory_format=torch.channels_last))
            pixels: Tensor = ((finite(x[0], self.name) + 1) * 127.5).round_().clamp_(0, 255)
            return pixels.to(torch.uint8).cpu()

        h, w = latent.shape[-2:]
        image = torch.empty(3, h * BLOCK, w * BLOCK, dtype=torch.uint8)
        return in_pieces(piece, image, h, w, BLOCK, self.synthesis_halo).permute(1, 2, 0).numpy()


def analysis_input(images: Tensor) -> Tensor:
    """Images (B, H, W, 3) uint8 as (B, 3, H, W) float32 in [-1, 1], channels last in memory."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def in_pieces(
    transform: Callable[[slice, slice], Tensor], out: Tensor, h: int, w: int, scale: int, halo: int
) -> Tensor:
    """Fill ``out`` (channels, up to h * scale, up to w * scale) by a transform of latent rows and columns.

    Up to ``ONE_PIECE`` positions in one piece; above, on a fixed grid of pieces, each computed with a halo of its
    receptive field and cropped. Pieces follow each other along the shorter side first.
    """
    side = max(h, w) if h * w <= ONE_PIECE else PIECE
    places = [(top, left) for top in range(0, h, side) for left in range(0, w, side)]
    for top, left in sorted(places, key=lambda place: place[::-1]) if h < w else places:
        bottom, right = min(top + side, h), min(left + side, w)
        rows, columns = (
            slice(max(0, top - halo), min(h, bottom + halo)),
            slice(max(0, left - halo), min(w, right + halo)),
        )
        part = transform(rows, columns)
        place = out[:, top * scale : bottom * scale, left * scale : right * scale]
        y, x = (top - rows.start) * scale, (left - columns.start) * scale
        place.copy_(part[:, y : y + place.shape[1], x : x + place.shape[2]])
    return out


def transform_shape(tensors: dict[str, Tensor], name: str) -> tuple[int, int]:
    """(width, depth) of a transform, from its weights; raises KeyError, ValueError where it is none."""
    depth = sum(n.startswith(f"{name}.blocks.") and n.endswith(".conv1.weight") for n in tensors)
    if depth > MOST_BLOCKS:
        raise ValueError(f"{name} of {depth} blocks")
    return tensors[f"{name}.stem.weight"].shape[0], depth


def load_transform(module: T, tensors: dict[str, Tensor], prefix: str) -> T:
    """Fill a transform with its part of the weights, in float32 and channels last."""
    own = {n.removeprefix(prefix): t.float() for n, t in tensors.items() if n.startswith(prefix)}
    module.load_state_dict(own, assign=True)
    return channels_last(module).eval()


@functools.lru_cache(maxsize=4)
def codec_of(identity: bytes, device: str = "cpu") -> Codec:
    """The installed codec that a stream names, loaded once."""
    return Codec.from_model(store.find_codec(identity), device)


def of_rate(rate: float, device: str = "cpu") -> Codec:
    """The installed codec of an operating point, by the rate that names it.

    Raises
    ------
    UsageError
        No installed codec has that rate.
    """
    return Codec.from_model(store.codec_of_rate(rate), device)


def of_every_rate(device: str = "cpu") -> list[Codec]:
    """The installed codecs, by rising rate; of several of one rate, the first."""
    models: dict[float, store.Model] = {}
    for model in store.installed_codecs():
        models.setdefault(model.card.rate or 0.0, model)
    return [Codec.from_model(model, device) for model in models.values()]


def compress_within(codecs: Sequence[Codec], image: ImageArray, most: int) -> tuple[Codec, bytes]:
    """The codec of the highest rate whose bitstream has at most so many bytes, and that bitstream.

    ``codecs`` come by rising rate; raises UsageError where none fits.
    """
    streams = [(codec, codec.compress(image)) for codec in codecs]
    fitting = [(codec, data) for codec, data in streams if len(data) <= most]
    if not fitting:
        smallest = min(len(data) for _, data in streams)
        raise UsageError(f"no operating point fits into {most} bytes: the smallest file has {smallest}")
    return fitting[-1]


def compress_to(codecs: Sequence[Codec], image: ImageArray, least: float) -> tuple[Codec, bytes]:
    """The codec of the lowest rate whose bitstream gives at least so many dB of PSNR, and that bitstream.

    ``codecs`` come by rising rate; raises UsageError where none has.
    """
    for codec in codecs:
        data = codec.compress(image)
        reached = psnr(image, codec.decode(data))
        if reached >= least:
            return codec, data
    raise UsageError(f"no operating point reaches {least:g} dB: {codec.name} gives {reached:.2f}")
