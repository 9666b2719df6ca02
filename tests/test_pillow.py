"""Bitstreams as images of Pillow, after `dcu.register_pillow()` only."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

import dcu
from dcu.bitstream import Stream
from dcu.codec import Codec, codec_of
from dcu.errors import InvalidInputError
from dcu.image import ImageArray, psnr, read_image
from dcu.pillow import FORMAT, MIME

from .conftest import smooth_image, write_codec


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Other tests do not see the plugin."""
    Image.init()
    tables: tuple[dict[str, Any], ...] = (Image.OPEN, Image.SAVE, Image.EXTENSION, Image.MIME)
    names, before = Image.ID.copy(), [dict(table) for table in tables]
    dcu.register_pillow()
    dcu.register_pillow()
    yield
    Image.ID[:] = names
    for table, kept in zip(tables, before, strict=True):
        table.clear()
        table.update(kept)


@pytest.fixture(scope="module")
def data(codec: Codec) -> bytes:
    return codec.compress(smooth_image(40, 52))


@pytest.fixture(scope="module")
def large(codec: Codec) -> bytes:
    """With a thumbnail layer of 260 x 256 pixels."""
    return codec.compress(smooth_image(1024, 1040))


def test_import_registers_nothing() -> None:
    code = "import PIL.Image as i, dcu, dcu.pillow; i.init(); raise SystemExit('DCU' in i.OPEN)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_header_is_read_without_torch(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(data)
    code = """
import sys, dcu
from PIL import Image
dcu.register_pillow()
image = Image.open(sys.argv[1])
assert (image.size, image.mode, image.format) == ((52, 40), "RGB", "DCU")
raise SystemExit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.bin")], check=False).returncode == 0


@pytest.mark.parametrize("name", ["a.bin", "a.dcu", "a.jpg"])
def test_files(data: bytes, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    image = Image.open(path)
    assert (image.size, image.mode, image.format) == ((52, 40), "RGB", FORMAT)
    assert image.get_format_mimetype() == MIME
    assert np.array_equal(np.asarray(image), dcu.decode(data))
    assert image.fp is None, "the file is closed"
    with Image.open(path) as again:
        assert np.array_equal(np.asarray(again.crop((8, 0, 20, 9))), dcu.decode(data)[:9, 8:20])


def test_pixels_are_decoded_once_and_when_they_are_needed(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Stream] = []
    original = Codec.decode

    def decode(codec: Codec, data: Stream, *, thumbnail: bool) -> ImageArray:
        calls.append(data)
        return original(codec, data, thumbnail=thumbnail)

    monkeypatch.setattr(Codec, "decode", decode)
    image = Image.open(io.BytesIO(data))
    assert image.size == (52, 40)
    assert not calls
    image.convert("L"), image.load()
    assert len(calls) == 1


def test_thumbnails_take_the_thumbnail_layer(codec: Codec, large: bytes) -> None:
    small = codec.decode(large, thumbnail=True)
    image = Image.open(io.BytesIO(large))
    assert image.size == (1040, 1024)
    assert image.draft(None, (261, 100)) is None, "larger than the layer"
    assert image.draft(None, (260, 256)) == ("RGB", (0, 0, 260, 256))
    assert image.draft(None, (20, 20)) is None, "chosen already"
    assert np.array_equal(np.asarray(image), small)
    image = Image.open(io.BytesIO(large))
    image.thumbnail((64, 64))
    assert image.size == (64, 63)
    assert psnr(np.asarray(image), np.asarray(Image.fromarray(small).resize((64, 63)))) > 30
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(large))), codec.decode(large))


def test_invalid_headers_are_no_images(data: bytes) -> None:
    for bad in (b"", data[:2], data[:10], data[:2] + b"\x09" + data[3:], data[:8] + b"\xff" * 20):
        with pytest.raises(UnidentifiedImageError):
            Image.open(io.BytesIO(bad))


def test_damaged_streams_are_errors_of_pillow(data: bytes) -> None:
    other = bytes([data[4] ^ 1])
    for bad, said in ((data[:-1], "truncated"), (data[:30] + other + data[31:], "checksum")):
        with pytest.raises(OSError, match=said):
            Image.open(io.BytesIO(bad)).load()
        with pytest.raises(OSError, match=said):
            Image.open(io.BytesIO(bad)).verify()
    Image.open(io.BytesIO(data)).verify()


def test_a_codec_that_is_not_installed(own_models: Path) -> None:
    data = Codec.from_model(write_codec(own_models / "other", seed=7)).compress(smooth_image(8, 8))
    (own_models / "other" / "card.json").unlink()
    codec_of.cache_clear()
    image = Image.open(io.BytesIO(data))
    with pytest.raises(OSError, match="no codec with the fingerprint"):
        image.load()


def test_limits_of_pixels(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("DCU_MAX_PIXELS", "2079")
        with pytest.raises(Image.DecompressionBombError, match="52x40"):
            Image.open(io.BytesIO(data))
        patch.setenv("DCU_MAX_PIXELS", "2080")
        Image.open(io.BytesIO(data))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))


def test_saving(codec: Codec, tmp_path: Path, own_models: Path) -> None:
    image = Image.fromarray(smooth_image(40, 52))
    image.save(tmp_path / "a.dcu")
    assert (tmp_path / "a.dcu").read_bytes() == codec.compress(image)
    out = io.BytesIO()
    image.convert("L").save(out, "DCU")
    assert out.getvalue() == codec.compress(image.convert("L"))
    other = Codec.from_model(write_codec(own_models / "other", seed=7))
    image.save(tmp_path / "b.bin", codec="other")
    assert (tmp_path / "b.bin").read_bytes() == other.compress(image)
    with pytest.raises(ValueError, match="quality is 0 to 0"):
        image.save(tmp_path / "c.dcu", quality=70)
    with pytest.raises(OSError, match="not installed"):
        image.save(tmp_path / "c.dcu", codec="none")
    assert not (tmp_path / "c.dcu").exists()


def test_dcu_itself_reads_no_bitstreams_as_images(data: bytes) -> None:
    with pytest.raises(InvalidInputError, match="not an image"):
        read_image(data)
