"""Finds near-duplicate images by difference hashes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

HASH_SIDE = 16
HASH_WORDS = HASH_SIDE * HASH_SIDE // 64
NEAR_DUPLICATE_BITS = 40
"""Largest Hamming distance, of 256 bits, at which two images count as near-duplicates (unrelated ones: about 128)."""

Hashes = NDArray[np.uint64]


def difference_hash(image: Image.Image) -> Hashes:
    """Whether each of 16x16 cells is brighter than its left neighbor, as 4 words of 64 bits."""
    gray = image.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX)
    pixels = np.asarray(gray).astype(np.int16)
    return np.packbits(pixels[:, 1:] > pixels[:, :-1]).view(np.uint64)


def fingerprint(image: Image.Image) -> Hashes:
    """Hashes (2, 4) of an image: of all of it, and of its largest central square."""
    side = min(image.size)
    return np.stack([difference_hash(image), difference_hash(ImageOps.fit(image, (side, side)))])


def mirrored_fingerprint(image: Image.Image) -> Hashes:
    """Hashes (4, 4) of an image and of its mirror image."""
    return np.concatenate([fingerprint(image), fingerprint(ImageOps.mirror(image))])


class HashIndex:
    """Hashes of images, compared with new ones one by one."""

    def __init__(self) -> None:
        self._hashes: Hashes = np.zeros((1024, HASH_WORDS), dtype=np.uint64)
        self._count = 0

    def add(self, hashes: Hashes) -> None:
        """Add hashes (N, 4)."""
        while self._count + len(hashes) > len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
        self._hashes[self._count : self._count + len(hashes)] = hashes
        self._count += len(hashes)

    def distance(self, hashes: Hashes) -> int:
        """The smallest Hamming distance of any of the hashes (N, 4) to any in the index; 256 where it is empty."""
        known = self._hashes[: self._count]
        return min((int(np.bitwise_count(known ^ one).sum(axis=1).min(initial=256)) for one in hashes), default=256)
