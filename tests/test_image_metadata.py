"""Metadata cannot spoil pixels, and orientation is found whatever is wrong beside it."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dcu.image import read_image

from .conftest import smooth_image
from .image_files import Tag, chunk, directory, exif, png, saved, segment, tiff, with_segments

IMAGE = smooth_image(24, 40)
PIXELS = IMAGE.copy()
ORIENTATION: Tag = (274, 3, [6])
ALL = pytest.mark.parametrize("container", ["jpeg", "png", "webp", "tiff", "mpo"])
BAD_TAGS: dict[str, list[Tag]] = {
    "resolution unit is rational": [(296, 5, struct.pack("<II", 2, 1))],
    "resolution is short": [(282, 3, [72])],
    "camera is a number": [(271, 4, [7])],
    "date is short": [(306, 3, [1, 2, 3])],
    "text is not ASCII": [(270, 2, b"\xff\xfe\x00\x80")],
    "pointer to EXIF outside the file": [(34665, 4, [2**31])],
    "pointer to GPS is text": [(34853, 2, b"gps\0")],
    "XMP is a number": [(700, 4, [1])],
    "profile is text": [(34675, 2, b"no profile\0")],
    "unknown type": [(40000, 99, b"\0\0")],
    "copyright is floating point": [(33432, 11, struct.pack("<f", 1.5))],
}


def contained(container: str, stored: bytes, tags: list[Tag]) -> bytes:
    """IMAGE in a container with EXIF."""
    image = Image.fromarray(IMAGE)
    if container == "png":
        return png(IMAGE, 8, 2, chunk(b"eXIf", stored))
    if container == "tiff":
        return tiff((40, 24), 8, 2, [IMAGE.tobytes()], *tags, samples=3)
    if container == "webp":
        return saved(image, "WEBP", lossless=True, exif=stored)
    options = {"save_all": True, "append_images": [image]} if container == "mpo" else {}
    return with_segments(saved(image, container.upper(), quality=95, **options), segment(0xE1, b"Exif\0\0" + stored))


def close(image: np.ndarray, wanted: np.ndarray) -> bool:
    return image.shape == wanted.shape and np.abs(image.astype(int) - wanted).mean() < 6


@ALL
@pytest.mark.parametrize("bad", BAD_TAGS, ids=list(BAD_TAGS))
def test_orientation_beside_an_invalid_tag(container: str, bad: str) -> None:
    tags = [ORIENTATION, *BAD_TAGS[bad]]
    data = contained(container, exif(*tags), tags)
    assert close(read_image(data), np.rot90(IMAGE, -1))


@pytest.mark.parametrize("container", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("cut", [0, 4, 8, 20])
def test_orientation_in_truncated_exif(container: str, cut: int) -> None:
    stored = exif(ORIENTATION, (282, 5, bytes(8)), (305, 2, b"some program\0"))
    assert close(read_image(contained(container, stored[: len(stored) - cut], [])), np.rot90(IMAGE, -1))


@ALL
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("number", range(10))
def test_every_orientation(container: str, order: str, number: int) -> None:
    if container == "tiff":
        data = tiff((40, 24), 8, 2, [IMAGE.tobytes()], (274, 3, [number]), samples=3, order=order)
    else:
        data = contained(container, exif((274, 3, [number]), order=order), [])
    turned = {
        2: IMAGE[:, ::-1],
        3: IMAGE[::-1, ::-1],
        4: IMAGE[::-1],
        5: IMAGE.swapaxes(0, 1),
        6: np.rot90(IMAGE, -1),
        7: IMAGE[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(IMAGE),
    }
    assert close(read_image(data), turned.get(number, IMAGE))


@pytest.mark.parametrize("kind", [1, 3, 4])
def test_orientation_of_another_integer_type(kind: int) -> None:
    assert close(read_image(contained("jpeg", exif((274, kind, [6])), [])), np.rot90(IMAGE, -1))


def test_orientation_in_text_and_xmp() -> None:
    printed = b"\nexif\n      26\n" + (b"Exif\0\0" + exif(ORIENTATION)).hex().encode()
    xmp = b"<x:xmpmeta><rdf:Description tiff:Orientation='6'/></x:xmpmeta>"
    for before in (
        chunk(b"tEXt", b"Raw profile type exif\0" + printed),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(printed)),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)),
    ):
        assert np.array_equal(read_image(png(IMAGE, 8, 2, before)), np.rot90(IMAGE, -1))
    data = with_segments(saved(IMAGE, "JPEG", quality=95), segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp))
    assert close(read_image(data), np.rot90(IMAGE, -1))


BOMB = zlib.compress(bytes(40 << 20), 9)
CHUNKS = {
    "zTXt that unpacks to 40 MB": chunk(b"zTXt", b"Comment\0\0" + BOMB),
    "iTXt that unpacks to 40 MB": chunk(b"iTXt", b"Comment\0\1\0\0\0" + BOMB),
    "iCCP that unpacks to 40 MB": chunk(b"iCCP", b"name\0\0" + BOMB),
    "tEXt of 3 MB": chunk(b"tEXt", b"Comment\0" + b"a" * (3 << 20)),
    "many texts": chunk(b"tEXt", b"a\0b") * 1000,
    "zTXt by an unknown method": chunk(b"zTXt", b"Comment\0\7abc"),
    "zTXt that is no deflate": chunk(b"zTXt", b"Comment\0\0abc"),
    "iCCP by an unknown method": chunk(b"iCCP", b"name\0\7abc"),
    "iCCP without a profile": chunk(b"iCCP", b"name"),
    "profile that is none": chunk(b"iCCP", b"name\0\0" + zlib.compress(b"no profile")),
    "empty iTXt": chunk(b"iTXt", b""),
    "short gAMA": chunk(b"gAMA", b"\0"),
    "short cHRM": chunk(b"cHRM", b"\0"),
    "short pHYs": chunk(b"pHYs", b"\0"),
    "empty sRGB": chunk(b"sRGB", b""),
    "short acTL": chunk(b"acTL", b"\0"),
    "short fcTL": chunk(b"acTL", bytes(7) + b"\2") + chunk(b"fcTL", b"\0"),
    "frames out of order": chunk(b"acTL", bytes(3) + b"\2" + bytes(4)) + chunk(b"fcTL", b"\0\0\0\7" + bytes(22)),
    "short tRNS": chunk(b"tRNS", b"\0"),
    "palette of truecolor": chunk(b"PLTE", b"\0"),
    "EXIF that is none": chunk(b"eXIf", b"no exif"),
    "wrong checksum": chunk(b"tEXt", b"Comment\0x")[:-4] + b"oops",
    "tRNS with a wrong checksum": chunk(b"tRNS", bytes(6))[:-4] + b"oops",
    "unknown chunk": chunk(b"abCd", b"x" * 99),
}


@pytest.mark.parametrize("name", CHUNKS)
def test_ancillary_chunks_cannot_spoil_pixels(name: str) -> None:
    assert np.array_equal(read_image(png(IMAGE, 8, 2, CHUNKS[name])), IMAGE)


SEGMENTS = {
    "EXIF that is none": segment(0xE1, b"Exif\0\0no exif"),
    "short EXIF": segment(0xE1, b"Exif\0"),
    "empty APP1": segment(0xE1, b""),
    "short Adobe": segment(0xEE, b"Adobe"),
    "short JFIF": segment(0xE0, b"JFIF\0"),
    "profile in parts that miss one": segment(0xE2, b"ICC_PROFILE\0\2\5abc"),
    "short profile": segment(0xE2, b"ICC_PROFILE\0"),
    "index of several images that is none": segment(0xE2, b"MPF\0MM\0*\xff\xff\xff\xff"),
    "Photoshop data that are none": segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\x00\x00\xff\xff"),
    "comment of 60 kB": segment(0xFE, b"a" * 60000) * 3,
    "XMP that is none": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0\xff\xfe<"),
    "fill bytes": b"\xff\xff\xff" + segment(0xFE, b"x"),
}


@pytest.mark.parametrize("name", SEGMENTS)
@pytest.mark.parametrize("progressive", [False, True])
def test_segments_cannot_spoil_pixels(name: str, progressive: bool) -> None:
    plain = saved(IMAGE, "JPEG", progressive=progressive)
    assert np.array_equal(read_image(with_segments(plain, SEGMENTS[name])), read_image(plain))


@pytest.mark.parametrize("bad", BAD_TAGS, ids=list(BAD_TAGS))
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, 8])
def test_tags_cannot_spoil_pixels(bad: str, order: str, compression: int) -> None:
    pixels = IMAGE.tobytes() if compression == 1 else zlib.compress(IMAGE.tobytes())
    tags: list[Tag] = [(259, 3, [compression]), *BAD_TAGS[bad], (37724, 7, b"x" * 5000)]
    assert np.array_equal(read_image(tiff((40, 24), 8, 2, [pixels], *tags, samples=3, order=order)), IMAGE)


@pytest.mark.parametrize("format", ["AVIF", "WEBP"])
def test_invalid_exif_cannot_spoil_pixels(format: str) -> None:
    stored = exif((271, 2, b"maker of cameras\0"))
    data = saved(IMAGE, format, exif=stored, quality=90)
    broken = data.replace(stored[:8], b"no exif.")
    assert broken != data
    assert np.array_equal(read_image(broken), read_image(data))


def two_pages(order: str = "<", kind: int = 0) -> bytes:
    """A TIFF of two images; the second one's NewSubfileType is ``kind``."""
    first = tiff((40, 24), 8, 2, [IMAGE.tobytes()], samples=3, order=order)
    tags: list[Tag] = [(254, 4, [kind]), (256, 3, [1]), (257, 3, [1]), (258, 3, [8]), (262, 3, [1]), (273, 4, [8])]
    at = int.from_bytes(first[4:8], "little" if order == "<" else "big")
    entries = int.from_bytes(first[at : at + 2], "little" if order == "<" else "big")
    link = at + 2 + 12 * entries
    joined = first[:link] + struct.pack(f"{order}I", len(first)) + first[link + 4 :]
    return joined + directory(tags, len(first), order)


FRAMES = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
SEVERAL = {
    format: saved(FRAMES[0], format, save_all=True, append_images=FRAMES[1:])
    for format in ("GIF", "WEBP", "PNG", "TIFF", "AVIF")
}


@pytest.mark.parametrize("format", SEVERAL)
def test_several_images_are_noted(format: str, notes: list[str]) -> None:
    red, green, blue = read_image(SEVERAL[format])[4, 4].astype(int)
    assert red > 200
    assert green + blue < 100
    assert notes == ["3 images, the first is taken"]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "noted"), [(0, True), (2, True), (1, False), (4, False)])
def test_previews_and_masks_are_no_pages(order: str, kind: int, noted: bool, notes: list[str]) -> None:
    assert np.array_equal(read_image(two_pages(order, kind)), IMAGE)
    assert notes == ["2 images, the first is taken"] * noted


def test_single_images_are_not_noted(notes: list[str]) -> None:
    for format in ("GIF", "WEBP", "PNG", "TIFF", "AVIF", "MPO", "BMP", "ICO"):
        read_image(saved(IMAGE, format))
    assert notes == []
