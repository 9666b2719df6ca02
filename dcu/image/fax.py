"""Damage in Group 3 fax data, which libtiff does not report: it fills damaged lines with white and continues.

A line has one encoding in one dimension. It is damaged where the line that was decoded encodes to other bits.
"""

from __future__ import annotations

import io
import re

import numpy as np
from PIL import Image

from dcu.image.directory import Directory, layout

GROUP3, OPTIONS, FILL_ORDER = 3, 292, 266
END_OF_LINE = re.compile(rb"\x00{11,}\x01")


def damaged(data: bytes, directory: Directory, image: Image.Image) -> bool:
    """Whether lines of a decoded Group 3 image, which are encoded in one dimension, are not what the file holds."""
    mixed = directory.number(OPTIONS, 0) & 1
    expected = iter(encoded_lines(image if directory.number(262, 0) == 1 else image.point(lambda value: 255 - value)))
    rows = directory.number(278, image.height)
    starts, sizes = directory.numbers(273), directory.numbers(279)
    for start, size in zip(starts, sizes, strict=False):
        found = lines(data[start : start + size], directory.number(FILL_ORDER, 1) == 2)
        if len(found) < 2:
            return False  # lines without ends
        for number in range(rows):
            wanted = next(expected, None)
            if wanted is None:
                return False
            line = found[1 + number] if 1 + number < len(found) else b""
            if mixed and line[:1] == b"\0":
                continue
            if line[mixed:].rstrip(b"\0") != wanted:
                return True
    return False


def lines(strip: bytes, reversed_bits: bool) -> list[bytes]:
    """The lines of a strip, one byte per bit; the first is what stands before the first end of a line."""
    packed = np.frombuffer(strip, np.uint8)
    bits = np.unpackbits(packed, bitorder="little" if reversed_bits else "big")
    return END_OF_LINE.split(bits.tobytes())


def encoded_lines(image: Image.Image) -> list[bytes]:
    """The lines of an image in one-dimensional encoding, one byte per bit, without zeros at their ends."""
    out = io.BytesIO()
    image.convert("1").save(out, "TIFF", compression="tiff_ccitt", strip_size=1)
    data = out.getvalue()
    found = layout(data)
    assert found is not None
    directory, _ = found[0].read(data, found[1])
    return [
        np.unpackbits(np.frombuffer(data, np.uint8, size, start)).tobytes().rstrip(b"\0")
        for start, size in zip(directory.numbers(273), directory.numbers(279), strict=True)
    ]
