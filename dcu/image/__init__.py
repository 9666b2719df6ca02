"""Image files to RGB arrays, and back; padding and cropping.

The rest of dcu sees one kind of image only: (H, W, 3) uint8, sRGB, upright, opaque.
"""

from __future__ import annotations

from dcu.image.arrays import (
    ImageArray,
    is_gray,
    pad,
    psnr,
    resize,
    standard_crop,
    standard_resize,
    without_color,
)
from dcu.image.color import parse_color
from dcu.image.formats import FORMATS, SUFFIXES, Format, open_image
from dcu.image.limits import MAX_PIXELS, block_pixels, check_size
from dcu.image.reading import from_pillow, read_image
from dcu.image.writing import encoder, jpeg_url

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "SUFFIXES",
    "Format",
    "ImageArray",
    "block_pixels",
    "check_size",
    "encoder",
    "from_pillow",
    "is_gray",
    "jpeg_url",
    "open_image",
    "pad",
    "parse_color",
    "psnr",
    "read_image",
    "resize",
    "standard_crop",
    "standard_resize",
    "without_color",
]
