"""Samples of all widths and kinds, in PNG and TIFF: scaled, not inverted, not black; and the transparent color."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress
from itertools import pairwise
from threading import Thread
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dcu.errors import InvalidInputError
from dcu.image import libtiff, read_image, samples

from .image_files import chunk, pack, png, saved, tiff

HEIGHT, WIDTH = 21, 36
SIZE = (WIDTH, HEIGHT)
RAMP = np.linspace(0, 1, WIDTH)[None].repeat(HEIGHT, 0)
COLORS = np.stack([RAMP, RAMP[:, ::-1], RAMP[:, ::-1] / 2], 2)
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
BACKGROUND = np.array([200, 10, 60])
ORDERS = pytest.mark.parametrize("order", ["<", ">"])


def gray(values: NDArray[Any]) -> NDArray[Any]:
    return values[..., None].repeat(3, -1)


def close(image: NDArray[Any], wanted: NDArray[Any], by: float = 1.01) -> bool:
    return image.shape == wanted.shape and bool(np.abs(image.astype(float) - wanted).max() <= by)


def rows(values: NDArray[Any], bits: int, kind: int, order: str) -> bytes:
    """Values of 0 to 1 as samples."""
    flat = values.reshape(len(values), -1)
    if kind == FLOAT:
        return flat.astype(f"{order}f{bits // 8}").tobytes()
    most = 2 ** (bits - (kind == SIGNED)) - 1
    return pack(np.rint(flat.astype(np.longdouble) * most).astype(np.uint64), bits, order)


def test_rows_are_unpacked_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiff(SIZE, 12, 1, [rows(RAMP, 12, UNSIGNED, "<")], order="<")
    whole = read_image(data)
    monkeypatch.setattr(samples, "BITS_AT_ONCE", 12 * RAMP.shape[1] * 3)
    assert np.array_equal(read_image(data), whole)


@ORDERS
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("bits", "kind"),
    [(n, UNSIGNED) for n in (8, 10, 12, 14, 16, 24, 32, 64)]
    + [(n, SIGNED) for n in (8, 12, 16, 32, 64)]
    + [(n, FLOAT) for n in (16, 32, 64)],
)
def test_gray_of_any_width(bits: int, kind: int, photometric: int, order: str, big: bool) -> None:
    data = tiff(SIZE, bits, photometric, [rows(RAMP, bits, kind, order)], (339, 3, [kind]), order=order, big=big)
    expected = RAMP if photometric else 1 - RAMP
    assert close(read_image(data), gray(expected * 255), 2.1 if (bits, kind) == (8, SIGNED) else 1.01)


@ORDERS
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_signed_samples_below_zero_are_dark(bits: int, order: str) -> None:
    values = np.rint((RAMP * 2 - 1) * (2 ** (bits - 1) - 1)).astype(f"{order}i{bits // 8}")
    data = tiff(SIZE, bits, 1, [values.tobytes()], (339, 3, [SIGNED]), order=order)
    assert close(read_image(data), gray(RAMP * 255), 2)


@ORDERS
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("alpha", [None, 1, 2])
@pytest.mark.parametrize(("bits", "kind"), [(8, UNSIGNED), (12, UNSIGNED), (16, UNSIGNED), (32, FLOAT)])
def test_colors_and_opacity(bits: int, kind: int, alpha: int | None, planar: bool, order: str) -> None:
    opacity = np.linspace(0.5, 1, HEIGHT)[:, None].repeat(WIDTH, 1)
    stored = COLORS * opacity[..., None] if alpha == 1 else COLORS
    values = stored if alpha is None else np.concatenate([stored, opacity[..., None]], 2)
    samples = values.shape[2]
    planes = [values[..., i] for i in range(samples)] if planar else [values]
    more = [(339, 3, [kind] * samples), (284, 3, [1 + planar]), (278, 4, [HEIGHT])]
    more += [] if alpha is None else [(338, 3, [alpha])]
    data = tiff(SIZE, bits, 2, [rows(p, bits, kind, order) for p in planes], *more, samples=samples, order=order)
    wanted = COLORS * 255
    if alpha is not None:
        wanted = wanted * opacity[..., None] + BACKGROUND * (1 - opacity[..., None])
    assert close(read_image(data, "#c80a3c"), wanted, 3)


def differences(values: NDArray[Any]) -> NDArray[Any]:
    """Each sample less the one before, modulo its range."""
    return np.concatenate([values[:, :1], values[:, 1:] - values[:, :-1]], 1)


@ORDERS
@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("bits", [16, 32])
def test_horizontal_predictor(bits: int, tiled: bool, order: str) -> None:
    values = np.rint(RAMP * (2**bits - 1)).astype(f"u{bits // 8}")
    more: list[Any] = [(317, 3, [2]), (259, 3, [8])]
    if tiled:
        more += [(322, 3, [16]), (323, 3, [16])]
        padded = np.pad(values, ((0, -HEIGHT % 16), (0, -WIDTH % 16)))
        parts = [padded[y : y + 16, x : x + 16] for y in range(0, HEIGHT, 16) for x in range(0, WIDTH, 16)]
    else:
        parts = [values[y : y + 7] for y in range(0, HEIGHT, 7)]
    pieces = [zlib.compress(differences(part).astype(f"{order}u{bits // 8}").tobytes()) for part in parts]
    assert close(read_image(tiff(SIZE, bits, 1, pieces, *more, order=order)), gray(RAMP * 255))


@ORDERS
def test_floating_point_predictor(order: str) -> None:
    planes = RAMP.astype(">f4").view(np.uint8).reshape(HEIGHT, WIDTH, 4).swapaxes(1, 2).reshape(HEIGHT, -1)
    pieces = [zlib.compress(differences(planes).tobytes())]
    data = tiff(SIZE, 32, 1, pieces, (317, 3, [3]), (259, 3, [8]), (339, 3, [FLOAT]), order=order)
    assert close(read_image(data), gray(RAMP * 255))


@ORDERS
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_tiles_without_compression(bits: int, order: str) -> None:
    values = np.pad(np.rint(COLORS * (2**bits - 1)), ((0, -HEIGHT % 16), (0, -WIDTH % 32), (0, 0)))
    parts = [values[y : y + 16, x : x + 32] for y in range(0, HEIGHT, 16) for x in range(0, WIDTH, 32)]
    pieces = [pack(part.reshape(16, -1), bits, order) for part in parts]
    data = tiff(SIZE, bits, 2, pieces, (322, 3, [32]), (323, 3, [16]), samples=3, order=order)
    assert close(read_image(data), COLORS * 255)


@pytest.mark.parametrize("scale", [1, 255, 1023, 4095, 65535])
@pytest.mark.parametrize("outlier", [1.5, 50, np.inf, -3, -np.inf])
def test_floating_point_scale_survives_outliers(scale: float, outlier: float) -> None:
    values = (RAMP * scale).astype("<f4")
    values[3, 3] = scale * outlier
    image = read_image(tiff(SIZE, 32, 1, [values.tobytes()], (339, 3, [FLOAT])))
    assert image[3, 3, 0] == (255 if outlier > 0 else 0)
    image[3, 3] = gray(RAMP * 255)[3, 3]
    assert close(image, gray(RAMP * 255))


def test_samples_that_are_not_numbers_are_noted(notes: list[str]) -> None:
    values = RAMP.astype("<f4")
    values[5, 5] = np.nan
    assert read_image(tiff(SIZE, 32, 1, [values.tobytes()], (339, 3, [FLOAT])))[5, 5].tolist() == [0, 0, 0]
    assert notes == ["1 samples are not numbers; they are black"]


def test_wide_integers_that_hold_16_bits() -> None:
    values = np.rint(RAMP * 65535).astype("<u4")
    assert close(read_image(tiff(SIZE, 32, 1, [values.tobytes()])), gray(RAMP * 255))


@ORDERS
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("wide", [False, True])
def test_color_maps_of_8_and_16_bits(bits: int, wide: bool, order: str) -> None:
    count = 2**bits
    palette = np.random.default_rng(0).integers(0, 256, (count, 3))
    palette[0] = 255
    indices = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % count
    entries = (palette.T * (257 if wide else 1)).ravel().tolist()
    data = tiff(SIZE, bits, 3, [pack(indices, bits)], (320, 3, entries), order=order)
    assert np.array_equal(read_image(data), palette[indices])


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("color", "bits"),
    [*((0, n) for n in (1, 2, 4, 8, 16)), *((2, n) for n in (8, 16)), *((3, n) for n in (1, 2, 4, 8))],
)
def test_transparent_color_of_png(color: int, bits: int, interlaced: bool) -> None:
    chance = np.random.default_rng(bits)
    samples = chance.integers(0, 2**bits, (HEIGHT, WIDTH, 3 if color == 2 else 1))
    key = samples[0, 0].copy()
    samples[:5] = key
    if bits == 16:
        samples[6, :, -1] = key[-1] ^ 1  # another color, of which eight bits are the same
    hidden = (samples == key).all(2)
    shown = gray(samples[..., 0]) if color == 0 else samples
    before = chunk(b"tRNS", key.astype(">u2").tobytes())
    if color == 3:
        palette = chance.integers(0, 256, (2**bits, 3))
        opaque = [0 if i == key[0] else 255 for i in range(2**bits)]
        before = chunk(b"PLTE", palette.astype(np.uint8).tobytes()) + chunk(b"tRNS", bytes(opaque))
        shown = palette[samples[..., 0]]
    wanted = np.where(hidden[..., None], BACKGROUND, shown if color == 3 else shown * (255 / (2**bits - 1)))
    assert close(read_image(png(samples, bits, color, before, interlaced), "#c80a3c"), wanted)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_only_the_low_bits_of_a_transparent_color_count(bits: int) -> None:
    samples = np.zeros((4, 4, 1), np.int64)
    before = chunk(b"tRNS", struct.pack(">H", 2**bits))
    assert read_image(png(samples, bits, 0, before), "red")[0, 0].tolist() == [255, 0, 0]


def test_transparency_of_gif() -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((10, 200, 30, 255), (4, 0, 8, 8))
    shown = read_image(saved(image, "GIF"), "#c80a3c")
    assert np.array_equal(shown[0, 0], BACKGROUND)
    assert close(shown[0, 7], np.array([10, 200, 30]), 5)


@pytest.mark.parametrize("rows", [1000, 10])
@pytest.mark.usefixtures("notes")
@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_damaged_fax_data_are_refused(compression: str, rows: int, capfd: pytest.CaptureFixture[str]) -> None:
    text = np.random.default_rng(0).random((64, 512)) < np.linspace(0, 0.2, 512)
    for page in (text, ~text):
        data = saved(Image.fromarray(page), "TIFF", compression=compression, strip_size=rows * 64)
        assert np.array_equal(read_image(data)[..., 0] > 0, page)
        for seed in range(10):
            broken = bytearray(data)
            for at in np.random.default_rng(seed).integers(8 + 200, 8 + 1000, 12):
                broken[at] ^= 0x5A
            with pytest.raises(InvalidInputError, match="TIFF image"):
                read_image(bytes(broken))
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("notes")
@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"])
def test_libtiff_prints_nothing(compression: str, capfd: pytest.CaptureFixture[str]) -> None:
    image = Image.fromarray((COLORS * 255).astype(np.uint8).repeat(4, 0).repeat(4, 1))
    data = saved(image.convert("1") if compression == "group4" else image, "TIFF", compression=compression)
    for seed in range(30):
        broken = bytearray(data)
        for at in np.random.default_rng(seed).integers(8, len(data), 10):
            broken[at] ^= 0xFF
        with suppress(InvalidInputError):
            read_image(bytes(broken))
    assert capfd.readouterr().err == ""


def test_libtiff_errors_of_other_threads_are_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(saved(Image.fromarray((RAMP * 255).astype(np.uint8)), "TIFF", compression="tiff_lzw"))
    data[40:80] = b"\xff" * 40

    def decode() -> None:
        with pytest.raises(OSError, match="decoder error"):
            Image.open(io.BytesIO(data)).load()

    with libtiff.errors() as errors:
        host = Thread(target=decode)
        host.start()
        host.join()
        assert errors == []
        assert "code not yet in table" in capfd.readouterr().err
        decode()
        assert errors
        assert capfd.readouterr().err == ""
    decode()
    assert "code not yet in table" in capfd.readouterr().err


def test_16_bit_gray_is_even() -> None:
    """Neighboring values stay in order."""
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for data in (saved(values, "PNG"), saved(values, "TIFF")):
        flat = read_image(data)[..., 0].ravel()
        assert all(a <= b for a, b in pairwise(flat))
        assert np.array_equal(flat, np.rint(values.ravel() / 257))
