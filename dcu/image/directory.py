"""Directories of TIFF files, EXIF and MPF, read entry by entry: an invalid entry does not affect the others."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from dcu.errors import InvalidInputError

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value of each type."""
INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
ORIENTATION = 274
MAX_DIRECTORIES = 10_000


@dataclass(frozen=True)
class Entry:
    """A tag's type and the bytes of its values, in the file's byte order."""

    type: int
    value: bytes


@dataclass(frozen=True)
class Directory:
    """The entries of one directory that could be read."""

    order: str
    """``<`` or ``>``."""
    entries: dict[int, Entry] = field(default_factory=dict)

    def numbers(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """The values of a tag of integers; the default where there are none."""
        entry = self.entries.get(tag)
        if entry is None or entry.type not in INTEGERS or not entry.value:
            return default
        count = len(entry.value) // SIZES[entry.type]
        return struct.unpack(f"{self.order}{count}{INTEGERS[entry.type]}", entry.value)

    def number(self, tag: int, default: int) -> int:
        """The first value of a tag."""
        return self.numbers(tag, (default,))[0]


@dataclass(frozen=True)
class Layout:
    """How a TIFF file stores directories: classic or BigTIFF, and in which byte order."""

    order: str
    big: bool

    @property
    def offset_size(self) -> int:
        return 8 if self.big else 4

    def number(self, packed: bytes) -> int:
        """An unsigned integer of the file."""
        return int.from_bytes(packed, "little" if self.order == "<" else "big")

    def read(self, data: bytes, at: int) -> tuple[Directory, int]:
        """The directory at an offset, and the offset of the next one (0: none)."""
        count_format, entry_format = ("Q", "HHQ8s") if self.big else ("H", "HHI4s")
        directory = Directory(self.order)
        head, entry_size = struct.calcsize(f"={count_format}"), struct.calcsize(f"={entry_format}")
        if not 0 < at <= len(data) - head:
            return directory, 0
        (count,) = struct.unpack_from(self.order + count_format, data, at)
        at += head
        present = min(count, (len(data) - at) // entry_size)
        packed = data[at : at + present * entry_size]
        for tag, kind, values, inline in struct.iter_unpack(self.order + entry_format, packed):
            value = self._value(data, kind, values, inline)
            if value is not None:
                directory.entries.setdefault(tag, Entry(kind, value))
        at += count * entry_size
        if at > len(data) - self.offset_size:
            return directory, 0
        return directory, self.number(data[at : at + self.offset_size])

    def _value(self, data: bytes, kind: int, count: int, inline: bytes) -> bytes | None:
        length = SIZES.get(kind, len(data) + 1) * count
        if length <= self.offset_size:
            return inline[:length]
        start = self.number(inline)
        return data[start : start + length] if start + length <= len(data) else None

    def chain(self, data: bytes, at: int) -> Iterator[Directory]:
        """Every directory from an offset on, at most ``MAX_DIRECTORIES``."""
        seen: set[int] = set()
        while at and at not in seen and len(seen) < MAX_DIRECTORIES:
            seen.add(at)
            directory, at = self.read(data, at)
            yield directory

    def classic_file(self, entries: dict[int, Entry], pixels: bytes) -> bytes:
        """A classic TIFF file of one directory behind ``pixels``, whose first 8 bytes become the file's header.

        Raises
        ------
        InvalidInputError
            It does not fit in 4 GiB.
        """
        start = len(pixels) + len(pixels) % 2
        at = start + 2 + 12 * len(entries) + 4
        packed, tail = [], bytearray()
        for tag, entry in ((tag, self._narrow(entry)) for tag, entry in sorted(entries.items())):
            packed.append(struct.pack(f"{self.order}HHI", tag, entry.type, len(entry.value) // SIZES[entry.type]))
            if len(entry.value) <= 4:
                packed.append(entry.value.ljust(4, b"\0"))
            else:
                packed.append(struct.pack(f"{self.order}I", at + len(tail)))
                tail += entry.value + bytes(len(entry.value) % 2)
        if at + len(tail) >= 2**32:
            raise InvalidInputError("unsupported TIFF image (of 4 GiB or more)")
        head = (b"II" if self.order == "<" else b"MM") + struct.pack(f"{self.order}HI", 42, start)
        counted = bytes(len(pixels) % 2) + struct.pack(f"{self.order}H", len(entries))
        return b"".join((head, memoryview(pixels)[8:], counted, *packed, bytes(4), tail))

    def _narrow(self, entry: Entry) -> Entry:
        """An entry in a type of classic TIFF; raises InvalidInputError where a value has more than 32 bits."""
        if entry.type not in (16, 17, 18):
            return entry
        numbers = Directory(self.order, {0: entry}).numbers(0)
        try:
            return Entry(4, struct.pack(f"{self.order}{len(numbers)}I", *numbers))
        except struct.error as error:
            raise InvalidInputError("damaged TIFF image (an offset is outside the file)") from error


def layout(data: bytes) -> tuple[Layout, int] | None:
    """How a TIFF file is laid out, and where its first directory is; None where it is no TIFF file."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return None
    big = data[2:4] in (b"\x2b\0", b"\0\x2b")
    found = Layout(order, big)
    return found, found.number(data[8:16] if big else data[4:8])


def orientation(exif: bytes) -> int:
    """The orientation that EXIF states, 1 to 8; 1 where it states none that is valid.

    Only the entry itself has to be intact.
    """
    start = next((at for at in (0, 4, 6) if exif[at : at + 2] in (b"II", b"MM")), 0)
    found = layout(exif[start:])
    if found is None:
        return 1
    directory, _ = found[0].read(exif[start:], found[1])
    return valid(directory.number(ORIENTATION, 1))


def valid(number: int) -> int:
    """An orientation of 1 to 8; 1 for any other number."""
    return number if 1 <= number <= 8 else 1
