"""When and where a photograph was taken, as bitstreams of version 2 may keep it.

Metadata are records, one after the other: type (1 byte), length (LEB128), value. Type 1 is EXIF: a TIFF structure with
no other tags than ``TIMES`` and those of the GPS directory, compressed with zlib. Other types are passed over.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import Image
from PIL.ExifTags import IFD, Base

from dcu.bitstream import LARGEST_METADATA, read_number, write_number
from dcu.errors import InvalidInputError
from dcu.image import open_image

EXIF = 1
TIMES = (Base.DateTimeOriginal, Base.OffsetTimeOriginal, Base.SubsecTimeOriginal)
"""Of the EXIF directory."""
LATITUDE, LONGITUDE, ALTITUDE = (1, 2), (3, 4), (5, 6)
"""Tags of the GPS directory: the reference, and the number."""
HEIGHTS = {0: 1, 1: -1, 2: 1, 3: -1}
"""Signs of altitudes: 1 and 3 stand for below the ellipsoid or the sea."""
SIGNS: dict[tuple[int, int], dict[Any, int]] = {
    LATITUDE: {None: 1, "N": 1, "S": -1},
    LONGITUDE: {None: 1, "E": 1, "W": -1},
    ALTITUDE: {None: 1} | HEIGHTS | {bytes([reference]): sign for reference, sign in HEIGHTS.items()},
}
"""Of the references of each number."""
MOST = {LATITUDE: 90.0, LONGITUDE: 180.0}
"""Degrees."""


def of_file(data: bytes) -> bytes:
    """The metadata of an image file, as a bitstream holds them; empty where it has none that can be read."""
    found = Image.Exif()
    try:
        with quiet(), open_image(data) as image:
            exif = image.getexif()
            times, place = exif.get_ifd(IFD.Exif), exif.get_ifd(IFD.GPSInfo)
    except Exception:  # readers of EXIF raise nearly anything on damaged entries; the pixels may be intact
        return b""
    if kept := {int(tag): times[tag] for tag in TIMES if tag in times}:
        found.get_ifd(IFD.Exif).update(kept)
    if place:
        found.get_ifd(IFD.GPSInfo).update(place)
    if not kept and not place:
        return b""
    try:
        packed = zlib.compress(found.tobytes(), 9)
    except Exception:  # as above
        return b""
    record = bytes([EXIF]) + write_number(len(packed)) + packed
    return record if len(record) <= LARGEST_METADATA else b""


def quiet() -> warnings.catch_warnings[None]:
    """Without Pillow's warnings of damaged EXIF."""
    return warnings.catch_warnings(action="ignore")


def records(metadata: bytes) -> Iterator[tuple[int, bytes]]:
    """The type and value of each record; raises InvalidInputError."""
    view, at = memoryview(metadata), 0
    while at < len(view):
        kind = view[at]
        length, start = read_number(view, at + 1)
        at = start + length
        if at > len(view):
            raise InvalidInputError("a metadata record is truncated")
        yield kind, bytes(view[start:at])


def exif_of(metadata: bytes) -> bytes:
    """The EXIF that a bitstream's metadata hold, empty if none; raises InvalidInputError."""
    for kind, value in records(metadata):
        if kind == EXIF:
            inflater = zlib.decompressobj()
            try:
                exif = inflater.decompress(value, LARGEST_METADATA)
            except zlib.error as error:
                raise InvalidInputError("the metadata are damaged") from error
            if not inflater.eof:
                raise InvalidInputError("the metadata are larger than 2^20 bytes or truncated")
            return exif
    return b""


def facts(metadata: bytes) -> dict[str, str | float]:
    """What metadata say; raises InvalidInputError.

    ``taken``: as EXIF has it; ``latitude``, ``longitude`` in degrees; ``altitude`` in m.
    """
    exif = Image.Exif()
    try:
        with quiet():
            exif.load(exif_of(metadata))
            times, place = exif.get_ifd(IFD.Exif), exif.get_ifd(IFD.GPSInfo)
    except InvalidInputError:
        raise
    except Exception as error:
        raise InvalidInputError("the metadata are damaged") from error
    found: dict[str, str | float] = {}
    if time := times.get(Base.DateTimeOriginal):
        found["taken"] = f"{time}{times.get(Base.OffsetTimeOriginal, '')}"
    for name, tags in (("latitude", LATITUDE), ("longitude", LONGITUDE), ("altitude", ALTITUDE)):
        number = signed(SIGNS[tags], place.get(tags[0]), place.get(tags[1]))
        if number is not None and abs(number) <= MOST.get(tags, math.inf):
            found[name] = number
    return found


def signed(signs: dict[Any, int], reference: Any, value: Any) -> float | None:
    """Degrees, minutes and seconds, or meters, as one number; None where it is not one, or of no known reference."""
    try:
        parts = [float(part) for part in value] if isinstance(value, tuple) else [float(value)]
        number = sum((part / 60.0**index for index, part in enumerate(parts)), 0.0)
        return round(signs[reference] * number, 7) if math.isfinite(number) else None
    except (TypeError, ValueError, ZeroDivisionError, KeyError):
        return None
