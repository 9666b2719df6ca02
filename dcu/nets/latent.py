"""Networks that read latents: an adapter in the place of the RGB network's early stages, then its backbone."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from dcu.nets import MOST_BLOCKS
from dcu.nets.efficientnet import BLOCKS, SPLIT_CHANNELS, Backbone


class PlainBlock(nn.Module):
    """relu(x + conv3x3(relu(conv3x3(x)))): an adapter's plain residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


class FusedBlock(nn.Module):
    """x + conv1x1(relu(conv3x3(x))), wider between the two: fused-MBConv of EfficientNetV2 (arXiv 2104.00298)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, hidden, 3, padding=1)
        self.conv2 = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(F.relu(self.conv1(x)))
        return x + y


class LatentAdapter(nn.Module):
    """What takes the place of the RGB network's early stages.

    ::

        latent (B, C, h, w) ── stem ── residual blocks ── fine (B, width, h, w) ── 1x1 ── split point (B, 40, h, w)

    The stem is 3x3 with ReLU before plain blocks (``hidden`` 0), 1x1 without before fused ones.
    """

    def __init__(self, channels: int, width: int, depth: int, hidden: int) -> None:
        super().__init__()
        self.fused = hidden > 0
        self.stem = nn.Conv2d(channels, width, 1) if self.fused else nn.Conv2d(channels, width, 3, padding=1)
        self.adapter = nn.Sequential(
            *(FusedBlock(width, hidden) if self.fused else PlainBlock(width) for _ in range(depth))
        )
        self.join = nn.Conv2d(width, SPLIT_CHANNELS, 1)

    @property
    def channels(self) -> int:
        """C, planes that tell the operating point included (:func:`~dcu.nets.operating_point.with_point`)."""
        return self.stem.in_channels

    def fine(self, latent: Tensor) -> Tensor:
        """Features at the latent's own size, (B, width, h, w)."""
        stream = self.stem(latent)
        fine: Tensor = self.adapter(stream if self.fused else F.relu(stream))
        return fine

    def split_features(self, latent: Tensor) -> Tensor:
        """(B, 40, h, w)."""
        split_features: Tensor = self.join(self.fine(latent))
        return split_features


def adapter_shape(tensors: Mapping[str, Tensor]) -> tuple[int, int, int, int]:
    """(channels, width, depth, hidden) of an adapter, from a network's weights; KeyError, ValueError if it has none."""
    width, channels, kernel = tensors["stem.weight"].shape[:3]
    depth = sum(name.startswith("adapter.") and name.endswith(".conv1.weight") for name in tensors)
    if depth > MOST_BLOCKS:
        raise ValueError(f"an adapter of {depth} blocks")
    return channels, width, depth, len(tensors["adapter.0.conv1.weight"]) if kernel == 1 else 0


def removed_blocks(tensors: Mapping[str, Tensor]) -> frozenset[int]:
    """The backbone's blocks that a classifier does without, from its weights."""
    return BLOCKS - {int(name.split(".")[2]) for name in tensors if name.startswith("backbone.blocks.")}


class LatentClassifier(LatentAdapter):
    """Latent to logits, without an image between them.

    ::

        latent (B, C, h, w) ── adapter ── split point (B, 40, h, w) ── backbone ── logits
    """

    def __init__(self, channels: int, width: int, depth: int, hidden: int, classes: int) -> None:
        super().__init__(channels, width, depth, hidden)
        self.backbone = Backbone(classes)

    @property
    def classifier(self) -> nn.Linear:
        """The last layer."""
        return self.backbone.classifier

    def features(self, latent: Tensor) -> Tensor:
        """The pooled features (B, 1280), the input of the last layer."""
        return self.backbone.pool(self.backbone.blocks(self.split_features(latent)))

    def forward(self, latent: Tensor) -> Tensor:
        logits: Tensor = self.backbone.classifier(self.features(latent))
        return logits
