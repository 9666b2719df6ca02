"""Samples of TIFF files that Pillow reads not at all or wrongly: of 9 to 64 bits, signed, or floating-point.

libtiff decompresses, through Pillow: strips and tiles are presented to it as gray images of 8 bits, whose rows are
the bytes of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dcu.errors import InvalidInputError
from dcu.image.directory import Directory, Entry, Layout

STRIP_OFFSETS, STRIP_SIZES, TILE_OFFSETS, TILE_SIZES = 273, 279, 324, 325
BYTEWISE = (1, 5, 8, 32946, 32773, 34925, 50000)
"""Compressions of bytes: none, LZW, Deflate (two numbers), PackBits, LZMA, Zstandard."""
KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}
BLOCK = 2**19
"""Samples that are decoded at once, or one row of strips or tiles."""
BITS_AT_ONCE = 2**24
"""Bits of packed samples that are unpacked at once, a byte each, or one row."""
MAX_PADDING = 2**12
"""Tiles may be so much larger than the image, in pixels on each side."""
MAX_ROW_OF_PIECES = 2**31
"""In bytes: one strip, or one row of tiles, is decoded as a whole."""
Decode = Callable[[bytes], NDArray[np.uint8]]


@dataclass(frozen=True)
class SampleLayout:
    """Where the samples of a TIFF image are, and of what kind.

    ``rows`` and ``columns`` are a strip's or tile's; ``pieces`` are (offset, size) of all of them, plane by plane.
    """

    layout: Layout
    width: int
    height: int
    samples: int
    bits: int
    kind: str
    planar: bool
    compression: int
    predictor: int
    fill_order: int
    rows: int
    columns: int
    pieces: tuple[tuple[int, int], ...]

    @property
    def interleaved(self) -> int:
        """Samples per pixel that are stored side by side."""
        return 1 if self.planar else self.samples

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of a strip or tile."""
        return -(-self.columns * self.interleaved * self.bits // 8)

    @property
    def across(self) -> int:
        """Strips or tiles side by side."""
        return -(-self.width // self.columns)

    def read(self, data: bytes, decode: Decode) -> Iterator[NDArray[Any]]:
        """All samples, some rows (h, width, samples) at a time, from the top; raises InvalidInputError."""
        down = -(-self.height // self.rows)
        planes = self.samples if self.planar else 1
        if len(self.pieces) < down * self.across * planes:
            raise InvalidInputError("damaged TIFF image (strips or tiles are missing)")
        step = max(1, BLOCK // (self.rows * self.width * self.samples))
        for top in range(0, down, step):
            count = min(step, down - top)
            found = [
                self._rows(data, decode, (plane * down + top) * self.across, top, count) for plane in range(planes)
            ]
            rows = found[0] if planes == 1 else np.concatenate(found, axis=2)
            pace = max(1, BLOCK // (self.width * self.samples))
            yield from (rows[start : start + pace] for start in range(0, len(rows), pace))

    def _rows(self, data: bytes, decode: Decode, first: int, top: int, count: int) -> NDArray[Any]:
        """Samples of ``count`` rows of strips or tiles."""
        tiled = self.across > 1 or self.columns != self.width
        height = count * self.rows if tiled else min(count * self.rows, self.height - top * self.rows)
        pieces = self.pieces[first : first + count * self.across]
        packed = (self._plain if self.compression == 1 else self._unpacked)(data, decode, pieces, height)
        values = self._values(packed.reshape(-1, self.row_bytes))
        rows = values.reshape(height, self.across * self.columns, self.interleaved)
        return rows[: self.height - top * self.rows, : self.width]

    def _plain(
        self, data: bytes, decode: Decode, pieces: tuple[tuple[int, int], ...], height: int
    ) -> NDArray[np.uint8]:
        """Bytes (height, across, row bytes) of pieces that are not compressed."""
        found, left = [], height
        for number, (start, _) in enumerate(pieces):
            rows = min(self.rows, left)
            piece = np.frombuffer(data, np.uint8, self.row_bytes * rows, start)
            found.append(reverse_bits(piece) if self.fill_order == 2 else piece)
            left -= rows if number % self.across == self.across - 1 else 0
        if self.across == 1:
            return found[0] if len(found) == 1 else np.concatenate(found)
        tiles = np.stack(found).reshape(-1, self.across, self.rows, self.row_bytes)
        return tiles.swapaxes(1, 2)

    def _unpacked(
        self, data: bytes, decode: Decode, pieces: tuple[tuple[int, int], ...], height: int
    ) -> NDArray[np.uint8]:
        """The same of compressed pieces."""
        body = bytearray(8)
        starts, sizes = [], []
        for start, size in pieces:
            starts.append(len(body))
            sizes.append(min(size, max(0, len(data) - start)))
            body += data[start : start + size]
        values = {256: self.across * self.row_bytes, 257: height, 258: 8, 259: self.compression, 262: 1, 277: 1}
        values[266] = self.fill_order
        entries = {tag: self._entry(value) for tag, value in values.items()}
        if self.across > 1 or self.columns != self.width:
            entries |= {322: self._entry(self.row_bytes), 323: self._entry(self.rows)}
            entries |= {TILE_OFFSETS: self._entry(*starts), TILE_SIZES: self._entry(*sizes)}
        else:
            entries |= {278: self._entry(self.rows)}
            entries |= {STRIP_OFFSETS: self._entry(*starts), STRIP_SIZES: self._entry(*sizes)}
        return decode(self.layout.classic_file(entries, bytes(body)))

    def _entry(self, *values: int) -> Entry:
        return Entry(4, np.array(values, f"{self.layout.order}u4").tobytes())

    def _values(self, packed: NDArray[np.uint8]) -> NDArray[Any]:
        """Samples (rows, columns x samples per pixel) of rows of bytes."""
        across = self.columns * self.interleaved
        if self.predictor == 3:
            return self._from_planes(packed, across)
        if self.bits not in (8, 16, 32, 64):
            return self._from_bits(packed, across)
        order, size = self.layout.order, self.bits // 8
        values = np.ascontiguousarray(packed).view(f"{order}u{size}")[:, :across]
        if self.predictor == 2:
            pixels = values.reshape(len(values), self.columns, self.interleaved)
            values = np.cumsum(pixels, axis=1, dtype=f"u{size}").reshape(values.shape)
            return values.view(f"{self.kind}{size}")
        return values.view(f"{order}{self.kind}{size}")

    def _from_bits(self, packed: NDArray[np.uint8], across: int) -> NDArray[Any]:
        """Samples of any number of bits up to 32, packed without gaps; three bytes are in the file's order."""
        if self.bits == 24 and self.layout.order == "<":
            packed = packed[:, : 3 * across].reshape(len(packed), across, 3)[..., ::-1].reshape(len(packed), -1)
        out = np.empty((len(packed), across), np.int32 if self.bits <= 31 else np.int64)
        rows = max(1, BITS_AT_ONCE // (across * self.bits))
        for first in range(0, len(packed), rows):
            part = packed[first : first + rows]
            bits = np.unpackbits(part, axis=1, count=across * self.bits).reshape(len(part), across, self.bits)
            values = np.zeros((len(part), across), np.int64)
            for bit in range(self.bits):
                values <<= 1
                values |= bits[..., bit]
            if self.kind == "i":
                values -= (values >> (self.bits - 1)) << self.bits
            out[first : first + rows] = values
        return out

    def _from_planes(self, packed: NDArray[np.uint8], across: int) -> NDArray[Any]:
        """Floating-point samples whose bytes were sorted by significance and differenced (predictor 3)."""
        size = self.bits // 8
        pixels = packed.reshape(len(packed), -1, self.interleaved)
        ordered = np.cumsum(pixels, axis=1, dtype=np.uint8).reshape(len(packed), size, across)
        return np.ascontiguousarray(ordered.swapaxes(1, 2)).view(f">f{size}")[..., 0]


def sample_layout(layout: Layout, directory: Directory) -> SampleLayout:
    """The layout that a directory states.

    Raises
    ------
    InvalidInputError
        One that is not supported.
    """
    width, height = directory.number(256, 0), directory.number(257, 0)
    tiled = TILE_OFFSETS in directory.entries
    starts = directory.numbers(TILE_OFFSETS if tiled else STRIP_OFFSETS)
    sizes = directory.numbers(TILE_SIZES if tiled else STRIP_SIZES, (2**32 - 1,) * len(starts))
    bits = set(directory.numbers(258, (1,)))
    found = SampleLayout(
        layout,
        width,
        height,
        samples=directory.number(277, 1),
        bits=max(bits),
        kind=KINDS.get(directory.number(339, 1), "?"),
        planar=directory.number(284, 1) == 2,
        compression=directory.number(259, 1),
        predictor=directory.number(317, 1),
        fill_order=directory.number(266, 1),
        rows=directory.number(323, 0) if tiled else min(directory.number(278, height), height),
        columns=directory.number(322, 0) if tiled else width,
        pieces=tuple(zip(starts, sizes, strict=False)),
    )
    whole = found.bits in (8, 16, 32, 64)
    supported = (
        len(bits) == 1
        and found.compression in BYTEWISE
        and (found.bits in (16, 32, 64) if found.kind == "f" else found.kind != "?" and (whole or found.bits <= 32))
        and (found.predictor == 1 or whole)
        and found.predictor in (1, 2, 3)
        and (found.kind == "f" or found.predictor != 3)
        and 0 < found.rows <= height + MAX_PADDING
        and 0 < found.columns <= width + MAX_PADDING
        and found.rows * found.row_bytes * found.across <= MAX_ROW_OF_PIECES
        and 1 <= found.samples <= 16
    )
    if not supported:
        raise InvalidInputError(
            f"unsupported TIFF image ({found.samples} samples of {found.bits} bits, compression {found.compression})"
        )
    return found if not found.planar or found.samples > 1 else replace(found, planar=False)


def reverse_bits(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bytes with their bits in reverse order (FillOrder 2)."""
    return np.packbits(np.unpackbits(values).reshape(-1, 8)[:, ::-1])
