"""The chunks of a PNG file: those that its pixels need, and what the others state."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from dcu.errors import InvalidInputError
from dcu.image.container import Container, xmp_orientation
from dcu.image.directory import orientation

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_METADATA = 2**24
"""Larger profiles and texts, in bytes after decompression, are left out."""
GRAY, TRUECOLOR, INDEXED = 0, 2, 3
PRINTED_EXIF = b"Raw profile type exif"


class Chunk(NamedTuple):
    """A chunk's name, content and checksum."""

    name: bytes
    content: memoryview
    checksum: bytes

    @property
    def intact(self) -> bool:
        """Whether the checksum is right."""
        return self.checksum == checksum(self.name, self.content)

    @property
    def file(self) -> tuple[bytes, bytes, memoryview, bytes]:
        """The chunk as it is in a file."""
        return len(self.content).to_bytes(4, "big"), self.name, self.content, self.checksum


def checksum(name: bytes, content: bytes | memoryview) -> bytes:
    """The checksum of a chunk."""
    return zlib.crc32(content, zlib.crc32(name)).to_bytes(4, "big")


class PNG(NamedTuple):
    """A PNG file and the one color that is transparent in it: one value or three, as wide as its samples."""

    container: Container
    transparent: tuple[int, ...]
    bits: int


def chunks(data: bytes) -> Iterator[Chunk]:
    """The chunks up to the end, the last one perhaps truncated."""
    at, view = len(SIGNATURE), memoryview(data)
    while at + 8 <= len(data) and (name := data[at + 4 : at + 8]) != b"IEND":
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        yield Chunk(name, view[at + 8 : end], data[end : end + 4])
        at = end + 4


def parse(data: bytes) -> PNG:
    """The file without what its pixels do not need; raises InvalidInputError where it has no header."""
    found = list(chunks(data))
    if not found or found[0].name != b"IHDR" or len(found[0].content) != 13:
        raise InvalidInputError("damaged PNG image (no header)")
    bits, color = found[0].content[8:10]

    def first(name: bytes) -> bytes:
        """The content of the first intact chunk of a name."""
        return next((bytes(one.content) for one in found if one.name == name and one.intact), b"")

    kept = [found[0]]
    if color == INDEXED:
        kept += [one for one in found if one.name == b"PLTE" or (one.name == b"tRNS" and one.intact)]
    pixels = memoryview(b"".join(one.content for one in found if one.name == b"IDAT"))
    kept += [Chunk(b"IDAT", pixels, checksum(b"IDAT", pixels)), Chunk(b"IEND", pixels[:0], b"\xaeB`\x82")]
    names = [one.name for one in found]
    before = names[: names.index(b"IDAT")] if b"IDAT" in names else names
    container = Container(
        "PNG",
        b"".join((SIGNATURE, *(part for one in kept for part in one.file))),
        turned(found, first(b"eXIf")),
        unpacked(first(b"iCCP").partition(b"\0")[2][1:]),
        names.count(b"fcTL") + (b"fcTL" not in before) if b"acTL" in before else 1,
    )
    return PNG(container, transparent(first(b"tRNS"), bits, color), bits)


def transparent(chunk: bytes, bits: int, color: int) -> tuple[int, ...]:
    """The color of a tRNS chunk; none for indexed images, whose palette has it, or where the chunk is too short."""
    samples = {GRAY: 1, TRUECOLOR: 3}.get(color, 0)
    if len(chunk) < 2 * samples:
        return ()
    return tuple(int.from_bytes(chunk[2 * i : 2 * i + 2], "big") & (2**bits - 1) for i in range(samples))


def turned(found: list[Chunk], exif: bytes) -> int:
    """The orientation by EXIF, or by what programs print of EXIF and XMP into texts."""
    turned = orientation(exif)
    for one in found:
        if turned == 1 and one.name in (b"tEXt", b"zTXt", b"iTXt") and one.intact:
            key, _, text = bytes(one.content).partition(b"\0")
            if key == PRINTED_EXIF:
                printed = text if one.name == b"tEXt" else unpacked(text[1:]) or b""
                turned = orientation(printed_bytes(printed))
            elif key == b"XML:com.adobe.xmp" and one.name == b"iTXt":
                *_, xmp = text[2:].split(b"\0", 2)
                turned = xmp_orientation((unpacked(xmp) or b"") if text[:1] == b"\1" else xmp)
    return turned


def printed_bytes(text: bytes) -> bytes:
    """EXIF out of a text that holds its name, its length and its bytes in hexadecimal."""
    digits = re.sub(rb"\s", b"", text.strip().partition(b"\n")[2].partition(b"\n")[2])
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return b""


def unpacked(data: bytes) -> bytes | None:
    """Decompressed metadata; None where they are damaged or too large."""
    unpacker = zlib.decompressobj()
    try:
        out = unpacker.decompress(data, MAX_METADATA)
    except zlib.error:
        return None
    return out if unpacker.eof else None
