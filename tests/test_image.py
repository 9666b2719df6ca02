from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from dcu.errors import InvalidInputError, MissingInputError, UsageError
from dcu.image import check_size, pad, read_image, standard_crop, standard_resize

from .conftest import png, smooth_image
from .image_files import chunk, saved


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
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize("data", [b"", b"text", truncated_jpeg(), huge_png(), png(smooth_image(9, 9))[:60]])
def test_broken_images(data: bytes) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_image(data)
    assert "\n" not in str(caught.value)


def test_host_program_keeps_its_settings() -> None:
    """Importing dcu.image and reading images of every kind changes nothing of Pillow, of warnings or of logging."""
    code = """
import io, logging, warnings
import numpy as np
from PIL import Image, ImageFile, PngImagePlugin
Image.MAX_IMAGE_PIXELS = 1000
def state():
    limits = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, PngImagePlugin.MAX_TEXT_CHUNK
    more = PngImagePlugin.MAX_TEXT_MEMORY, ImageFile.MAXBLOCK, tuple(warnings.filters), tuple(logging.root.handlers)
    return limits + more
before = state()
from dcu.image import read_image
for format in ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP", "ICO", "AVIF"):
    out = io.BytesIO()
    Image.fromarray(np.zeros((100, 200, 3), np.uint8)).save(out, format)
    assert read_image(out.getvalue()).ndim == 3
assert state() == before, (state(), before)
"""
    subprocess.run([sys.executable, "-W", "error::ImportWarning", "-c", code], check=True)


def test_host_programs_limit_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images beyond Pillow's limit are read, up to dcu's."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for format in ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP", "ICO", "AVIF", "JPEG2000", "DCX", "PPM"):
        if format == "DCX":
            continue
        assert read_image(saved(Image.new("RGB", (64, 64)), format)).shape == (64, 64, 3)
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP", "ICO", "AVIF", "JPEG2000", "PPM"])
def test_limit_can_be_lowered(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(Image.new("RGB", (64, 64)), format)
    monkeypatch.setenv("DCU_MAX_PIXELS", "4096")
    assert read_image(data).shape == (64, 64, 3)
    monkeypatch.setenv("DCU_MAX_PIXELS", "4095")
    with pytest.raises(InvalidInputError, match=r"4095 \(DCU_MAX_PIXELS\)"):
        read_image(data)


@pytest.mark.parametrize("size", [(2**28, 1), (3, 2**26 + 8), (2**27 + 1, 1)])
def test_images_whose_blocks_are_far_larger_are_refused(size: tuple[int, int]) -> None:
    """Coding takes memory for whole blocks."""
    with pytest.raises(InvalidInputError, match="too narrow"):
        check_size(*size)


@pytest.mark.parametrize("size", [(2**14, 2**14), (2**14 - 1, 2**14 + 1), (2**26, 1), (1, 1)])
def test_other_images_within_the_limit_are_not(size: tuple[int, int]) -> None:
    check_size(*size)


@pytest.mark.parametrize("value", ["0", "-1", "1e6", "many", "268435457", "9" * 5000, " 5", "\u0665"])
def test_limit_is_validated(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCU_MAX_PIXELS", value)
    with pytest.raises(UsageError, match=r"^DCU_MAX_PIXELS must be"):
        check_size(1, 1)
    with pytest.raises(UsageError):
        read_image(png(smooth_image(2, 2)))


def test_paths_and_buffers_are_read(tmp_path: Path) -> None:
    image = smooth_image(6, 7)
    data = png(image)
    (tmp_path / "a.png").write_bytes(data)
    for source in (data, bytearray(data), memoryview(data), tmp_path / "a.png", str(tmp_path / "a.png")):
        assert np.array_equal(read_image(source), image)
    with pytest.raises(MissingInputError):
        read_image(tmp_path / "missing.png")
    with pytest.raises(MissingInputError):
        read_image(tmp_path)
    for wrong in (None, 5, image, Image.fromarray(image), [data]):
        with pytest.raises(TypeError, match="path or bytes"):
            read_image(wrong)  # type: ignore[arg-type]


def large(mode: str, side: int) -> bytes:
    """A compressed image of one color."""
    if mode == "RGB;16, transparent":
        header = struct.pack(">IIBBBBB", side, side, 16, 2, 0, 0, 0)
        pixels = zlib.compress(bytes(side * (6 * side + 1)), 1)
        parts = chunk(b"IHDR", header) + chunk(b"tRNS", bytes(6)) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + parts
    if mode in ("CMYK", "F"):
        return saved(Image.new(mode, (side, side)), "TIFF", compression="tiff_adobe_deflate")
    return saved(Image.new(mode, (side, side)), "PNG", compress_level=1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize("mode", ["1", "RGBA", "RGB;16, transparent", "F"])
def test_memory(mode: str, tmp_path: Path) -> None:
    """At most 2.5 times the RGB array."""
    side = 4500
    path = tmp_path / "image"
    path.write_bytes(large(mode, side))
    code = f"""
from dcu.image import read_image
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
data = open({str(path)!r}, "rb").read()
from PIL import Image
Image.init()
before = peak()
image = read_image(data)
assert image.shape == ({side}, {side}, 3)
print((peak() - before) / image.size)
"""
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert float(ran.stdout) <= 2.5


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
