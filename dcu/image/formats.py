"""The image formats that dcu reads and writes, by their extensions; opening files in these formats only.

Pillow's other formats are programs or drawings (EPS, PDF, WMF), video (MPEG), have no decoder (BUFR, GRIB, HDF5), or
open files of any format inside (IPTC, FlashPix, MIC).
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import import_module

from PIL import Image, ImageFile

from dcu.errors import InvalidInputError, UnavailableError
from dcu.image.jxl import check_jxl
from dcu.image.limits import max_pixels, pillow_limit, too_large

EXTRA = "formats"


@dataclass(frozen=True)
class Plugin:
    """A package that reads a format which Pillow does not, the module in it, and the name of the reader."""

    package: str
    module: str
    name: str


@dataclass(frozen=True)
class Format:
    """A format under Pillow's name, the extensions that are read, and those that are written."""

    name: str
    extensions: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    plugin: Plugin | None = None

    @property
    def extra(self) -> str | None:
        """The extra of the distribution that installs what reads the format."""
        return EXTRA if self.plugin else None


FORMATS = (
    Format("AVIF", (".avif", ".avifs"), (".avif",)),
    Format("BLP", (".blp",)),
    Format("BMP", (".bmp",), (".bmp",)),
    Format("CUR", (".cur",)),
    Format("DCX", (".dcx",)),
    Format("DDS", (".dds",), (".dds",)),
    Format("DIB", (".dib",), (".dib",)),
    Format("FITS", (".fit", ".fits")),
    Format("FLI", (".flc", ".fli")),
    Format("FTEX", (".ftc", ".ftu")),
    Format("GBR", (".gbr",)),
    Format("GIF", (".gif",), (".gif",)),
    Format("HEIF", (".heic", ".heif", ".hif"), plugin=Plugin("pillow-heif", "pillow_heif", "HeifImageFile")),
    Format("ICNS", (".icns",)),
    Format("ICO", (".ico",)),
    Format("IMT"),
    Format("IM", (".im",)),
    Format("JPEG", (".jfif", ".jpe", ".jpeg", ".jpg", ".mpo"), (".jfif", ".jpe", ".jpeg", ".jpg")),
    Format("JPEG2000", (".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"), (".j2c", ".j2k", ".jp2", ".jpc")),
    Format("JXL", (".jxl",), plugin=Plugin("pillow-jxl-plugin", "pillow_jxl.JpegXLImagePlugin", "JXLImageFile")),
    Format("MCIDAS"),
    Format("MSP", (".msp",)),
    Format("PCD", (".pcd",)),
    Format("PCX", (".pcx",), (".pcx",)),
    Format("PIXAR", (".pxr",)),
    Format("PNG", (".apng", ".png"), (".png",)),
    Format("PPM", (".pbm", ".pfm", ".pgm", ".pnm", ".ppm"), (".pnm", ".ppm")),
    Format("PSD", (".psd",)),
    Format("QOI", (".qoi",), (".qoi",)),
    Format("SGI", (".bw", ".rgb", ".rgba", ".sgi"), (".rgb", ".sgi")),
    Format("SPIDER"),
    Format("SUN", (".ras",)),
    Format("TGA", (".icb", ".tga", ".vda", ".vst"), (".icb", ".tga", ".vda", ".vst")),
    Format("TIFF", (".tif", ".tiff"), (".tif", ".tiff")),
    Format("WEBP", (".webp",), (".webp",)),
    Format("XBM", (".xbm",)),
    Format("XPM", (".xpm",)),
    Format("XVTHUMB"),
)
BY_NAME = {format.name: format for format in FORMATS}
SUFFIXES = frozenset(extension for format in FORMATS for extension in format.extensions)
"""Extensions of the files in a directory that are read as images."""
WRITTEN = {extension: format.name for format in FORMATS for extension in format.written}
"""The format that each extension stands for in an output name."""

SIGNATURES = {
    b"%!PS": "EPS, a program",
    b"\xc5\xd0\xd3\xc6": "EPS, a program",
    b"%PDF": "PDF, a document",
    b"\xd7\xcd\xc6\x9a": "WMF, a drawing",
    b"<svg": "SVG, a drawing",
    b"<?xml": "SVG, a drawing",
    b"II\xbc": "JPEG XR",
    b"\xff\xd8\xff\xf7": "JPEG-LS",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"gimp xcf": "XCF",
    b"FORM": "IFF",
    b"AT&TFORM": "DjVu",
    b"SDPX": "DPX",
    b"XPDS": "DPX",
    b"P7": "PAM",
    b"BPG\xfb": "BPG",
    b"farbfeld": "farbfeld",
    b"\x00\x00\x01\xba": "MPEG, a video",
    b"\x00\x00\x01\xb3": "MPEG, a video",
    b"BUFR": "BUFR",
    b"GRIB": "GRIB",
    b"\x89HDF": "HDF5",
    b"\x8aMNG": "MNG",
    b"\x8bJNG": "JNG",
}
"""Formats that are not supported, by their first bytes."""
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
UNSUPPORTED = re.compile(
    r"unsupported|not (yet )?supported|not available|not configured|cannot handle|unknown|unimplemented|unhandled", re.I
)
"""How decoders say that a file is valid, but of a kind that they do not decode."""


def signature(data: bytes) -> str | None:
    """The format of files that need a plugin, by their first bytes; None for others."""
    if data[4:8] == b"ftyp":
        brands = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
        return "HEIF" if any(brands[at : at + 4] in HEIC_BRANDS for at in range(0, len(brands), 4)) else None
    return "JXL" if data[:2] == b"\xff\x0a" or data[:12] == b"\0\0\0\x0cJXL \r\n\x87\n" else None


def open_image(data: bytes, formats: Collection[str] = BY_NAME.keys()) -> Image.Image:
    """Read the header of an image file in one of the formats; nothing is decoded yet.

    Unlike ``PIL.Image.open`` it never tries other formats, and has no limit of pixels.

    Raises
    ------
    InvalidInputError
        Not an image in one of the formats, or of an unsupported kind.
    UnavailableError
        The format's plugin is not installed.
    """
    if (name := signature(data)) in formats and name is not None:
        return opened_by_plugin(BY_NAME[name], data)
    Image.init()
    refused = ""
    for name in (name for name in Image.ID if name in formats and name in BY_NAME):
        factory, accept = Image.OPEN[name]
        if accept and accept(data[:16].ljust(16, b"\0")) is not True:  # some want four bytes or more
            continue
        try:
            return unlimited(factory, data)
        except (InvalidInputError, MemoryError):
            raise
        except Exception as error:  # headers that are not as they should be raise nearly anything
            if name == "AVIF" and b"Exif" in data:  # which is invalid perhaps: open it without
                return open_image(data.replace(b"Exif", b"skip"), formats)
            refused = refused or (f"{kind(error)} {name} image ({reason(error)})" if accept else "")
    if refused:
        raise InvalidInputError(refused)
    known = next((what for start, what in SIGNATURES.items() if data.lstrip(b"\xef\xbb\xbf").startswith(start)), None)
    raise InvalidInputError(f"unsupported format: {known}" if known else "not an image in a supported format")


def opened_by_plugin(format: Format, data: bytes) -> Image.Image:
    """The image of a format whose reader is an optional package."""
    assert format.plugin is not None
    if format.name == "JXL":
        check_jxl(data)
    try:
        reader = getattr(import_module(format.plugin.module), format.plugin.name)
    except ImportError as error:
        raise UnavailableError(
            f'{format.name} images need {format.plugin.package}: pip install "dcu-codec[{EXTRA}]"'
        ) from error
    try:
        return unlimited(reader, data)
    except (InvalidInputError, MemoryError):
        raise
    except Exception as error:
        raise InvalidInputError(f"{kind(error)} {format.name} image ({reason(error)})") from error


def unlimited(reader: Callable[..., ImageFile.ImageFile], data: bytes) -> ImageFile.ImageFile:
    """What a reader of Pillow's makes of a file, whatever Pillow's limit is; raises InvalidInputError if too large."""
    try:
        return reader(io.BytesIO(data), "")
    except Image.DecompressionBombError:
        try:
            with pillow_limit(max_pixels(), always=True):
                return reader(io.BytesIO(data), "")
        except Image.DecompressionBombError as error:
            raise too_large("its size") from error


def kind(error: Exception) -> str:
    """What an error of a decoder says about the file."""
    unsupported = isinstance(error, NotImplementedError | KeyError) or UNSUPPORTED.search(str(error))
    return "unsupported" if unsupported else "damaged"


def reason(error: Exception) -> str:
    """A decoder's message on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}" if isinstance(error, struct.error | KeyError) or not text else text
