"""Sizes that all parts of dcu agree on."""

from __future__ import annotations

BLOCK = 8
"""Pixels per latent position, horizontally and vertically."""
RESIZE, CROP = 256, 224
"""Standard ImageNet evaluation: resize the short side to 256 pixels, take the center 224x224."""
LATENT_RESIZE, LATENT_CROP = RESIZE // BLOCK, CROP // BLOCK
"""The same in latent positions."""
POINTS = 64
"""Operating points of a codec of many rates, 0 to 63. Inside its networks those for machines follow, 64 to 127."""


def quality_of(point: int) -> tuple[int, bool]:
    """The quality, 0 to 63, that an operating point of the networks stands for, and whether it is one for machines."""
    return point % POINTS, point >= POINTS
