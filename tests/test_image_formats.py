"""Which formats are read and written, and under which extensions."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dcu.cli.formats import app
from dcu.data import Item, Pair
from dcu.errors import InvalidInputError, OutputError, UnavailableError, UsageError
from dcu.image import FORMATS, SUFFIXES, encoder, open_image, read_image

from .conftest import png, smooth_image
from .image_files import saved

Image.init()
REGISTERED = dict(Image.registered_extensions())
BY_NAME = {format.name: format for format in FORMATS}
NOT_READ = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "PALM", "PDF", "WMF"}
GHOSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"


def test_every_format_of_pillow_is_read_or_left_out() -> None:
    assert set(Image.OPEN) - set(BY_NAME) <= NOT_READ
    assert set(BY_NAME) - set(Image.OPEN) <= {"HEIF", "JXL"}
    assert not set(BY_NAME) & NOT_READ


def test_every_extension_of_these_formats_is_searched_for() -> None:
    renamed = {"MPO": "JPEG"}
    for extension, name in REGISTERED.items():
        name = renamed.get(name, name)
        assert (extension in SUFFIXES) == (name in BY_NAME), extension
        if name in BY_NAME:
            assert extension in BY_NAME[name].extensions
    for format in FORMATS:
        assert set(format.written) <= set(format.extensions)


MAGIC = {
    ".ppm": b"P6",
    ".pnm": b"P6",
    ".j2k": b"\xff\x4f\xff\x51",
    ".j2c": b"\xff\x4f\xff\x51",
    ".jpc": b"\xff\x4f\xff\x51",
    ".jp2": b"\0\0\0\x0cjP  ",
}


@pytest.mark.parametrize("extension", sorted({*REGISTERED, *SUFFIXES, ".docx", ".bin", ".eps", ".pdf"}))
def test_extension_decides_the_format_or_is_refused(extension: str) -> None:
    written = {e: format.name for format in FORMATS for e in format.written}
    if extension not in written:
        with pytest.raises(UsageError, match=extension) as caught:
            encoder(Path(f"a{extension}"))
        assert caught.value.exit_code == 2
        return
    image = smooth_image(40, 56)
    data = encoder(Path(f"a{extension.upper()}"))(image)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.format == REGISTERED[extension] == written[extension]
    assert data.startswith(MAGIC.get(extension, b""))
    decoded = read_image(data)
    assert decoded.shape == image.shape
    assert np.abs(decoded.astype(int) - image).mean() < (12 if extension == ".gif" else 5)


def test_no_extension_is_png() -> None:
    assert encoder(Path("noending"))(smooth_image(4, 4))[:4] == b"\x89PNG"


@pytest.mark.parametrize("name", ["a.webp", "a.jpg", "a.gif", "a.tga"])
def test_too_large_for_the_format(name: str) -> None:
    with pytest.raises(OutputError):
        encoder(Path(name))(np.zeros((1, 70_000, 3), np.uint8))


def test_everything_that_pillow_writes_is_read_under_its_extension() -> None:
    """What `folder-with-other-endings` is about: images of every searched extension."""
    for extension in sorted(SUFFIXES & set(REGISTERED)):
        name = REGISTERED[extension]
        if name in Image.SAVE and name not in ("BLP", "MSP", "XBM", "PALM"):
            assert read_image(saved(smooth_image(16, 16), name)).shape[2] == 3, extension


@pytest.mark.parametrize("length", range(1, 17))
@pytest.mark.parametrize("text", [b"bad", b"\xff", b"\0", b"hello, world"])
def test_a_few_bytes_are_no_image(text: bytes, length: int) -> None:
    with pytest.raises(InvalidInputError, match="not an image in a supported format"):
        read_image((text * 16)[:length])


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (GHOSTSCRIPT, "EPS"),
        (b"\xc5\xd0\xd3\xc6" + bytes(28) + GHOSTSCRIPT, "EPS"),
        (b"%PDF-1.7\n", "PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?>\n<svg/>", "SVG"),
        (b"\xd7\xcd\xc6\x9a" + bytes(40), "WMF"),
        (b"GRIB" + bytes(40), "GRIB"),
        (b"BUFR" + bytes(40), "BUFR"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
        (b"v/1\x01" + bytes(40), "OpenEXR"),
        (b"II\xbc\x01" + bytes(40), "JPEG XR"),
        (b"\x00\x00\x01\xb3" + bytes(40), "MPEG"),
    ],
)
def test_other_formats_are_named_and_not_called_damaged(data: bytes, named: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"^unsupported format: {named}"):
        read_image(data)


def test_label_maps_are_images_of_few_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EPS would have Ghostscript run."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("Ghostscript runs"))
    numbers = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for name, data in {
        "a.png": saved(numbers, "PNG"),
        "a.tif": saved(numbers, "TIFF"),
        "a.eps": GHOSTSCRIPT,
        "a.jpg": saved(numbers, "JPEG"),
    }.items():
        (tmp_path / name).write_bytes(data)
        item = Item("set", f"labels/{name}", tmp_path / name, 0, len(data))
        if name in ("a.png", "a.tif"):
            assert np.array_equal(Pair(item, item).classes(), numbers)
        else:
            with pytest.raises(InvalidInputError, match=f"set/labels/{name}: not a label map"):
                Pair(item, item).classes()


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
JXL = b"\xff\x0a\x01\x00\x10" + bytes(40)


@pytest.mark.parametrize(("data", "package"), [(HEIC, "pillow_heif"), (JXL, "pillow_jxl")])
def test_missing_plugin_is_named(data: bytes, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"{package}.JpegXLImagePlugin", raising=False)
    with pytest.raises(UnavailableError, match=r'images need pillow-.*: pip install "dcu-codec\[formats\]"'):
        read_image(data)


def test_heic() -> None:
    heif = pytest.importorskip("pillow_heif")
    image = smooth_image(64, 80)
    out = io.BytesIO()
    try:
        heif.from_pillow(Image.fromarray(image)).save(out, quality=95)
    except Exception:
        pytest.skip("this pillow-heif cannot write")
    assert np.abs(read_image(out.getvalue()).astype(int) - image).mean() < 3
    with pytest.raises(InvalidInputError):
        read_image(HEIC)


def test_jpeg_xl(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = pytest.importorskip("pillow_jxl")
    image = smooth_image(64, 80)
    for lossless, error in ((False, 20), (True, 0)):
        data = plugin.Encoder(mode="RGB", lossless=lossless)(image.tobytes(), 80, 64, False, b"", b"", b"", False)
        assert np.abs(read_image(data).astype(int) - image).mean() <= error
        monkeypatch.setenv("DCU_MAX_PIXELS", "5119")
        with pytest.raises(InvalidInputError, match="80x64 is more than 5119"):
            read_image(data)
        monkeypatch.delenv("DCU_MAX_PIXELS")
    with pytest.raises(InvalidInputError):
        read_image(JXL)


def test_size_of_jpeg_xl_is_read_before_anything_is_decoded() -> None:
    huge = int.from_bytes(b"\x06", "little") | (2**30 - 1) << 3
    with pytest.raises(InvalidInputError, match="pixels"):
        read_image(b"\xff\x0a" + huge.to_bytes(12, "little"))


def test_open_image_reads_no_other_format() -> None:
    with pytest.raises(InvalidInputError):
        open_image(png(smooth_image(4, 4)), ("JPEG",))
    assert open_image(png(smooth_image(4, 4)), ("JPEG", "PNG")).size == (4, 4)


def test_list() -> None:
    listed = CliRunner().invoke(app, ["--json"]).stdout
    assert '{"format": "PNG", "read": [".apng", ".png"], "write": [".png"], "extra": null}' in listed
    assert '"HEIF", "read": [".heic", ".heif", ".hif"], "write": [], "extra": "formats"}' in listed
    assert ".jfif .jpe .jpeg .jpg" in CliRunner().invoke(app, []).stdout
