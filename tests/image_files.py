"""Image files made byte by byte, for what encoders do not write."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CODES = {1: "B", 3: "H", 4: "I", 8: "h", 16: "Q"}
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
Tag = tuple[int, int, Sequence[int] | bytes]
"""Number, type, and values or their bytes."""


def saved(image: Image.Image | NDArray[Any], format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, format, **options)
    return out.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def pack(samples: NDArray[Any], bits: int, order: str = ">") -> bytes:
    """Rows of samples, each padded to whole bytes."""
    if bits == 24:
        wide = np.ascontiguousarray(samples.astype(f"{order}u4")).view(np.uint8).reshape(*samples.shape, 4)
        return wide[..., slice(3) if order == "<" else slice(1, 4)].tobytes()
    if bits >= 8 and bits % 8 == 0:
        return samples.astype(f"{order}u{bits // 8}").tobytes()
    planes = (samples.astype(np.int64)[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(planes.reshape(len(samples), -1).astype(np.uint8), axis=1).tobytes()


def png(samples: NDArray[Any], bits: int, color: int, before: bytes = b"", interlaced: bool = False) -> bytes:
    """A PNG of samples (H, W, S) with further chunks before its pixels."""
    parts = [samples[y::dy, x::dx] for x, y, dx, dy in PASSES] if interlaced else [samples]
    rows = b"".join(b"\0" + pack(row.reshape(1, -1), bits) for part in parts if part.size for row in part)
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, interlaced)
    body = chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def directory(tags: Sequence[Tag], start: int, order: str = "<", big: bool = False) -> bytes:
    """A TIFF directory at an offset of the file, with its values behind it."""
    count, offset, room = ("Q", "Q", 8) if big else ("H", "I", 4)
    after = start + struct.calcsize(f"={count}{offset}") + (20 if big else 12) * len(tags)
    head, tail = struct.pack(order + count, len(tags)), b""
    for tag, kind, values in sorted(tags, key=lambda one: one[0]):
        raw = values if isinstance(values, bytes) else struct.pack(f"{order}{len(values)}{CODES[kind]}", *values)
        size = {5: 8, 12: 8, 9: 4, 11: 4}.get(kind) or struct.calcsize(f"={CODES.get(kind, 'B')}")
        head += struct.pack(f"{order}HH{offset}", tag, kind, len(raw) // size)
        if len(raw) <= room:
            head += raw.ljust(room, b"\0")
        else:
            head += struct.pack(order + offset, after + len(tail))
            tail += raw + bytes(len(raw) % 2)
    return head + bytes(room) + tail


def tiff(
    size: tuple[int, int],
    bits: int,
    photometric: int,
    pieces: Sequence[bytes],
    *more: Tag,
    samples: int = 1,
    order: str = "<",
    big: bool = False,
) -> bytes:
    """A TIFF of (width, height) whose strips or tiles are given; further tags replace the usual ones."""
    start = 16 if big else 8
    offsets = [start + sum(map(len, pieces[:i])) for i in range(len(pieces))]
    tiled = any(tag == 322 for tag, _, _ in more)
    tags: dict[int, Tag] = {
        tag: (tag, kind, values)
        for tag, kind, values in (
            (256, 4, [size[0]]),
            (257, 4, [size[1]]),
            (258, 3, [bits] * samples),
            (259, 3, [1]),
            (262, 3, [photometric]),
            (324 if tiled else 273, 16 if big else 4, offsets),
            (277, 3, [samples]),
            (325 if tiled else 279, 4, [len(piece) for piece in pieces]),
            *([] if tiled else [(278, 4, [-(-size[1] // len(pieces))])]),
            *more,
        )
    }
    pixels = b"".join(pieces)
    at = start + len(pixels)
    mark = b"II" if order == "<" else b"MM"
    header = mark + (struct.pack(f"{order}HHHQ", 43, 8, 0, at) if big else struct.pack(f"{order}HI", 42, at))
    return header + pixels + directory(list(tags.values()), at, order, big)


def exif(*tags: Tag, order: str = "<") -> bytes:
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(f"{order}HI", 42, 8) + directory(tags, 8, order)


def segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG file with further segments behind its first marker."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]
