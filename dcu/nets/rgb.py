"""The RGB network's input, and its trained weights as published, with batch norms folded into the convolutions."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from dcu.nets.efficientnet import EARLY, LITE0, LITE2
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
    """The name here of each convolution, its name in the package, and that of the batch norm behind it."""
    yield "stem", "_conv_stem", "_bn0"
    early = sum(stage.blocks for stage in VARIANTS[variant][:EARLY])
    for index in range(sum(stage.blocks for stage in VARIANTS[variant])):
        place = f"early.{index}" if index < early else f"backbone.blocks.{index - early}"
        if f"_blocks.{index}._expand_conv.weight" in state:
            yield f"{place}.expand", f"_blocks.{index}._expand_conv", f"_blocks.{index}._bn0"
        yield f"{place}.depthwise", f"_blocks.{index}._depthwise_conv", f"_blocks.{index}._bn1"
        yield f"{place}.project", f"_blocks.{index}._project_conv", f"_blocks.{index}._bn2"
    yield "backbone.head", "_conv_head", "_bn1"


def folded_state(state: dict[str, Tensor], variant: str) -> dict[str, Tensor]:
    """The state of an :class:`~dcu.nets.efficientnet.EfficientNetLite` from that of the published package."""
    folded = {
        f"{name}.{key}": tensor
        for name, convolution, norm in layers(state, variant)
        for key, tensor in fold(state, convolution, norm).items()
    }
    return folded | {f"backbone.classifier.{key}": state[f"_fc.{key}"] for key in ("weight", "bias")}


def to_input(images: Tensor) -> Tensor:
    """(B, 224, 224, 3) uint8 to the network's input (B, 3, 224, 224)."""
    return (images.permute(0, 3, 1, 2).float() - MEAN) / SPREAD
