"""How large an image may be: dcu's own limit, and Pillow's, which belongs to the host program."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from dcu.errors import InvalidInputError, UsageError

MAX_PIXELS = 2**28
MOST_THIN = 2**22
"""Pixels of blocks that every image may have, however low the limit is."""
VARIABLE = "DCU_MAX_PIXELS"
_LOCK = threading.RLock()


def max_pixels() -> int:
    """The most pixels that an image may have: 2^28, or ``DCU_MAX_PIXELS`` where it is set; raises UsageError."""
    text = os.environ.get(VARIABLE, "")
    if not text:
        return MAX_PIXELS
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:20]) <= MAX_PIXELS):
        raise UsageError(f"{VARIABLE} must be an integer from 1 to {MAX_PIXELS} (2^28)")
    return int(text)


class TooLargeError(InvalidInputError):
    """An image has more pixels than :func:`max_pixels`."""


def check_size(width: int, height: int) -> None:
    """Raise TooLargeError where an image has more pixels than :func:`max_pixels`, or far more with its blocks."""
    if width * height > max_pixels():
        raise too_large(f"{width}x{height}")
    if block_pixels(width, height) > (most := max(2 * max_pixels(), MOST_THIN)):
        raise TooLargeError(f"{width}x{height} is too narrow: its blocks of 8x8 have more than {most} pixels")


def block_pixels(width: int, height: int) -> int:
    """The pixels of the blocks of 8x8 that cover an image, which coding takes memory for."""
    return 64 * -(-width // 8) * -(-height // 8)


def too_large(size: str) -> TooLargeError:
    """The error for an image of a size."""
    most = max_pixels()
    return TooLargeError(f"{size} is more than {'2^28' if most == MAX_PIXELS else f'{most} ({VARIABLE})'} pixels")


@contextmanager
def pillow_limit(pixels: int, always: bool = False) -> Iterator[None]:
    """Let Pillow allocate images of so many pixels, whatever the host program's limit is; it is restored afterwards.

    Unless ``always``, images within the host program's limit change nothing, and do not wait for one another. Pillow
    refuses images of more than twice the limit.
    """
    if not always and (Image.MAX_IMAGE_PIXELS is None or pixels <= Image.MAX_IMAGE_PIXELS):
        yield
        return
    with _LOCK:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before
