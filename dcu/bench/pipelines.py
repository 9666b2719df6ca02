"""The pipelines from a file to a label that are compared, dcu's and those of pixels; dcu's to a segmentation map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import AvifImagePlugin
from torch import Tensor, nn

from dcu import store
from dcu.bench.points import OperatingPoint
from dcu.codec import Codec, codec_of
from dcu.engines import Engine, available, engines, pytorch
from dcu.errors import UnavailableError
from dcu.evaluate.baselines import FORMATS, PNG, at_side
from dcu.evaluate.classifier import SIDES
from dcu.evaluate.cost import codec_cost, macs
from dcu.evaluate.pipeline import Pipeline
from dcu.geometry import CROP, LATENT_CROP
from dcu.image import ImageArray
from dcu.nets.efficientnet import EfficientNetLite
from dcu.nets.rgb import to_input
from dcu.tasks.classify import Classifier
from dcu.tasks.rgb import rgb_network
from dcu.tasks.segment import Segmenter, enlarged


@dataclass(frozen=True)
class PipelineMacs:
    """MACs from file to answer: entropy decoding's network, synthesis, network."""

    entropy: int
    synthesis: int
    network: int


@dataclass
class TimedPipeline:
    """A pipeline in three stages, read, decode and network, and the files that it is timed on."""

    pipeline: Pipeline
    files: list[bytes]
    read: Callable[[bytes], Any]
    decode: Callable[[Sequence[Any]], Tensor]  # what the network gets of files, (B, ...)
    network: nn.Module
    macs: PipelineMacs
    engines: Callable[[Tensor], dict[str, Engine]]  # what can run it, of `dcu.engines.TITLES`; what it gets is shown
    answer: str = "label"  # or segmentation, which is compared with no label

    @property
    def name(self) -> str:
        """As tables call it."""
        return self.pipeline.name

    @property
    def parameters(self) -> int:
        """Of the network that tells the label."""
        return sum(p.numel() for p in self.network.parameters())


def rgb_or_untrained() -> EfficientNetLite:
    """The RGB network; where its weights are not installed, an untrained one that costs the same."""
    try:
        return rgb_network()
    except UnavailableError:
        return EfficientNetLite().eval()


def files_of(format: str, images: Sequence[ImageArray], most: float, side: int | None) -> tuple[int, list[bytes]]:
    """Files of a format, reduced to ``side`` first, with at most so many bytes each on the mean where that can be.

    Without a side: the largest of ``SIDES`` at which they have.
    """
    files: list[bytes] = []
    for chosen in (side,) if side else SIDES:
        files = [FORMATS[format].fit(at_side(image, chosen), int(most)) for image in images]
        if sum(map(len, files)) <= most * len(files):
            break
    return chosen, files


def pipelines(
    point: OperatingPoint, images: Sequence[ImageArray], baselines: Sequence[str], sides: dict[str, int], device: str
) -> list[TimedPipeline]:
    """Every way at an operating point, for images (224, 224, 3) uint8: networks on latents first, the original last.

    A codec may have no network on its latents. ``sides``: to what each format reduces the image, where that is known.
    """
    classifier, segmenter = (
        store.default_network(kind, point.model.fingerprint) for kind in ("classifier", "segmenter")
    )
    codec = codec_of(point.model.identity, device)
    files = [codec.compress(image, quality=point.quality) for image in images]
    per_pixel = codec_cost(codec, point.quality)
    entropy, synthesis = per_pixel.context * CROP**2, per_pixel.synthesis * CROP**2
    rgb = rgb_or_untrained().to(device)
    cost = macs(rgb, torch.zeros(1, 3, CROP, CROP))
    rows = [latent_pipeline(Classifier(classifier, codec, device), files, entropy)] if classifier else []
    if segmenter:
        rows.append(segmentation_pipeline(Segmenter(segmenter, codec, device), files, entropy))
    parts = PipelineMacs(entropy, synthesis, cost)
    by_rgb = partial(engines, rgb, threads=torch.get_num_threads())
    rows.append(
        TimedPipeline(Pipeline("decoded", codec.name), files, codec.read, rgb_decoder(codec), rgb, parts, by_rgb)
    )
    only = PipelineMacs(0, 0, cost)
    for name in baselines:
        side, theirs = files_of(name, images, sum(map(len, files)) / len(files), sides.get(name))
        rows.append(
            TimedPipeline(
                Pipeline("format", name, side), theirs, bytes, pillow_decoder(name, device), rgb, only, by_rgb
            )
        )
    originals = [PNG.encode(image, 1, 1.0) for image in images]
    return [
        *rows,
        TimedPipeline(Pipeline("original"), originals, bytes, pillow_decoder("png", device), rgb, only, by_rgb),
    ]


def latent_pipeline(classifier: Classifier, files: list[bytes], entropy: int) -> TimedPipeline:
    """Bitstream to label: no image on the way; on the engines that `dcu classify` runs."""
    network, codec = classifier.network, classifier.codec
    parts = latent_parts(network, network.channels, entropy)

    def ready(_: Tensor) -> dict[str, Engine]:
        return {engine: classifier.on(engine) for engine in available(classifier.device, classifier.keeps_int8)}

    return TimedPipeline(
        Pipeline("latent", classifier.name),
        files,
        codec.read,
        latents_of(codec, classifier.planes),
        network,
        parts,
        ready,
    )


class SegmentationMaps(nn.Module):
    """A segmenter with its enlargement: latent (B, C, h, w) to segmentation map (B, 8 h, 8 w)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, latent: Tensor) -> Tensor:
        return enlarged(self.network(latent)).argmax(1)


def segmentation_pipeline(segmenter: Segmenter, files: list[bytes], entropy: int) -> TimedPipeline:
    """Bitstream to segmentation map, without decoding pixels."""
    network, codec = SegmentationMaps(segmenter.network).eval(), segmenter.codec
    parts = latent_parts(network, segmenter.network.channels, entropy)

    def ready(_: Tensor) -> dict[str, Engine]:
        return {"pytorch": pytorch(network)}  # the only engine of segmenters

    return TimedPipeline(
        Pipeline("latent", segmenter.name),
        files,
        codec.read,
        latents_of(codec, segmenter.planes),
        network,
        parts,
        ready,
        answer="segmentation",
    )


def latent_parts(network: nn.Module, channels: int, entropy: int) -> PipelineMacs:
    """MACs of a network on the latent of a 224x224 image, and of what is before it."""
    return PipelineMacs(entropy, 0, macs(network, torch.zeros(1, channels, LATENT_CROP, LATENT_CROP)))


def latents_of(codec: Codec, planes: int) -> Callable[[Sequence[Any]], Tensor]:
    """What networks on latents get of streams."""
    return lambda streams: torch.cat(codec.latents(streams, planes))


def rgb_decoder(codec: Codec) -> Callable[[Sequence[Any]], Tensor]:
    """What the RGB network gets of streams: the images that dcu rebuilds; threads share them as for latents."""

    def network_input(streams: Sequence[Any]) -> Tensor:
        points = (stream.full.operating_point for stream in streams)
        images = [codec.rebuilt(latent, q) for latent, q in zip(codec.latents(streams), points, strict=True)]
        return rgb_input(images, codec.device)

    return network_input


def pillow_decoder(name: str, device: str) -> Callable[[Sequence[Any]], Tensor]:
    """What the RGB network gets of files of another format, enlarged to 224x224; threads share the files of a batch."""
    format = PNG if name == "png" else FORMATS[name]
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads)
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # threads inside of so small an image cost more than they give

    def decoded(part: Sequence[bytes]) -> list[ImageArray]:
        return [format.decode(data, CROP, CROP) for data in part]

    def batch(files: Sequence[bytes]) -> Tensor:
        share = -(-len(files) // threads)
        parts = [files[start : start + share] for start in range(0, len(files), share)]
        images = pool.map(decoded, parts) if len(parts) > 1 else map(decoded, parts)
        return rgb_input([image for part in images for image in part], device)

    return batch


def rgb_input(images: Sequence[ImageArray], device: str) -> Tensor:
    """The RGB network's input (B, 3, 224, 224) of decoded images."""
    return to_input(torch.from_numpy(np.stack(images)).to(device))
