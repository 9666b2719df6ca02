"""The report's crops: a part of each image at full size, after each codec and another format of equal size."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from dcu.bench.gallery import Shown, best_within, caption
from dcu.bench.points import OperatingPoint
from dcu.codec import codec_of
from dcu.image import ImageArray, jpeg_url

SIDE = 192
"""Pixels of a crop's sides, where the image is as large."""


def crops(images: dict[str, ImageArray], points: Sequence[OperatingPoint], formats: Sequence[str]) -> list[list[Shown]]:
    """A row for each image and operating point: the original, dcu, and each format in as many bytes.

    Sizes and PSNR in the captions are those of the whole image.
    """
    rows = []
    for title, image in images.items():
        for point in points:
            codec = codec_of(point.model.identity)
            data = codec.compress(image, quality=point.quality)
            decoded = codec.decode(data)
            row = [
                crop(image, f"{title}, a part of the original", "original"),
                crop(decoded, f"{title}, a part after {point.name}", caption(image, point.name, len(data), decoded)),
            ]
            for format in formats:
                theirs, rebuilt = best_within(format, image, len(data))
                said = caption(image, format, len(theirs), rebuilt)
                row.append(crop(rebuilt, f"{title}, a part after {format}", said))
            rows.append(row)
    return rows


def crop(image: ImageArray, alt: str, caption: str) -> Shown:
    """The center of an image, in a JPEG file that adds no visible error."""
    part = Image.fromarray(center(image))
    return Shown(jpeg_url(part, quality=95, subsampling=0), alt, caption, [])


def center(image: ImageArray) -> ImageArray:
    """The center of an image, ``SIDE`` pixels a side where it is as large."""
    height, width = image.shape[:2]
    top, left = max(0, height - SIDE) // 2, max(0, width - SIDE) // 2
    return image[top : top + SIDE, left : left + SIDE]
