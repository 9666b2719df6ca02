"""Who teaches: EfficientNet-Lite0, whose trunk the student has, and Lite2, both on the original view.

    target = (softmax(s0 l0) + softmax(s2 l2)) / 2

Lite0 gives the features that the student is to have. Of what a view shows Lite2 knows more, and both together more than
either (docs/classify.md). Both were taught with smoothed labels and say less than they know: ``SHARPER`` are the
factors, of their logits, with which they are as often right as they say.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from dcu.tasks.rgb import RgbClassifier

SHARPER = {"lite0": 1.3, "lite2": 1.1}


class Targets(NamedTuple):
    """What the teachers say of views: probabilities (B, 1000), Lite0's last features (B, 320, 7, 7); float32."""

    target: Tensor
    features: Tensor


class Teacher:
    """Both networks on views of 224x224; ``rgb`` is Lite0 alone."""

    def __init__(self, device: str) -> None:
        self.rgb = RgbClassifier(device)
        self.second = RgbClassifier(device, variant="lite2")

    def __call__(self, views: Tensor) -> Targets:
        """What they say of views (B, 224, 224, 3) uint8."""
        first, second = self.rgb(views), self.second(views)
        said = (SHARPER["lite0"] * first.logits).softmax(1), (SHARPER["lite2"] * second.logits).softmax(1)
        return Targets((said[0] + said[1]) / 2, first.features)
