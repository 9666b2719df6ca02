"""Image files of any size and kind, read whole only where they are images."""

from __future__ import annotations

import io
import os
import stat
import warnings
from typing import BinaryIO

from PIL import Image

from dcu.errors import InvalidInputError
from dcu.image import MAX_PIXELS

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
    InvalidInputError
        Not an image, or a file far too large for its pixels.
    """
    head = file.read(HEAD)
    if len(head) < HEAD:
        return head
    if not recognized(head):
        raise InvalidInputError("not an image that Pillow can read")
    whole, size = io.BytesIO(), regular_size(file)
    whole.write(head)
    most = most_bytes(head)
    while (size or 0) <= most and whole.tell() <= most:
        if not (part := file.read(HEAD)):
            return whole.getvalue()
        whole.write(part)
    raise InvalidInputError(f"more than {most >> 20} MiB: too large for its pixels")


def regular_size(file: BinaryIO) -> int | None:
    """The bytes of a regular file; None of a pipe or a device."""
    status = os.fstat(file.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def recognized(head: bytes) -> bool:
    """Whether a file that begins so may be an image, as Pillow's plugins tell."""
    Image.init()
    if any(accept(head[:16]) for _, accept in Image.OPEN.values() if accept):
        return True
    try:
        with Image.open(io.BytesIO(head), formats=[name for name, (_, accept) in Image.OPEN.items() if not accept]):
            return True
    except Exception:  # plugins raise nearly anything
        return False


def most_bytes(head: bytes) -> int:
    """How many bytes an image file that begins so may have, by its pixels; memory follows the file, not this."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(head)) as image:
            return SPARE_BYTES + BYTES_PER_PIXEL * min(image.width * image.height, MAX_PIXELS)
    except Exception:  # plugins raise nearly anything
        return LATE_JPEG_BYTES if head.startswith(b"\xff\xd8\xff") else LATE_BYTES
