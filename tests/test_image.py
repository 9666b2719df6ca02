from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from dcu.errors import InvalidInputError, OutputError, UsageError
from dcu.image import encoder, pad, read_image, standard_crop, standard_resize

from .conftest import png, smooth_image


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def test_orientation_is_applied() -> None:
    image = smooth_image(20, 30)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    data = saved(Image.fromarray(image), "PNG", exif=exif)
    assert np.array_equal(read_image(data), np.rot90(image, -1))


def test_transparency_is_laid_on_the_background() -> None:
    clear = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    assert read_image(saved(clear, "PNG"))[0, 0].tolist() == [255, 255, 255]
    assert read_image(saved(clear, "PNG"), "#204060")[0, 0].tolist() == [32, 64, 96]
    palette = Image.new("P", (2, 2))
    palette.putpalette([9, 9, 9])
    assert read_image(saved(palette, "PNG", transparency=0), "red")[1, 1].tolist() == [255, 0, 0]
    with pytest.raises(UsageError):
        read_image(saved(clear, "PNG"), "no color")


@pytest.mark.parametrize("value", [0, 256, 30000, 65535])
def test_gray_of_16_bits_is_scaled(value: int) -> None:
    data = saved(Image.fromarray(np.full((3, 4), value, np.uint16)), "PNG")
    assert read_image(data)[0, 0].tolist() == [round(value / 257)] * 3


def test_floating_point_gray() -> None:
    data = saved(Image.fromarray(np.full((3, 4), 0.5, np.float32)), "TIFF")
    assert read_image(data)[2, 3].tolist() == [128] * 3


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "CMYK", "YCbCr", "RGB"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    format = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    image = read_image(saved(Image.new("RGB", (5, 4), "white").convert(mode), format))
    assert image.shape == (4, 5, 3)
    assert image.dtype == np.uint8
    assert (image > 250).all()


def swapped_profile() -> bytes:
    """sRGB with red and green exchanged: their two entries in the profile's table of tags are."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = data.index(b"rXYZ") + 4, data.index(b"gXYZ") + 4
    data[red : red + 8], data[green : green + 8] = data[green : green + 8], data[red : red + 8]
    return bytes(data)


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA"])
def test_profile_is_converted_to_srgb(mode: str) -> None:
    red = Image.new("RGB", (4, 4), "red").convert(mode)
    red_as_green = read_image(saved(red, "PNG", icc_profile=swapped_profile()))[0, 0]
    assert np.abs(red_as_green.astype(int) - [0, 255, 0]).max() <= 2


def test_background_is_not_converted_by_the_profile() -> None:
    clear = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    assert read_image(saved(clear, "PNG", icc_profile=swapped_profile()), "red")[0, 0].tolist() == [255, 0, 0]


def test_broken_profile_and_broken_exif_say_nothing() -> None:
    plain = smooth_image(8, 8)
    for options in ({"icc_profile": b"no profile"}, {"exif": b"Exif\x00\x00no exif"}):
        assert np.array_equal(read_image(saved(Image.fromarray(plain), "PNG", **options)), plain)


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_image(data)[0, 0].tolist() == [255, 0, 0]


def truncated_jpeg() -> bytes:
    data = saved(Image.fromarray(smooth_image(64, 64)), "JPEG")
    return data[: len(data) // 2]


def huge_png() -> bytes:
    """A header of 100000 x 100000 and nothing behind it."""
    data = bytearray(png(smooth_image(2, 2)))
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    data[29:33] = __import__("zlib").crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize("data", [b"", b"text", truncated_jpeg(), huge_png(), png(smooth_image(9, 9))[:60]])
def test_broken_images(data: bytes) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_image(data)
    assert "\n" not in str(caught.value)


def test_limits_of_pillow_stay_those_of_the_host_program() -> None:
    code = "from PIL import Image; a = Image.MAX_IMAGE_PIXELS; import dcu.image; assert Image.MAX_IMAGE_PIXELS == a"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 8), (9, 15), (16, 17)])
def test_padding_repeats_the_edge(height: int, width: int) -> None:
    image = smooth_image(height, width)
    padded = pad(image, 8)
    assert padded.shape[0] % 8 == padded.shape[1] % 8 == 0
    assert np.array_equal(padded[:height, :width], image)
    assert np.array_equal(padded[-1, :width], image[-1])


def test_field_crop() -> None:
    assert standard_crop(smooth_image(300, 400)).shape == (224, 224, 3)
    whole = smooth_image(224, 224)
    assert np.array_equal(standard_crop(whole), whole)
    assert np.shares_memory(standard_crop(whole), whole), "taken whole, not copied"
    assert standard_resize(whole) is whole
    assert [standard_resize(smooth_image(*size)).shape[:2] for size in ((300, 400), (64, 32))] == [
        (256, 341),
        (512, 256),
    ]


def test_encoder_goes_by_the_ending() -> None:
    image = smooth_image(10, 12)
    assert np.array_equal(read_image(encoder(Path("a.png"))(image)), image)
    assert encoder(Path("a.JPG"))(image)[:2] == b"\xff\xd8"
    assert encoder(Path("noending"))(image)[:4] == b"\x89PNG"
    for name in ("a.docx", "a.ico", "a.xbm"):
        with pytest.raises(UsageError):
            encoder(Path(name))
    for name in ("a.webp", "a.jpg", "a.gif", "a.tga"):
        with pytest.raises(OutputError):
            encoder(Path(name))(np.zeros((1, 70_000, 3), np.uint8))
