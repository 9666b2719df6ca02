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
CRITICAL = (b"IHDR", b"IDAT")
PRINTED_EXIF = b"Raw profile type exif"


class Chunk(NamedTuple):
    """A chunk's name, content, and bytes as they are in the file."""

    name: bytes
    body: bytes
    whole: memoryview

    @property
    def intact(self) -> bool:
        """Whether its checksum is right."""
        return len(self.whole) == 12 + len(self.body) and zlib.crc32(self.whole[4:-4]) == int.from_bytes(
            self.whole[-4:], "big"
        )


class PNG(NamedTuple):
    """A PNG file and the one color that is transparent in it: one value or three, as wide as its samples."""

    container: Container
    transparent: tuple[int, ...]
    bits: int


def chunks(data: bytes) -> Iterator[Chunk]:
    """The chunks up to the end, the last one perhaps truncated."""
    at, view = len(SIGNATURE), memoryview(data)
    while at + 8 <= len(data):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if name == b"IEND":
            return
        body = b"" if name == b"IDAT" else data[at + 8 : at + 8 + length]
        yield Chunk(name, body, view[at : at + 12 + length])
        at += 12 + length


def parse(data: bytes) -> PNG:
    """The file without what its pixels do not need; raises InvalidInputError where it has no header."""
    found = list(chunks(data))
    if not found or found[0].name != b"IHDR" or len(found[0].body) != 13:
        raise InvalidInputError("damaged PNG image (no header)")
    bits, color = found[0].body[8:10]
    by_name = {one.name: one for one in reversed(found) if one.name in CRITICAL or one.intact}

    def body(name: bytes) -> bytes:
        return by_name[name].body if name in by_name else b""

    kept = {*CRITICAL, *([b"PLTE"] if color == INDEXED else [])}
    parts = [one.whole for one in found if one.name in kept or ((one.name, color) == (b"tRNS", INDEXED) and one.intact)]
    clean = b"".join((SIGNATURE, *parts, bytes(4), b"IEND\xaeB`\x82"))
    names = [one.name for one in found]
    before = names[: names.index(b"IDAT")] if b"IDAT" in names else names
    images = int.from_bytes(body(b"acTL")[:4], "big") + (b"fcTL" not in before) if body(b"acTL") else 1
    profile = body(b"iCCP").partition(b"\0")[2]
    container = Container("PNG", clean, turned(found, body(b"eXIf")), unpacked(profile[1:]), images)
    return PNG(container, transparent(body(b"tRNS"), bits, color), bits)


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
            key, _, text = one.body.partition(b"\0")
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
