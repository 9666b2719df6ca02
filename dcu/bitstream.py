"""The container, versions 1 and 2: write, read, verify. Knows nothing of networks.

==========  ==========  =========================================================================
field       bytes       meaning
==========  ==========  =========================================================================
magic       3           ``DC 75`` and the version
flags       1 or 2      version 1: bit 0: a thumbnail layer is there; bits 1-7: operating point
                        version 2, little endian: bits 0-5: operating point; bit 6: a thumbnail
                        layer is there; bit 7: metadata; bit 8: made for machines; bit 9: gray;
                        others 0
codec       4           first four bytes of the codec's fingerprint
width       1-5         unsigned LEB128 of width - 1, shortest form, as all numbers below
height      1-5         height - 1
lengths     1-5 each    bytes of the metadata, of the thumbnail layer's payload, where they are
                        there, then of the full layer's payload
contents                in the same order; of more than one tile, each tile preceded by its length
checksum    4           CRC-32 of everything before it, little endian
==========  ==========  =========================================================================
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO, NamedTuple

from dcu.errors import InvalidInputError
from dcu.geometry import BLOCK, POINTS
from dcu.image import check_size

MAGIC = b"\xdc\x75"
VERSIONS = (1, 2)
CHECKSUM_BYTES = 4
LARGEST_METADATA = 2**20
"""Bytes."""
TILE = 256  # latent positions a side
THUMBNAIL_FROM = 1024  # short side, in pixels, from which on there is a thumbnail layer
THUMBNAIL_SHORT = 256  # short side of the thumbnail layer
MOST_HEAD = 64  # bytes that hold what stands before the contents
START = 9  # bytes from which on numbers follow, in version 1 from the last of them on
CHUNK = 2**20  # bytes that are read of a file at once: memory follows what is there, not what a header says


@dataclass(frozen=True)
class Layer:
    """One coded image: its size in pixels, the payload of each tile, row by row, the operating point of all.

    The latter is that of the codec's networks: of streams for machines from 64 on.
    """

    width: int
    height: int
    tiles: tuple[bytes, ...] = field(repr=False)
    operating_point: int = 0


@dataclass(frozen=True)
class Header:
    """What a bitstream states beside its contents. Metadata, ``machines`` and ``gray`` are of version 2 only.

    ``gray``: the image has no color, and is decoded without.
    """

    codec: bytes
    operating_point: int = 0
    version: int = 1
    machines: bool = False
    metadata: bytes = b""
    gray: bool = False

    @property
    def network_point(self) -> int:
        """The operating point as the codec's networks count it, those for machines from 64 on."""
        return self.operating_point + POINTS * self.machines

    def flags(self, thumbnail: bool) -> bytes:
        """The flags as bytes; raises ValueError where the version has no place for them."""
        if self.version == 1:
            if self.machines or self.metadata or self.gray or not 0 <= self.operating_point < 128:
                raise ValueError("not of version 1")
            return bytes([int(thumbnail) | self.operating_point << 1])
        if not (0 <= self.operating_point < POINTS and len(self.metadata) <= LARGEST_METADATA):
            raise ValueError("operating points are 0 to 63, metadata at most 2^20 bytes")
        bits = self.operating_point | thumbnail << 6 | bool(self.metadata) << 7 | self.machines << 8 | self.gray << 9
        return bits.to_bytes(2, "little")


@dataclass(frozen=True)
class Stream:
    """One parsed bitstream. ``thumbnail`` is there from 1024 pixels on the short side."""

    header: Header
    thumbnail: Layer | None
    full: Layer
    header_bytes: int
    payload_bytes: tuple[int, ...]

    @property
    def codec(self) -> bytes:
        """First four bytes of the codec's fingerprint."""
        return self.header.codec

    @property
    def operating_point(self) -> int:
        """The operating point of the codec, 0 if it has one."""
        return self.header.operating_point

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The thumbnail layer, if there is one, then the full one."""
        return (self.thumbnail, self.full) if self.thumbnail else (self.full,)

    @property
    def size(self) -> int:
        """Bytes of the whole stream."""
        return self.header_bytes + len(self.header.metadata) + sum(self.payload_bytes) + CHECKSUM_BYTES


def latent_size(width: int, height: int) -> tuple[int, int]:
    """(h, w) of the latent of an image of width x height pixels."""
    return -(-height // BLOCK), -(-width // BLOCK)


def thumbnail_size(width: int, height: int) -> tuple[int, int] | None:
    """(width, height) of the thumbnail layer: short side 256; None where the image has none."""
    return reduced_size(width, height) if min(width, height) >= THUMBNAIL_FROM else None


def reduced_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) of an image reduced to a short side of 256; one that is not larger keeps its size."""
    short, long = min(width, height), max(width, height)
    if short <= THUMBNAIL_SHORT:
        return width, height
    reduced = (long * THUMBNAIL_SHORT + short // 2) // short
    return (THUMBNAIL_SHORT, reduced) if width <= height else (reduced, THUMBNAIL_SHORT)


def tile_grid(width: int, height: int) -> list[tuple[slice, slice]]:
    """The (rows, columns) of each tile of a layer of width x height pixels, in latent positions."""
    h, w = latent_size(width, height)
    return [
        (slice(top, min(top + TILE, h)), slice(left, min(left + TILE, w)))
        for top in range(0, h, TILE)
        for left in range(0, w, TILE)
    ]


def write_number(value: int) -> bytes:
    """Unsigned LEB128: seven bits a byte, lowest first, the high bit set on all but the last."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_number(data: memoryview, at: int) -> tuple[int, int]:
    """Unsigned LEB128 of at most five bytes in its shortest form: (value, position after it)."""
    value = 0
    for count in range(5):
        if at + count >= len(data):
            raise InvalidInputError("stream is truncated")
        byte = data[at + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            if byte == 0 and count:
                break
            return value, at + count + 1
    raise InvalidInputError("a number in the stream is malformed")


def write(header: Header, width: int, height: int, layers: Sequence[Sequence[bytes]]) -> bytes:
    """Serialize an image.

    Parameters
    ----------
    header : Header
        Codec, operating point and what else there is.
    width, height : int
        In pixels.
    layers : sequence of sequence of bytes
        Payloads of the tiles of the thumbnail layer, if ``thumbnail_size`` says there is one, then of the full layer.
    """
    payloads = [pack_tiles(tiles) for tiles in layers]
    contents = [header.metadata, *payloads] if header.metadata else payloads
    head = MAGIC + bytes([header.version]) + header.flags(len(layers) > 1) + header.codec
    numbers = [width - 1, height - 1, *map(len, contents)]
    body = b"".join([head, *map(write_number, numbers), *contents])
    return body + zlib.crc32(body).to_bytes(CHECKSUM_BYTES, "little")


def pack_tiles(tiles: Sequence[bytes]) -> bytes:
    """One payload of all tiles: each preceded by its length where there is more than one."""
    if len(tiles) == 1:
        return tiles[0]
    return b"".join(write_number(len(tile)) + tile for tile in tiles)


def unpack_tiles(payload: memoryview, count: int) -> tuple[bytes, ...]:
    """The reverse of :func:`pack_tiles`."""
    if count == 1:
        return (bytes(payload),)
    tiles, at = [], 0
    for _ in range(count):
        size, at = read_number(payload, at)
        if at + size > len(payload):
            raise InvalidInputError("a tile is longer than its layer")
        tiles.append(bytes(payload[at : at + size]))
        at += size
    if at != len(payload):
        raise InvalidInputError("bytes after the last tile of a layer")
    return tuple(tiles)


@dataclass(frozen=True)
class Head:
    """What stands before the contents: the size (width, height) of each layer, the bytes of each content."""

    header: Header
    sizes: tuple[tuple[int, int], ...]
    metadata_bytes: int
    payload_bytes: tuple[int, ...]
    header_bytes: int

    @property
    def end(self) -> int:
        """Where the contents end and the checksum begins."""
        return self.header_bytes + self.metadata_bytes + sum(self.payload_bytes)


def most_bytes(width: int, height: int) -> int:
    """What the payload of a layer can have at most: 4 bytes per pixel of whole blocks, more than the image itself."""
    return 4 * math.prod(latent_size(width, height)) * BLOCK**2


def read_head(data: memoryview) -> Head:
    """Parse what stands before the contents at the beginning of ``data``; raises InvalidInputError."""
    if not data:
        raise InvalidInputError("empty stream")
    if data[:2] != MAGIC[: len(data)]:
        raise InvalidInputError("not a dcu bitstream")
    if len(data) < START:
        raise InvalidInputError("stream is truncated")
    version = data[2]
    if version not in VERSIONS:
        raise InvalidInputError(f"bitstream version {version} is not supported; this dcu reads versions 1 and 2")
    flags = read_flags_1(data[3]) if version == 1 else read_flags_2(data[3:5])
    at = 3 + version
    codec = bytes(data[at : at + 4])
    width, at = read_number(data, at + 4)
    height, at = read_number(data, at)
    width, height = width + 1, height + 1
    check_size(width, height)
    thumbnail = thumbnail_size(width, height)
    if flags.thumbnail != bool(thumbnail):
        raise InvalidInputError("the header is inconsistent about the thumbnail layer")
    sizes = tuple(size for size in (thumbnail, (width, height)) if size)
    metadata_bytes, lengths = 0, []
    if flags.metadata:
        metadata_bytes, at = read_number(data, at)
        if not 1 <= metadata_bytes <= LARGEST_METADATA:
            raise InvalidInputError("the metadata are empty, or larger than 2^20 bytes")
    for size in sizes:
        length, at = read_number(data, at)
        if length > most_bytes(*size):
            raise InvalidInputError("the header states more bytes than its image can need")
        lengths.append(length)
    header = Header(codec, flags.operating_point, version, flags.machines, gray=flags.gray)
    return Head(header, sizes, metadata_bytes, tuple(lengths), at)


def read(data: bytes | bytearray | memoryview) -> Stream:
    """Parse the stream at the beginning of ``data``; ``Stream.size`` says where it ends.

    Raises
    ------
    InvalidInputError
        Not a stream, of another version, cut short, or its checksum is wrong.
    """
    data = memoryview(data)
    head = read_head(data)
    end = head.end
    if end + CHECKSUM_BYTES > len(data):
        raise InvalidInputError("stream is truncated")
    if zlib.crc32(data[:end]).to_bytes(CHECKSUM_BYTES, "little") != data[end : end + CHECKSUM_BYTES]:
        raise InvalidInputError("checksum mismatch: the stream is damaged")
    start = head.header_bytes + head.metadata_bytes
    header, layers = replace(head.header, metadata=bytes(data[head.header_bytes : start])), []
    for (w, h), length in zip(head.sizes, head.payload_bytes, strict=True):
        count = math.prod(-(-side // TILE) for side in latent_size(w, h))
        tiles = unpack_tiles(data[start : start + length], count)
        layers.append(Layer(w, h, tiles, header.network_point))
        start += length
    thumbnail = layers[0] if len(layers) > 1 else None
    return Stream(header, thumbnail, layers[-1], head.header_bytes, head.payload_bytes)


def read_from(file: BinaryIO) -> Stream | None:
    """The next stream of a buffered file, read no further than it goes; None at the file's end.

    A file that is no stream is refused after its first bytes, whatever its size; raises like :func:`read`.
    """
    data = bytearray(file.read(START))
    if not data:
        return None
    if len(data) == START and data[:2] == MAGIC and data[2] in VERSIONS:
        flags = read_flags_1(data[3]) if data[2] == 1 else read_flags_2(memoryview(data)[3:5])
        numbers = 3 + flags.thumbnail + flags.metadata  # width, height, the length of each content
        missing = numbers - (data[2] == 1 and data[8] < 0x80)
        while missing and len(data) < START + 5 * numbers and (byte := file.read(1)):
            data += byte
            missing -= byte[0] < 0x80
        size = read_head(memoryview(data)).end + CHECKSUM_BYTES
        while len(data) < size and (part := file.read(min(size - len(data), CHUNK))):
            data += part
    return read(data)


class Flags(NamedTuple):
    """What the flags of a header say; the last three are of version 2."""

    operating_point: int
    thumbnail: bool
    metadata: bool = False
    machines: bool = False
    gray: bool = False


def read_flags_1(flags: int) -> Flags:
    """The flags of version 1."""
    return Flags(flags >> 1, bool(flags & 1))


def read_flags_2(data: memoryview) -> Flags:
    """The flags of version 2; raises InvalidInputError where a reserved bit is set."""
    flags = int.from_bytes(data, "little")
    if flags >> 10:
        raise InvalidInputError("the header has unknown flags")
    return Flags(flags & 63, *(bool(flags >> bit & 1) for bit in range(6, 10)))
