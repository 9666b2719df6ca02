"""EfficientNet-Lite, on images and on latents.

Tan and Le, EfficientNet, ICML 2019 (arXiv 1905.11946); the Lite variants have ReLU6 and no squeeze-and-excitation.
Batch norms are folded into the convolutions where weights come in (`dcu.tasks.rgb`), so there are none here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEATURES = 1280
STEM_CHANNELS = 32


@dataclass(frozen=True)
class Stage:
    """Blocks of one output width; the first of them has the stride, the others the dilation."""

    blocks: int
    kernel: int
    stride: int
    expand: int
    channels: int
    dilation: int = 1


LITE0 = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
LITE2 = (
    Stage(1, 3, 1, 1, 16),
    Stage(3, 3, 2, 6, 24),
    Stage(3, 5, 2, 6, 48),
    Stage(4, 3, 2, 6, 88),
    Stage(4, 5, 1, 6, 120),
    Stage(5, 5, 2, 6, 208),
    Stage(1, 3, 1, 6, 352),
)
EARLY = 3
"""Stages before the split point."""
SPLIT_CHANNELS = LITE0[EARLY - 1].channels
LATENT_STAGES = LITE0[EARLY:]
"""What follows the split point, 40 x 28 x 28: blocks 5-15."""
BLOCKS = frozenset(range(sum(stage.blocks for stage in LATENT_STAGES)))
"""The backbone's blocks, counted from the split point."""
SHORTCUTS = BLOCKS - frozenset(accumulate((stage.blocks for stage in LATENT_STAGES), initial=0))
"""Those of them that keep the shape and so have a shortcut: a network can do without."""
DILATED_STAGES = (*LATENT_STAGES[:2], Stage(4, 5, 1, 6, 192, dilation=2), Stage(1, 3, 1, 6, 320, dilation=2))
"""The same at output stride 16: dilation where the last stride was (Chen et al., DeepLab, arXiv 1606.00915)."""


class SameConv2d(nn.Conv2d):
    """Convolution padded as TensorFlow does ("SAME"): where padding is odd, the larger part is behind."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride, dilation = self.kernel_size[0], self.stride[0], self.dilation[0]
        if stride == 1:
            padding = dilation * (kernel // 2)
            return F.conv2d(x, self.weight, self.bias, padding=padding, dilation=dilation, groups=self.groups)
        height, width = (
            max(kernel - stride if side % stride == 0 else kernel - side % stride, 0) for side in x.shape[-2:]
        )
        x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        if self.training and not x.is_cuda:  # oneDNN's backward pass of a strided depthwise one is five times slower
            return F.conv2d(x, self.weight, self.bias, groups=self.groups)[:, :, ::stride, ::stride].contiguous(
                memory_format=torch.channels_last
            )
        return F.conv2d(x, self.weight, self.bias, stride, groups=self.groups)


class InvertedResidual(nn.Module):
    """expand 1x1, depthwise, project 1x1, with a shortcut where the shapes allow it (MobileNetV2, arXiv 1801.04381)."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expand: int, dilation: int) -> None:
        super().__init__()
        width = before * expand
        self.expand = nn.Conv2d(before, width, 1) if expand > 1 else None
        self.depthwise = SameConv2d(width, width, kernel, stride, dilation=dilation, groups=width)
        self.project = nn.Conv2d(width, after, 1)
        self.shortcut = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else F.relu6(self.expand(x))
        y: Tensor = self.project(F.relu6(self.depthwise(wide)))
        return x + y if self.shortcut else y


def build_blocks(stages: tuple[Stage, ...], before: int) -> nn.Sequential:
    """The blocks of some stages, the first of which takes ``before`` channels."""
    blocks, dilation = [], 1
    for stage in stages:
        for index in range(stage.blocks):
            stride = stage.stride if index == 0 else 1
            blocks.append(InvertedResidual(before, stage.channels, stage.kernel, stride, stage.expand, dilation))
            before, dilation = stage.channels, stage.dilation
    return nn.Sequential(*blocks)


def check_shortcuts(blocks: Iterable[int]) -> frozenset[int]:
    """Blocks of the backbone as a set; ValueError if one of them has no shortcut."""
    if not SHORTCUTS.issuperset(chosen := frozenset(blocks)):
        raise ValueError(f"of the backbone's blocks only {sorted(SHORTCUTS)} can be left out, not {sorted(chosen)}")
    return chosen


class Backbone(nn.Module):
    """From the split point to the answer.

    ::

        (B, 40, 28, 28) ── blocks 5-15 ── (B, 320, 7, 7) ── head 1x1 ── mean ── (B, 1280) ── classifier ── logits
    """

    def __init__(self, classes: int, stages: tuple[Stage, ...] = LITE0) -> None:
        super().__init__()
        self.blocks = build_blocks(stages[EARLY:], stages[EARLY - 1].channels)
        self.head = nn.Conv2d(stages[-1].channels, FEATURES, 1)
        self.classifier = nn.Linear(FEATURES, classes)

    def remove_blocks(self, blocks: Iterable[int]) -> None:
        """Go without some of the blocks, of ``SHORTCUTS``; the others keep their names. Raises ValueError."""
        for block in check_shortcuts(blocks):
            delattr(self.blocks, str(block))

    def pool(self, features: Tensor) -> Tensor:
        """The last blocks' features (B, 320, h, w) to the pooled vector (B, 1280)."""
        return F.relu6(self.head(features)).mean((2, 3))

    def forward(self, split_features: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.pool(self.blocks(split_features)))
        return logits


class EfficientNetLite(nn.Module):
    """The RGB network, Lite0, or another of its family: image (B, 3, h, w), (x - 127) / 128, to logits (B, 1000)."""

    def __init__(self, stages: tuple[Stage, ...] = LITE0) -> None:
        super().__init__()
        self.stem = SameConv2d(3, STEM_CHANNELS, 3, 2)
        self.early = build_blocks(stages[:EARLY], STEM_CHANNELS)
        self.backbone = Backbone(1000, stages)

    def split_features(self, x: Tensor) -> Tensor:
        """(B, 40, 28, 28), where latent networks join."""
        split_features: Tensor = self.early(F.relu6(self.stem(x)))
        return split_features

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.backbone(self.split_features(x))
        return logits
