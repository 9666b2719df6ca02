"""Image files of any size and kind, read whole only where they are images."""

from __future__ import annotations

import io
import os
import stat
import warnings
from typing import BinaryIO

from PIL import Image

from dcu.errors import InvalidInputError
from dcu.image import MAX_PIXELS, block_pixels, open_image
from dcu.image.formats import BY_NAME, signature

HEAD = 2**20
"""Bytes that show what a file is; shorter files are read as they are."""
SPARE_BYTES, BYTES_PER_PIXEL = 2**29, 64
"""What an image file may have at most: metadata and further images, and so much for each pixel."""
LATE_BYTES, LATE_JPEG_BYTES = 2**30, 2**26
"""What a file may have whose first bytes do not state its size in pixels. Pillow looks for a JPEG's byte by byte."""


def read_image_file(file: BinaryIO) -> bytes:
    """All bytes of an image file; other files, and files that never end, are refused in bounded time and memory.

    Raises
    ------
    InvalidInputError, UnavailableError
        Not an image, or a file far too large for its pixels; a package that reads it is not installed.
    """
    head = file.read(HEAD)
    if len(head) < HEAD:
        return head
    most, whole, size = most_bytes(head), io.BytesIO(), regular_size(file)
    whole.write(head)
    while (size or 0) <= most and whole.tell() <= most:
        if not (part := file.read(HEAD)):
            return whole.getvalue()
        whole.write(part)
    raise InvalidInputError(f"more than {most >> 20} MiB: too large for its pixels")


def pixels_of(data: bytes) -> int:
    """Pixels of an image, with its blocks, as its file states; the limit where it does not, 0 of what is no image."""
    try:
        return stated_pixels(data) or MAX_PIXELS
    except Exception:  # whoever reads it tells
        return 0


def regular_size(file: BinaryIO) -> int | None:
    """The bytes of a regular file; None of a pipe or a device."""
    if isinstance(file, io.BytesIO):
        return len(file.getbuffer())
    try:
        status = os.fstat(file.fileno())
    except OSError:  # at a URL
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def stated_pixels(head: bytes) -> int | None:
    """How many pixels an image has, by the first bytes of its file; None where they do not say.

    Raises
    ------
    InvalidInputError, UnavailableError
        Not an image; one that only a package reads that is not installed.
    """
    try:
        with warnings.catch_warnings(action="ignore"), open_image(head) as image:
            return block_pixels(*image.size)
    except InvalidInputError:
        begins = head[:16]
        known = [Image.OPEN[name][1] for name in BY_NAME if name in Image.OPEN]
        if signature(head) or any(accept and accept(begins) is True for accept in known):
            return None  # its header is longer, or damaged: whoever reads all of it tells
        raise


def most_bytes(head: bytes) -> int:
    """How many bytes an image file that begins so may have; memory follows the file, not this."""
    if (pixels := stated_pixels(head)) is None:
        return LATE_JPEG_BYTES if head.startswith(b"\xff\xd8\xff") else LATE_BYTES
    return SPARE_BYTES + BYTES_PER_PIXEL * min(pixels, MAX_PIXELS)
