"""Who teaches: EfficientNet-Lite0, whose backbone the student has, and Lite2, both on the original view.

    target = (1 - w) softmax(s0 l0) + w softmax(s2 l2),  w = 1/2 unless a recipe says otherwise

Lite0 gives the features that the student is to have. Of what a view shows Lite2 knows more, and both together more than
either (experiments/2026-11-25-two-teachers). Both were taught with smoothed labels and say less than they know:
``SHARPER`` are the factors, of their logits, with which they are as often right as they say.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from dcu.tasks.rgb import RgbClassifier

SHARPER = {"lite0": 1.3, "lite2": 1.1}


class Targets(NamedTuple):
    """Output of the teachers: probabilities (B, 1000), Lite0's last features (B, 320, 7, 7); float32."""

    target: Tensor
    features: Tensor


class Teacher:
    """Both networks on views of 224x224; ``rgb`` is Lite0 alone, ``lite2`` the other's share in the target."""

    def __init__(self, device: str, lite2: float = 0.5) -> None:
        self.device, self.rgb = device, RgbClassifier(device)
        self.second = RgbClassifier(device, variant="lite2") if lite2 else None
        self.lite2 = lite2

    def __call__(self, views: Tensor) -> Targets:
        """What they say of views (B, 224, 224, 3) uint8."""
        first = self.rgb(views)
        said = (SHARPER["lite0"] * first.logits).softmax(1)
        if self.second:
            said = said.lerp((SHARPER["lite2"] * self.second(views).logits).softmax(1), self.lite2)
        return Targets(said, first.features)
