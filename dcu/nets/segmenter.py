"""Segmentation from the latent: EfficientNet-Lite0's backbone at output stride 16, pyramid pooling, a fine head.

Chen et al., DeepLab, arXiv 1606.00915 and arXiv 1802.02611.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dcu.geometry import BLOCK
from dcu.nets.efficientnet import DILATED_STAGES, EARLY, LITE0, SPLIT_CHANNELS, STEM_CHANNELS, SameConv2d, build_blocks
from dcu.nets.latent import LatentAdapter

RATES = (3, 6, 9, 12)
"""Dilations of the pyramid: 48 to 192 pixels to either side."""
FINER = 2
"""The head answers twice a latent position each way: at 1/4 of the image's size."""
STRIDE = BLOCK // FINER
"""Pixels an answer."""


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling.

    ::

        x (B, in, h, w) ── 1x1 ──┬── 3x3 at each rate ──┐
                                 ├──────────────────────┼── 1x1 ── (B, width, h, w)
                                 └── mean of all ───────┘
    """

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(before, width, 1)
        branch = width // 2
        self.branches = nn.ModuleList(nn.Conv2d(width, branch, 3, padding=rate, dilation=rate) for rate in RATES)
        self.whole = nn.Linear(width, branch)
        self.mix = nn.Conv2d(width + branch * (len(RATES) + 1), width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.reduce(x))
        whole = F.relu(self.whole(x.mean((2, 3))))[:, :, None, None].expand(-1, -1, *x.shape[2:])
        parts = [x, *(F.relu(branch(x)) for branch in self.branches), whole]
        return F.relu(self.mix(torch.cat(parts, 1)))


class FineHead(nn.Module):
    """Coarse and fine features to logits at 1/4 of the image's size.

    ::

        coarse (B, width, h/2, w/2) ── enlarged ──┐
        fine (B, fine, h, w) ── 1x1 ──────────────┴── 3x3 ── 1x1 ── channels to 2x2 ── (B, classes, 2h, 2w)
    """

    def __init__(self, width: int, fine: int, classes: int) -> None:
        super().__init__()
        self.detail = nn.Conv2d(fine, width // 2, 1)
        self.join = nn.Conv2d(width + width // 2, width, 3, padding=1)
        self.answer = nn.Conv2d(width, classes * FINER**2, 1)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        enlarged = F.interpolate(coarse, size=fine.shape[2:], mode="bilinear", align_corners=False)
        x = F.relu(self.join(torch.cat([enlarged, F.relu(self.detail(fine))], 1)))
        return F.pixel_shuffle(self.answer(x), FINER)


class LatentSegmenter(LatentAdapter):
    """Latent to logits, without an image between them.

    ::

        latent (B, C, h, w) ── adapter ──┬── split point ── blocks 5-15, dilated ── pyramid ──┐
                                         └── fine ────────────────────────────────────────────┴── head
        head: (B, classes, 2h, 2w)
    """

    def __init__(self, channels: int, width: int, depth: int, hidden: int, pyramid: int, classes: int) -> None:
        super().__init__(channels, width, depth, hidden)
        self.blocks = build_blocks(DILATED_STAGES, SPLIT_CHANNELS)
        self.pyramid = Pyramid(DILATED_STAGES[-1].channels, pyramid)
        self.head = FineHead(pyramid, width, classes)

    @property
    def classes(self) -> int:
        """How many classes it tells."""
        return self.head.answer.out_channels // FINER**2

    def forward(self, latent: Tensor) -> Tensor:
        fine = self.fine(latent)
        logits: Tensor = self.head(self.pyramid(self.blocks(self.join(fine))), fine)
        return logits


class RgbSegmenter(nn.Module):
    """The same backbone, pyramid and head on pixels, for comparison: image (B, 3, H, W), (x - 127) / 128, to logits.

    Fine features are those of the RGB network at 1/8 of the image's size: (B, 40, H/8, W/8).
    """

    def __init__(self, pyramid: int, classes: int) -> None:
        super().__init__()
        self.stem = SameConv2d(3, STEM_CHANNELS, 3, 2)
        self.early = build_blocks(LITE0[:EARLY], STEM_CHANNELS)
        self.blocks = build_blocks(DILATED_STAGES, SPLIT_CHANNELS)
        self.pyramid = Pyramid(DILATED_STAGES[-1].channels, pyramid)
        self.head = FineHead(pyramid, SPLIT_CHANNELS, classes)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.early(F.relu6(self.stem(x)))
        logits: Tensor = self.head(self.pyramid(self.blocks(fine)), fine)
        return logits
