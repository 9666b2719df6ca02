"""The formats that people use today, as Pillow writes them: whole files at many settings, full size or reduced.

At few bytes a clever user reduces the image before writing it and enlarges it again to look at it. Every format is
measured so at several scales, and only what no other of its settings beats is kept.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
from PIL import Image, features

from dcu.errors import UnavailableError
from dcu.evaluate.codec import Point, measure
from dcu.geometry import CROP
from dcu.image import ImageArray, resize

SCALES = (1.0, 0.75, 0.5, 0.375, 0.25)


@dataclass(frozen=True)
class Format:
    """A format of Pillow's: what it is called there, the feature or plug-in that it needs, its settings."""

    pillow: str
    feature: str | None
    plugin: str | None
    fixed: dict[str, object]
    varied: str
    values: tuple[Any, ...]
    fine: tuple[Any, ...]
    """By rising quality, so close together that files of any length can be met."""

    def check(self) -> None:
        """Raise UnavailableError where this Pillow cannot write it."""
        if self.feature is not None and not features.check(self.feature):
            raise UnavailableError(f"this Pillow is built without {self.pillow}")
        if self.plugin is not None:
            try:
                import_module(self.plugin)
            except ImportError as error:
                raise UnavailableError(f"{self.pillow} needs Pillow's plug-in {self.plugin}") from error

    def encode(self, image: ImageArray, value: Any, scale: float) -> bytes:
        """A file of the image, reduced by ``scale`` first (Lanczos)."""
        buffer = io.BytesIO()
        Image.fromarray(reduced(image, scale)).save(buffer, self.pillow, **self.fixed, **{self.varied: value})
        return buffer.getvalue()

    def decode(self, data: bytes, width: int, height: int) -> ImageArray:
        """The image of a file, enlarged to the original's size (bicubic)."""
        decoded = np.asarray(Image.open(io.BytesIO(data), formats=[self.pillow]).convert("RGB"))
        if decoded.shape[:2] == (height, width):
            return decoded
        return resize(decoded, width, height, Image.Resampling.BICUBIC)

    def fit(self, image: ImageArray, most: int) -> bytes:
        """The best file of an image within so many bytes, or the smallest where none is."""
        low, high = 0, len(self.fine) - 1  # the answer is in [low, high], if anything fits
        best = self.encode(image, self.fine[0], 1.0)
        while low < high:
            middle = (low + high + 1) // 2
            data = self.encode(image, self.fine[middle], 1.0)
            if len(data) <= most:
                low, best = middle, data
            else:
                high = middle - 1
        return best


PNG = Format("PNG", None, None, {}, "compress_level", (1,), (1,))
QUALITIES = (1, 5, 10, 15, 20, 30, 40, 50, 65, 80)


def avif(speed: int, subsampling: str, **advanced: str) -> Format:
    """AVIF at a speed of its encoder, 0 (slowest) to 10, with a chroma subsampling and settings of libaom."""
    fixed = {"speed": speed, "subsampling": subsampling, "advanced": advanced}
    return Format("AVIF", "avif", None, fixed, "quality", (0, *QUALITIES), tuple(range(96)))


FORMATS = {
    "jpeg": Format(
        "JPEG", "jpg", None, {"optimize": True, "progressive": True}, "quality", QUALITIES, tuple(range(1, 96))
    ),
    "jpeg2000": Format(
        "JPEG2000",
        "jpg_2000",
        None,
        {"irreversible": True, "no_jp2": True, "quality_mode": "rates"},
        "quality_layers",
        tuple((24 / bpp,) for bpp in (0.05, 0.07, 0.1, 0.14, 0.2, 0.3, 0.4, 0.6, 0.9, 1.4)),
        tuple((24 / (0.02 * 1.08**step),) for step in range(80)),
    ),
    "webp": Format("WEBP", "webp", None, {"method": 6}, "quality", (0, *QUALITIES), tuple(range(96))),
    "avif": avif(6, "4:2:0"),  # Pillow's default
    "avif-psnr": avif(3, "4:2:0", tune="psnr"),
    "avif-psnr-444": avif(3, "4:4:4", tune="psnr"),
    "jxl": Format("JXL", None, "pillow_jxl", {"effort": 7}, "quality", QUALITIES, tuple(range(1, 96))),
}


def reduced(image: ImageArray, scale: float) -> ImageArray:
    """The image, its sides ``scale`` times as long (Lanczos), at least one pixel."""
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return resize(image, *size, Image.Resampling.LANCZOS) if scale < 1 else image


def at_side(image: ImageArray, side: int) -> ImageArray:
    """The image (224, 224, 3) reduced to a square of ``side`` pixels (Lanczos)."""
    return image if side == CROP else resize(image, side, side, Image.Resampling.LANCZOS)


def check_available(names: Sequence[str]) -> None:
    """Raise UnavailableError where this Pillow cannot write one of the formats."""
    for name in names:
        FORMATS[name].check()


def settings(names: Sequence[str]) -> list[tuple[str, Any, float]]:
    """(format, value, scale) of everything that is to be measured."""
    return [(name, value, scale) for name in names for scale in SCALES for value in FORMATS[name].values]


def measure_setting(name: str, value: Any, scale: float, images: Iterable[ImageArray]) -> Point:
    """A format's metrics at one setting."""
    format = FORMATS[name]

    def decoder(image: ImageArray) -> Callable[[bytes], ImageArray]:
        height, width = image.shape[:2]
        return partial(format.decode, width=width, height=height)

    shown = f"{24 / value[0]:.2f} bpp" if isinstance(value, tuple) else f"{format.varied} {value}"
    setting = shown + (f", reduced to {scale:g}" if scale < 1 else "")
    return measure(name, None, setting, lambda image: format.encode(image, value, scale), decoder, images)
