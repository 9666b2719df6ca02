"""What differs from codec to codec: symbols and latents, their payloads, the synthesis; for one rate or for many.

::

    y ── symbols ── encode ── payload ── decode ── symbols ── latent ── synthesize ── x'
    FixedRate      nearest of learned centers      centers[s]
    VariableRate   round(y(q) * gain(q))           s * ungain(q)
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from dcu import store
from dcu.entropy import EntropyCoder
from dcu.entropy.logistic import LARGEST_SYMBOL, LogisticCoder
from dcu.geometry import POINTS
from dcu.nets import MOST_BLOCKS, channels_last
from dcu.nets.operating_point import per_channel
from dcu.nets.quantizer import Quantizer
from dcu.nets.transforms import BLOCK_CHANNELS, Analysis, ConditionalAnalysis, ConditionalSynthesis, Synthesis
from dcu.regions import in_pieces

T = TypeVar("T", bound=nn.Module)
ESTIMATED = 21
"""Every how many operating points bits are estimated."""
ESTIMATED_FROM = 2**8
"""Latent positions, at most twice as many, from which they are."""
HISTOGRAM = 128
"""Largest symbol that a histogram tells from others."""


class Coding(ABC):
    """One codec between its analysis and its image. Operating points are 0 to ``points`` - 1."""

    version: int
    """Of the container."""
    points: int
    kinds: int
    """Of streams: 1, or 2 with those for machines, whose operating points follow those for people."""
    channels: int
    dtype: torch.dtype
    """Of symbols."""
    features: int
    """Channels of what is kept of an image, and its type."""
    kept_dtype: torch.dtype
    fingerprint: str
    analysis: Analysis | ConditionalAnalysis
    synthesis: Synthesis | ConditionalSynthesis

    @abstractmethod
    def kept(self, found: Tensor) -> Tensor:
        """What is kept of the analysis' output, (B, F, h, w), from which symbols of any operating point come."""

    @abstractmethod
    def symbols(self, kept: Tensor, points: Tensor) -> Tensor:
        """Symbols (B, C, h, w) of what is kept at operating points (B,)."""

    @abstractmethod
    def estimated_bits(self, kept: Tensor, first: int = 0) -> list[float]:
        """About how many bits one image takes at each operating point from the first of a kind on, of what is kept.

        ``kept`` is (1, F, h, w).
        """

    @abstractmethod
    def latent(self, symbols: Tensor, points: Tensor) -> Tensor:
        """Latent (B, C, h, w) float32 of symbols (B, C, h, w) at operating points (B,)."""

    @abstractmethod
    def synthesize(self, latent: Tensor, points: Tensor) -> Tensor:
        """Image (B, 3, 8h, 8w), about [-1, 1], of a latent (B, C, h, w) at operating points (B,)."""

    @abstractmethod
    def encode(self, symbols: Tensor, q: int) -> bytes:
        """Payload of one tile of symbols (C, h, w)."""

    @abstractmethod
    def decode(self, payloads: Sequence[bytes], height: int, width: int, q: int) -> Tensor:
        """Symbols (B, C, h, w) of tiles of one size; raises InvalidInputError."""

    @abstractmethod
    def group_bytes(self, payload: bytes, height: int, width: int, q: int) -> list[int]:
        """Bytes of one tile's payload that each group of channels takes; raises InvalidInputError."""

    @abstractmethod
    def coded(self, q: int) -> Tensor:
        """(C,) bool: the channels that are coded at an operating point."""

    @abstractmethod
    def macs(self, height: int, width: int, q: int) -> int:
        """Multiply-accumulates of the context model over a tile."""

    def to(self, device: str) -> None:
        """Move all that does not run on the CPU alone."""
        self.analysis.to(device), self.synthesis.to(device)


class FixedRate(Coding):
    """Learned centers of each channel: one operating point. Raises LookupError, ValueError, TypeError, RuntimeError."""

    version, points, kinds, dtype, kept_dtype = 1, 1, 1, torch.uint8, torch.uint8

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        context, centers = part(tensors, "context."), tensors["quantizer.centers"].float()
        self.entropy = EntropyCoder(context, centers)
        self.levels = [group.levels for group in self.entropy.groups for _ in range(group.channels)]
        self.channels = len(self.levels)
        self.fingerprint = store.fingerprint(self.levels, centers, context)
        self.quantizer = Quantizer(self.levels)
        self.quantizer.centers.data.copy_(centers)
        with torch.device("meta"):  # nothing is allocated for what the weights do not hold
            analysis = Analysis(self.channels, *transform_shape(tensors, "analysis"))
            synthesis = Synthesis(self.channels, *transform_shape(tensors, "synthesis"))
        self.features = self.channels
        self.analysis = load_transform(analysis, tensors, "analysis.")
        self.synthesis = load_transform(synthesis, tensors, "synthesis.")

    def kept(self, found: Tensor) -> Tensor:
        return self.quantizer.symbols(found)

    def symbols(self, kept: Tensor, points: Tensor) -> Tensor:
        return kept

    def estimated_bits(self, kept: Tensor, first: int = 0) -> list[float]:
        return [float(kept.numel())]  # there is but one operating point to choose

    def latent(self, symbols: Tensor, points: Tensor) -> Tensor:
        return self.quantizer.latent(symbols)

    def synthesize(self, latent: Tensor, points: Tensor) -> Tensor:
        image: Tensor = self.synthesis(latent)
        return image

    def encode(self, symbols: Tensor, q: int) -> bytes:
        return self.entropy.encode(symbols)

    def decode(self, payloads: Sequence[bytes], height: int, width: int, q: int) -> Tensor:
        return self.entropy.decode(payloads, height, width)

    def group_bytes(self, payload: bytes, height: int, width: int, q: int) -> list[int]:
        return [len(payload)]  # its passes are not distinguished

    def coded(self, q: int) -> Tensor:
        return torch.ones(self.channels, dtype=torch.bool)

    def macs(self, height: int, width: int, q: int) -> int:
        return self.entropy.macs(height, width)

    def to(self, device: str) -> None:
        super().to(device)
        self.quantizer.to(device).requires_grad_(False)


class VariableRate(Coding):
    """Integers in units of a quantization step for each channel and operating point; raises as :class:`FixedRate`."""

    analysis: ConditionalAnalysis
    version, points, dtype, kept_dtype = 2, POINTS, torch.int16, torch.float16

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        context = {n: t.int() if t.dtype == torch.int16 else t for n, t in part(tensors, "context.").items()}
        self.entropy = LogisticCoder(context)
        self.channels = self.entropy.channels
        self.gain, self.ungain = tensors["gain"].float(), tensors["ungain"].float()
        if not self.gain.shape == self.ungain.shape == self.entropy.tensors["coded"].shape:
            raise ValueError("a gain for each operating point and channel is needed")
        self.gain = self.gain * self.entropy.tensors["coded"]  # symbols of channels that are not coded are zero
        self.fingerprint = store.variable_rate_fingerprint(self.ungain, context)
        self.kinds = kinds = self.entropy.kinds
        anchors = len(tensors["synthesis.bias.anchors"]) // kinds
        adapter = len(tensors["analysis.adapter.0.conv1.weight"]) if kinds > 1 else 0
        with torch.device("meta"):
            analysis = ConditionalAnalysis(self.channels, *transform_shape(tensors, "analysis"), anchors, adapter)
            synthesis = ConditionalSynthesis(self.channels, *transform_shape(tensors, "synthesis"), anchors, kinds)
        self.analysis = load_transform(analysis, tensors, "analysis.")
        self.synthesis = load_transform(synthesis, tensors, "synthesis.")
        self.features = BLOCK_CHANNELS + self.analysis.stem.out_channels

    def kept(self, found: Tensor) -> Tensor:
        return found.to(self.kept_dtype)  # pixels as well: their 11 bits hold what 8 bits said

    def symbols(self, kept: Tensor, points: Tensor) -> Tensor:
        out = torch.empty(len(kept), self.channels, *kept.shape[2:], dtype=self.dtype, device=kept.device)
        for image, there, q in zip(kept, out, points, strict=True):
            h, w = image.shape[1:]
            in_pieces(functools.partial(self.piece, image, q[None]), there, h, w, 1, 0)
        return out

    def piece(self, image: Tensor, q: Tensor, rows: slice, columns: slice) -> Tensor:
        """Symbols (C, ...) of some rows and columns of one image's (F, h, w)."""
        scaled = self.scaled(image[None, :, rows, columns], q)[0].round_()
        return scaled.clamp_(-LARGEST_SYMBOL, LARGEST_SYMBOL).to(self.dtype)

    def scaled(self, kept: Tensor, points: Tensor) -> Tensor:
        """The latent in units of the quantization step, (B, C, h, w) float32."""
        gain = self.gain[points.to(self.gain.device)].to(kept.device)
        return self.analysis.at(kept, points.to(kept.device)) * per_channel(gain)

    def estimated_bits(self, kept: Tensor, first: int = 0) -> list[float]:
        """The entropy of each channel's histogram, at every ``ESTIMATED`` operating point; between them geometric."""
        positions = kept.flatten(2)[:, :, :: 1 + kept[0, 0].numel() // ESTIMATED_FROM]
        part = kept[0, 0].numel() / positions.shape[2]
        points = range(0, POINTS, ESTIMATED)
        scaled = (self.scaled(positions[..., None], torch.tensor([first + q]))[0].flatten(1) for q in points)
        bits = [part * histogram_bits(each.round_()) for each in scaled]
        return [float(each) for each in np.exp(np.interp(range(POINTS), points, np.log(np.maximum(bits, 1.0))))]

    def latent(self, symbols: Tensor, points: Tensor) -> Tensor:
        return symbols.float() * per_channel(self.ungain[points.to(self.ungain.device)].to(symbols.device))

    def synthesize(self, latent: Tensor, points: Tensor) -> Tensor:
        image: Tensor = self.synthesis(latent, points)
        return image

    def encode(self, symbols: Tensor, q: int) -> bytes:
        return self.entropy.encode(symbols, q)

    def decode(self, payloads: Sequence[bytes], height: int, width: int, q: int) -> Tensor:
        return self.entropy.decode(payloads, height, width, q)

    def group_bytes(self, payload: bytes, height: int, width: int, q: int) -> list[int]:
        return self.entropy.group_bytes(payload, height, width, q)

    def coded(self, q: int) -> Tensor:
        return self.entropy.coded(q)

    def macs(self, height: int, width: int, q: int) -> int:
        return self.entropy.macs(height, width, q)


def histogram_bits(symbols: Tensor) -> float:
    """Bits of symbols (C, N), floats that are integers, from the counts of each symbol in each channel."""
    levels = 2 * HISTOGRAM + 1
    index = symbols.clamp_(-HISTOGRAM, HISTOGRAM).int() + HISTOGRAM
    first = torch.arange(0, len(symbols) * levels, levels, dtype=torch.int32, device=symbols.device)
    counts = torch.bincount((index + first[:, None]).flatten(), minlength=len(symbols) * levels).double()
    return float(-torch.special.xlogy(counts, counts / symbols.shape[1]).sum()) / math.log(2)


def coding_of(tensors: dict[str, Tensor]) -> FixedRate | VariableRate:
    """The coding of a codec's weights; raises LookupError, ValueError, TypeError, RuntimeError for what is none."""
    return VariableRate(tensors) if "ungain" in tensors else FixedRate(tensors)


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that beginning."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def transform_shape(tensors: dict[str, Tensor], name: str) -> tuple[int, int]:
    """(width, depth) of a transform, from its weights; raises KeyError, ValueError where it is none."""
    depth = sum(n.startswith(f"{name}.blocks.") and n.endswith(".conv1.weight") for n in tensors)
    if depth > MOST_BLOCKS:
        raise ValueError(f"{name} of {depth} blocks")
    return tensors[f"{name}.stem.weight"].shape[0], depth


def load_transform(module: T, tensors: dict[str, Tensor], prefix: str) -> T:
    """Fill a transform with its part of the weights, in float32 and channels last."""
    own = {name: tensor.float() for name, tensor in part(tensors, prefix).items()}
    module.load_state_dict(own, assign=True)
    return channels_last(module).eval().requires_grad_(False)
