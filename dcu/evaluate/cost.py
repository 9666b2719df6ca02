"""What models cost: multiply-accumulates and parameters, counted on the real modules."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dcu.cards import CodecMacs
from dcu.codec import Codec
from dcu.geometry import BLOCK, CROP, LATENT_CROP
from dcu.nets.resnet import DilatedResNet, ResNet
from dcu.nets.segmenter import LatentSegmenter, RgbSegmenter
from dcu.tasks.classify import Classifier

CODEC_SIDE = 16
"""Latent positions a side of the image on which a codec's cost per pixel is counted."""
STREET = (480, 360)
"""The image on which a segmenter's cost is counted: CamVid's size."""


def macs(module: nn.Module, *inputs: Tensor, part: str = "forward") -> int:
    """Multiply-accumulates of one call in evaluation, of ``forward`` or another method (1 MAC = 2 FLOPs)."""
    device = next(module.parameters()).device
    with torch.no_grad(), FlopCounterMode(display=False) as counter:  # in inference mode, torch 2.4 counts nothing
        getattr(module.eval(), part)(*(x.to(device) for x in inputs))
    return int(counter.get_total_flops()) // 2


def codec_cost(codec: Codec, quality: int | None = None, machines: bool = False) -> CodecMacs:
    """MACs per pixel of each part of a codec, of the context model at an operating point, by default the highest."""
    point = codec.network_point(codec.points - 1 if quality is None else quality, machines)
    pixels = (CODEC_SIDE * BLOCK) ** 2
    image = torch.zeros(1, 3, CODEC_SIDE * BLOCK, CODEC_SIDE * BLOCK)
    latent = torch.zeros(1, codec.channels, CODEC_SIDE, CODEC_SIDE)
    at = [torch.zeros(1)] if codec.points > 1 else []  # both transforms depend on the operating point
    analysis = "latent" if at else "forward"
    return CodecMacs(
        analysis=macs(codec.analysis, image, *at, part=analysis) // pixels,
        synthesis=macs(codec.coding.synthesis, latent, *at) // pixels,
        context=codec.coding.macs(CODEC_SIDE, CODEC_SIDE, point) // pixels,
    )


def classifier_cost(classifier: Classifier) -> int:
    """MACs of a classifier on the latent of a 224x224 image."""
    return macs(classifier.network, torch.zeros(1, classifier.network.channels, LATENT_CROP, LATENT_CROP))


def path_cost(classifier: Classifier, quality: int | None = None, machines: bool = False) -> int:
    """MACs from the bitstream of a 224x224 image to its label."""
    return codec_cost(classifier.codec, quality, machines).context * CROP**2 + classifier_cost(classifier)


def resnet_cost(network: ResNet, side: int = CROP) -> int:
    """MACs of a network on the latent of a square image, or on its pixels, without what decodes them."""
    size = side // BLOCK if network.shape.reads_latents else side
    return macs(network, torch.zeros(1, network.channels, size, size))


def segmenter_cost(network: LatentSegmenter | RgbSegmenter | DilatedResNet, input: str, codec: Codec) -> int:
    """MACs of a segmenter, or of its RGB counterpart with the synthesis before it, on a 480x360 image."""
    width, height = STREET
    if not isinstance(network, RgbSegmenter) and input == "latent":
        return macs(network, torch.zeros(1, network.channels, height // BLOCK, width // BLOCK))
    decoding = codec_cost(codec).synthesis * width * height if input == "decoded" else 0
    return macs(network, torch.zeros(1, 3, height, width)) + decoding
