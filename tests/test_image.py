from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from dcu.errors import BrokenInputError, OutputError, UsageError
from dcu.image import MAX_PIXELS, encoder, field_crop, field_size, pad, read_picture

from .conftest import png, smooth_picture


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def test_orientation_is_applied() -> None:
    picture = smooth_picture(20, 30)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    data = saved(Image.fromarray(picture), "PNG", exif=exif)
    assert np.array_equal(read_picture(data), np.rot90(picture, -1))


def test_transparency_is_laid_on_the_background() -> None:
    clear = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    assert read_picture(saved(clear, "PNG"))[0, 0].tolist() == [255, 255, 255]
    assert read_picture(saved(clear, "PNG"), "#204060")[0, 0].tolist() == [32, 64, 96]
    palette = Image.new("P", (2, 2))
    palette.putpalette([9, 9, 9])
    assert read_picture(saved(palette, "PNG", transparency=0), "red")[1, 1].tolist() == [255, 0, 0]
    with pytest.raises(UsageError):
        read_picture(saved(clear, "PNG"), "no colour")


@pytest.mark.parametrize("value", [0, 256, 30000, 65535])
def test_grey_of_16_bits_is_scaled(value: int) -> None:
    data = saved(Image.fromarray(np.full((3, 4), value, np.uint16)), "PNG")
    assert read_picture(data)[0, 0].tolist() == [round(value / 257)] * 3


def test_floating_point_grey() -> None:
    data = saved(Image.fromarray(np.full((3, 4), 0.5, np.float32)), "TIFF")
    assert read_picture(data)[2, 3].tolist() == [128] * 3


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "CMYK", "YCbCr", "RGB"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    format = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    picture = read_picture(saved(Image.new("RGB", (5, 4), "white").convert(mode), format))
    assert picture.shape == (4, 5, 3)
    assert picture.dtype == np.uint8
    assert (picture > 250).all()


def swapped_profile() -> bytes:
    """sRGB with red and green exchanged: their two entries in the profile's table of tags are."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = data.index(b"rXYZ") + 4, data.index(b"gXYZ") + 4
    data[red : red + 8], data[green : green + 8] = data[green : green + 8], data[red : red + 8]
    return bytes(data)


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA"])
def test_profile_is_converted_to_srgb(mode: str) -> None:
    red = Image.new("RGB", (4, 4), "red").convert(mode)
    red_as_green = read_picture(saved(red, "PNG", icc_profile=swapped_profile()))[0, 0]
    assert np.abs(red_as_green.astype(int) - [0, 255, 0]).max() <= 2


def test_background_is_not_converted_by_the_profile() -> None:
    clear = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    assert read_picture(saved(clear, "PNG", icc_profile=swapped_profile()), "red")[0, 0].tolist() == [255, 0, 0]


def test_broken_profile_and_broken_exif_say_nothing() -> None:
    plain = smooth_picture(8, 8)
    for options in ({"icc_profile": b"no profile"}, {"exif": b"Exif\x00\x00no exif"}):
        assert np.array_equal(read_picture(saved(Image.fromarray(plain), "PNG", **options)), plain)


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_picture(data)[0, 0].tolist() == [255, 0, 0]


def truncated_jpeg() -> bytes:
    data = saved(Image.fromarray(smooth_picture(64, 64)), "JPEG")
    return data[: len(data) // 2]


def huge_png() -> bytes:
    """A header of 100000 x 100000 and nothing behind it."""
    data = bytearray(png(smooth_picture(2, 2)))
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    data[29:33] = __import__("zlib").crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize("data", [b"", b"text", truncated_jpeg(), huge_png(), png(smooth_picture(9, 9))[:60]])
def test_broken_pictures(data: bytes) -> None:
    with pytest.raises(BrokenInputError) as caught:
        read_picture(data)
    assert "\n" not in str(caught.value)


def test_limit_is_ours_not_pillows() -> None:
    assert Image.MAX_IMAGE_PIXELS == MAX_PIXELS == 2**28


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 8), (9, 15), (16, 17)])
def test_padding_repeats_the_edge(height: int, width: int) -> None:
    picture = smooth_picture(height, width)
    padded = pad(picture, 8)
    assert padded.shape[0] % 8 == padded.shape[1] % 8 == 0
    assert np.array_equal(padded[:height, :width], picture)
    assert np.array_equal(padded[-1, :width], picture[-1])


def test_field_crop() -> None:
    assert field_crop(smooth_picture(300, 400)).shape == (224, 224, 3)
    whole = smooth_picture(224, 224)
    assert np.array_equal(field_crop(whole), whole)
    assert np.shares_memory(field_crop(whole), whole), "taken whole, not copied"
    assert field_size(whole) is whole
    assert [field_size(smooth_picture(*size)).shape[:2] for size in ((300, 400), (64, 32))] == [(256, 341), (512, 256)]


def test_encoder_goes_by_the_ending() -> None:
    picture = smooth_picture(10, 12)
    assert np.array_equal(read_picture(encoder(Path("a.png"))(picture)), picture)
    assert encoder(Path("a.JPG"))(picture)[:2] == b"\xff\xd8"
    assert encoder(Path("noending"))(picture)[:4] == b"\x89PNG"
    for name in ("a.docx", "a.ico", "a.xbm"):
        with pytest.raises(UsageError):
            encoder(Path(name))
    for name in ("a.webp", "a.jpg", "a.gif", "a.tga"):
        with pytest.raises(OutputError):
            encoder(Path(name))(np.zeros((1, 70_000, 3), np.uint8))
