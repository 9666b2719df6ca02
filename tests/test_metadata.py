"""When and where a photograph was taken: kept with --metadata alone, shown by info, restored by decode."""

from __future__ import annotations

import contextlib
import io
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import IFDRational

from dcu import bitstream, metadata, store
from dcu.bitstream import write_number
from dcu.errors import InvalidInputError

from .conftest import Dcu, one_line, smooth_image, write_variable_rate_codec

GPS: dict[int, Any] = {1: "S", 2: (33.0, 51.0, 30.0), 3: "E", 4: (151.0, 12.0, 36.0), 5: b"\x00", 6: 12.5}


def photograph(format: str = "JPEG", make: str = "Camera") -> bytes:
    exif, out = Image.Exif(), io.BytesIO()
    exif[Base.Make] = make
    exif[Base.Orientation] = 1
    exif.get_ifd(IFD.Exif).update({Base.DateTimeOriginal: "2026:05:01 12:30:00", Base.OffsetTimeOriginal: "+10:00"})
    exif.get_ifd(IFD.GPSInfo).update(GPS)
    Image.fromarray(smooth_image(40, 52)).save(out, format, exif=exif)
    return out.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_time_and_place_are_kept_and_nothing_else(format: str) -> None:
    kept = metadata.of_file(photograph(format, make="secret" * 100))
    assert metadata.facts(kept) == {
        "taken": "2026:05:01 12:30:00+10:00",
        "latitude": pytest.approx(-33.8583333),
        "longitude": pytest.approx(151.21),
        "altitude": 12.5,
    }
    assert b"secret" not in metadata.exif_of(kept)
    assert len(kept) < 300


def test_files_without_or_with_damaged_metadata_have_none() -> None:
    out = io.BytesIO()
    Image.fromarray(smooth_image(8, 8)).save(out, "PNG")
    assert metadata.of_file(out.getvalue()) == b""
    image = photograph()
    start = image.index(b"Exif\0\0") + 6
    assert metadata.of_file(image[:start] + b"XX" + image[start + 2 :]) == b""
    assert metadata.of_file(b"no image") == b""


@pytest.mark.parametrize(
    "value",
    [
        b"no zlib",
        zlib.compress(b"x" * 100)[:-3],
        zlib.compress(bytes(2**20 + 1)),
        zlib.compress(b"MM\0*\0\0\0\x08\0\x01"),
    ],
)
def test_damaged_metadata_are_refused_or_empty(value: bytes) -> None:
    record = bytes([metadata.EXIF]) + write_number(len(value)) + value
    with contextlib.suppress(InvalidInputError):
        assert metadata.facts(record) == {}
    with pytest.raises(InvalidInputError):
        metadata.facts(record[:-1])


def test_a_place_that_is_no_number_is_left_out() -> None:
    """As cameras write it that do not know where they are."""
    exif, out = Image.Exif(), io.BytesIO()
    unknown = IFDRational(0, 0)
    exif.get_ifd(IFD.GPSInfo).update({1: "N", 2: (unknown, unknown, unknown), 5: b"\x00", 6: unknown})
    Image.fromarray(smooth_image(40, 52)).save(out, "JPEG", exif=exif)
    assert metadata.facts(metadata.of_file(out.getvalue())) == {}


@pytest.mark.parametrize(
    "place", [{1: "N", 2: (999.0, 99.0, 99.0)}, {3: "W", 4: (181.0, 0.0, 0.0)}, {1: "E", 2: (33.0, 0.0, 0.0)}]
)
def test_a_place_that_does_not_exist_is_left_out(place: dict[int, Any]) -> None:
    exif, out = Image.Exif(), io.BytesIO()
    exif.get_ifd(IFD.GPSInfo).update(place)
    Image.fromarray(smooth_image(40, 52)).save(out, "JPEG", exif=exif)
    assert metadata.facts(metadata.of_file(out.getvalue())) == {}


@pytest.mark.parametrize(("reference", "altitude"), [(b"\x02", 12.5), (b"\x03", -12.5)])
def test_altitudes_by_sea_level(reference: bytes, altitude: float) -> None:
    exif, out = Image.Exif(), io.BytesIO()
    exif.get_ifd(IFD.GPSInfo).update({5: reference, 6: 12.5})
    Image.fromarray(smooth_image(40, 52)).save(out, "JPEG", exif=exif)
    assert metadata.facts(metadata.of_file(out.getvalue())) == {"altitude": altitude}


def test_records_of_unknown_types_are_passed_over() -> None:
    assert metadata.facts(b"\x09\x02ab" + metadata.of_file(photograph()))["altitude"] == 12.5


def test_through_the_commands(dcu: Dcu, own_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(store.DEFAULTS, "codec", "codec-2")
    write_variable_rate_codec(own_models / "codec-2")
    image, out, back = tmp_path / "photo.jpg", tmp_path / "photo.bin", tmp_path / "back.jpg"
    image.write_bytes(photograph())
    assert dcu("compress", image, "-o", out, "--quality", "20").code == 0
    assert bitstream.read(out.read_bytes()).header.metadata == b""
    assert dcu("compress", image, "-o", out, "--quality", "20", "--metadata", "--force").code == 0
    (facts,) = dcu("info", out, "--json").lines
    assert facts["metadata"]["taken"] == "2026:05:01 12:30:00+10:00"
    assert "latitude -33.8583333" in dcu("info", out).out
    for name in (back, tmp_path / "back.png"):
        assert dcu("decode", out, "-o", name).code == 0
        assert metadata.facts(metadata.of_file(name.read_bytes()))["altitude"] == 12.5
    assert dcu("decode", out, "-o", tmp_path / "back.bmp").code == 0


def test_codecs_of_version_1_keep_none(dcu: Dcu, photo: Path, tmp_path: Path) -> None:
    ran = dcu("compress", photo, "-o", tmp_path / "photo.bin", "--metadata", "--codec", "codec-0.0983")
    assert ran.code == 2
    assert one_line(ran.err)
