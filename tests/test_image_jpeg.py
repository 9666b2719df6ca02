"""JPEG files without their end marker, of every kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from dcu.errors import InvalidInputError
from dcu.image import read_image

from .conftest import smooth_image
from .image_files import saved, segment, with_segments

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "baseline": ("RGB", {}),
    "gray": ("L", {}),
    "CMYK": ("CMYK", {}),
    "4:4:4, quality 100": ("RGB", {"subsampling": 0, "quality": 100}),
    "quality 1": ("RGB", {"quality": 1}),
    "progressive": ("RGB", {"progressive": True}),
    "progressive gray": ("L", {"progressive": True}),
    "restart markers": ("RGB", {"restart_marker_blocks": 3}),
    "progressive, restart markers": ("RGB", {"progressive": True, "restart_marker_rows": 1}),
}


def jpeg(kind: str) -> bytes:
    mode, options = KINDS[kind]
    noise = np.random.default_rng(0).integers(0, 60, (72, 88, 3))
    image = (smooth_image(72, 88) * 0.7 + noise).astype(np.uint8)
    return saved(Image.fromarray(image).convert(mode), "JPEG", **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tail", [b"", b"\xff", b"\xff\xff"])
def test_only_the_end_marker_is_missing(kind: str, tail: bytes, notes: list[str]) -> None:
    data = jpeg(kind)
    assert np.array_equal(read_image(data[:-2] + tail), read_image(data))
    assert notes == ["the JPEG end marker is missing; all pixels are there"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", [4, 5, 7, 12, 40, 0.1, 0.5])
def test_pixels_are_missing(kind: str, cut: float) -> None:
    data = jpeg(kind)
    with pytest.raises(InvalidInputError, match="damaged JPEG image"):
        read_image(data[: -(cut if isinstance(cut, int) else int(len(data) * cut))])


def test_scans_are_missing() -> None:
    data = jpeg("progressive")
    last = data.rindex(b"\xff\xda")
    tables = data.rindex(b"\xff\xc4")
    for cut in (last, tables):
        with pytest.raises(InvalidInputError):
            read_image(data[:cut])


def test_what_follows_the_image_is_left_out() -> None:
    data = jpeg("baseline")
    assert np.array_equal(read_image(data + b"\xff\xd8" + bytes(99)), read_image(data))


@pytest.mark.parametrize(
    ("marker", "bits", "named"), [(0xC1, 12, "12 bits"), (0xC3, 16, "16 bits"), (0xC5, 8, "5"), (0xF7, 8, "JPEG-LS")]
)
def test_unsupported_kinds_are_not_called_damaged(marker: int, bits: int, named: str) -> None:
    frame = segment(marker, bytes((bits, 0, 8, 0, 8, 1, 1, 0x11, 0)))
    with pytest.raises(InvalidInputError, match=rf"^unsupported.*{named}"):
        read_image(with_segments(b"\xff\xd8\xff\xd9", frame))
