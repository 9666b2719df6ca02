"""The size in the header of a JPEG XL file, whose reader decodes at once (ISO/IEC 18181-1, SizeHeader)."""

from __future__ import annotations

from dcu.errors import InvalidInputError
from dcu.image.limits import check_size

RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
WIDTHS = (9, 13, 18, 30)


class Bits:
    """Reads unsigned integers, lowest bit first."""

    def __init__(self, data: bytes) -> None:
        self.value = int.from_bytes(data, "little")

    def read(self, count: int) -> int:
        value = self.value & (1 << count) - 1
        self.value >>= count
        return value


def check_jxl(data: bytes) -> None:
    """Raise InvalidInputError where the image is too large, or has no header."""
    start = codestream(data)
    if start[:2] != b"\xff\x0a":
        raise InvalidInputError("damaged JXL image (no codestream)")
    bits = Bits(start[2:16])
    small = bits.read(1)

    def side() -> int:
        return 8 * (bits.read(5) + 1) if small else bits.read(WIDTHS[bits.read(2)]) + 1

    height = side()
    ratio = bits.read(3)
    width = height * RATIOS[ratio - 1][0] // RATIOS[ratio - 1][1] if ratio else side()
    check_size(width, height)


def codestream(data: bytes) -> bytes:
    """The first bytes of the codestream, bare or in the boxes of a container."""
    if data[:2] == b"\xff\x0a":
        return data[:16]
    at = 0
    while at + 8 <= len(data):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        head = 8
        if length == 1:
            length, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if name in (b"jxlc", b"jxlp"):
            at += head + (4 if name == b"jxlp" else 0)
            return data[at : at + 16]
        if length < head:
            break
        at += length
    return b""
