"""Who teaches: EfficientNet-Lite0, whose trunk the student has, and Lite2, both on the original view.

    target = (softmax(s0 l0) + softmax(s2 l2)) / 2

Lite0 gives the features that the student is to have. Of what a view shows Lite2 knows more, and both together more than
either (docs/classify.md). Both were taught with smoothed labels and say less than they know: ``SHARPER`` are the
factors, of their logits, with which they are as often right as they say.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dcu.tasks import rgb

SHARPER = {"lite0": 1.3, "lite2": 1.1}


class Targets(NamedTuple):
    """What the teachers say of views: probabilities (B, 1000), Lite0's last features (B, 320, 7, 7); float32."""

    target: Tensor
    features: Tensor


class Teacher:
    """Both networks on views of 224x224; ``rgb`` is Lite0 alone."""

    def __init__(self, device: str) -> None:
        self.rgb = rgb.RgbClassifier(device)
        self.second = rgb.rgb_network("lite2").to(device)

    @torch.no_grad()
    def __call__(self, views: Tensor) -> Targets:
        """What they say of views (B, 224, 224, 3) uint8."""
        first = self.rgb(views)
        x = rgb.to_input(views).contiguous(memory_format=torch.channels_last)
        logits = {"lite0": first.logits, "lite2": self.second(x).float()}
        target = torch.stack([(SHARPER[name] * said).softmax(1) for name, said in logits.items()]).mean(0)
        return Targets(target, first.features)
