"""The segments of a JPEG file: those that its pixels need, and what the others state."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from PIL import Image

from dcu.errors import InvalidInputError
from dcu.image.container import Container, log, xmp_orientation
from dcu.image.directory import Entry, layout, orientation

START, END, SCAN, JFIF, ADOBE, RESTART_INTERVAL = 0xD8, 0xD9, 0xDA, 0xE0, 0xEE, 0xDD
BARE = {0x01, *range(0xD0, 0xD9)}
"""Markers without a segment."""
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
UNSUPPORTED = {0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF}
"""Hierarchical frames, and arithmetic coding without loss."""
MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
RESTART = re.compile(rb"\xff[\xd0-\xd7]")
FILLERS = (0x00, 0xAA, 0x55, 0xFE, 0x6D)
"""Bytes that are appended to a truncated scan, to see whether they change the image."""
MULTIPLE_VIEWS = (0x020001, 0x020002, 0x020003)
"""Types of the images of a multi-picture file that are no previews: panorama, disparity, multiple angles."""


class Segment(NamedTuple):
    """A marker, the bytes of its segment, and the entropy-coded bytes that follow it."""

    marker: int
    body: bytes
    coded: bytes = b""


def segments(data: bytes) -> Iterator[Segment]:
    """The segments up to the end marker; raises InvalidInputError where one is truncated."""
    at = 2
    while (found := data.find(b"\xff", at)) >= 0:
        at = found + 1
        if at >= len(data):
            return
        marker = data[at]
        if marker in (0x00, 0xFF):
            continue
        at += 1
        if marker == END:
            yield Segment(END, b"")
            return
        if marker in BARE:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2 or at + length > len(data):
            raise InvalidInputError("damaged JPEG image (truncated segment)")
        body, at = data[at + 2 : at + length], at + length
        coded = at
        if marker == SCAN:
            following = MARKER.search(data, at)
            at = following.start() if following else len(data)
        yield Segment(marker, body, data[coded:at])


def parse(data: bytes, decode: Callable[[bytes], Image.Image]) -> Container:
    """The file without what its pixels do not need; ``decode`` decodes such a file.

    Raises
    ------
    InvalidInputError
        A JPEG of an unsupported kind, or one that is damaged.
    """
    found = list(segments(data))
    pixels = [one for one in found if needed(one)]
    for one in pixels:
        if one.marker in UNSUPPORTED or one.marker == 0xF7:
            kind = "JPEG-LS" if one.marker == 0xF7 else f"JPEG (coding process {one.marker - 0xC0})"
            raise InvalidInputError(f"unsupported image: {kind}")
        if one.marker in FRAMES and one.body[:1] not in (b"\x08", b""):
            raise InvalidInputError(f"unsupported image: JPEG of {one.body[0]} bits per sample")
    clean = joined(pixels)
    if not found or found[-1].marker != END:
        if not complete(pixels, decode):
            raise InvalidInputError("damaged JPEG image (truncated)")
        log.warning("the JPEG end marker is missing; all pixels are there")
    return Container("JPEG", clean, *stated(found))


def needed(segment: Segment) -> bool:
    """Whether a segment says anything about pixels."""
    if segment.marker == JFIF:
        return segment.body.startswith(b"JFIF\0") and len(segment.body) >= 14
    if segment.marker == ADOBE:
        return segment.body.startswith(b"Adobe") and len(segment.body) >= 12
    return not (0xE0 <= segment.marker <= 0xEF or segment.marker in (0xFE, END))


def joined(found: list[Segment], tail: bytes = b"") -> bytes:
    """A file of the segments."""
    parts = [b"\xff\xd8"]
    for marker, body, coded in found:
        parts += [bytes((0xFF, marker)), (len(body) + 2).to_bytes(2, "big"), body, coded]
    return b"".join((*parts, tail, b"\xff\xd9"))


def stated(found: list[Segment]) -> tuple[int, bytes | None, int]:
    """Orientation, ICC profile, and number of images."""
    turned, images, profile = 1, 1, {}
    for marker, body, _ in found:
        if marker == 0xE1 and body.startswith(b"Exif\0"):
            turned = orientation(body[6:]) if turned == 1 else turned
        elif marker == 0xE2 and body.startswith(b"ICC_PROFILE\0") and len(body) > 14:
            profile[body[12]] = body[14:]
        elif marker == 0xE2 and body.startswith(b"MPF\0"):
            images = views(body[4:])
    if turned == 1:
        turned = xmp_orientation(b"".join(s.body for s in found if s.marker == 0xE1 and s.body.startswith(b"http:")))
    return turned, b"".join(part for _, part in sorted(profile.items())) or None, images


def views(index: bytes) -> int:
    """How many images of a multi-picture file are no previews."""
    start = layout(index)
    if start is None:
        return 1
    listed = start[0].read(index, start[1])[0].entries.get(0xB002, Entry(7, b"")).value
    types = [start[0].number(listed[at : at + 4]) & 0xFFFFFF for at in range(0, len(listed) - 15, 16)]
    return max(1, sum(kind in MULTIPLE_VIEWS for kind in types))


def complete(pixels: list[Segment], decode: Callable[[bytes], Image.Image]) -> bool:
    """Whether a file that ends without its end marker has all its pixels.

    It has where they do not depend on what follows: files that go on differently decode to the same image.
    """
    if not pixels or pixels[-1].marker != SCAN or not all_coefficients(pixels):
        return False
    *others, last = pixels
    last = last._replace(coded=last.coded.rstrip(b"\xff"))
    restarts = len(RESTART.findall(last.coded))

    def going_on(filler: int) -> bytes:
        """The digest of the image where the coded bytes go on in one way, also behind the next restart markers."""
        more = b"".join(bytes([filler] * 64) + bytes((0xFF, 0xD0 + (restarts + i) % 8)) for i in range(8))
        return digest(decode(joined([*others, last], more + bytes([filler] * 64))))

    first, *more = FILLERS
    expected = going_on(first)
    return all(going_on(filler) == expected for filler in more)


def all_coefficients(pixels: list[Segment]) -> bool:
    """Whether the scans hold every coefficient of every component, at full precision."""
    components: dict[int, set[tuple[int, int]]] = {
        one.body[5]: set() for one in pixels if one.marker in FRAMES and len(one.body) > 5
    }
    if len(components) != 1:
        return False
    ((count, known),) = components.items()
    for _, body, _ in (one for one in pixels if one.marker == SCAN):
        number = body[0] if body else 0
        if len(body) < 4 + 2 * number:
            return False
        first, last, precision = body[1 + 2 * number : 4 + 2 * number]
        if precision & 15 == 0:
            known |= {(body[1 + 2 * i], k) for i in range(number) for k in range(first, min(last, 63) + 1)}
    return len(known) == 64 * count


def digest(image: Image.Image) -> bytes:
    """A hash of an image's pixels."""
    image.load()
    pixels = hashlib.blake2b()
    for top in range(0, image.height, 256):
        pixels.update(image.crop((0, top, image.width, min(top + 256, image.height))).tobytes())
    return pixels.digest()
