"""Decoded images to RGB arrays, some rows at a time, which bounds the memory of conversions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

from dcu.image.arrays import ImageArray
from dcu.image.color import Color, lay_on, split_alpha, to_srgb
from dcu.image.container import Container
from dcu.image.gray import to_bytes, value_range
from dcu.image.limits import check_size, max_pixels, pillow_limit

STRIP = 2**18
"""Pixels that are converted at once."""
NESTED = frozenset({"BLP", "CUR", "ICNS", "ICO"})
"""Formats whose images are files inside, of a size that is known only when they are decoded."""
Strip = tuple[Image.Image, Image.Image | None]
"""Color (L, RGB, CMYK or LAB) of some rows, and their opacity (L) if not all are opaque."""


def load(image: Image.Image) -> Image.Image:
    """Decode, whatever Pillow's limit is; raises InvalidInputError where the image is too large."""
    nested = image.format in NESTED
    with pillow_limit(max_pixels() // 2 if nested else image.width * image.height, always=nested):
        image.load()
    if nested:
        check_size(*image.size)
    return image


def rows(image: Image.Image) -> Iterator[Image.Image]:
    """The image in pieces of some rows, from the top."""
    step = max(1, STRIP // image.width)
    if step >= image.height:
        yield image
        return
    for top in range(0, image.height, step):
        yield image.crop((0, top, image.width, min(top + step, image.height)))


def pillow_strips(image: Image.Image) -> Iterator[Strip]:
    """Strips of a decoded image of any mode."""
    if image.mode == "F" or image.mode.startswith("I"):
        kind, bits = ("f", 32) if image.mode == "F" else ("i", 32) if wide(image) else ("u", 16)
        black, white = value_range(lambda: map(np.asarray, rows(image)), kind, bits)
        for strip in rows(image):
            yield Image.fromarray(to_bytes(np.asarray(strip), black, white)), None
    else:
        yield from map(split_alpha, rows(image))


def wide(image: Image.Image) -> bool:
    """Whether integers have 32 bits; those of PPM files have 16."""
    return image.mode == "I" and image.format != "PPM"


def assemble(size: tuple[int, int], strips: Iterable[Strip], file: Container, behind: Color) -> ImageArray:
    """Strips of an image of a size (width, height), in sRGB on a plain background, turned upright."""
    width, height = size
    result = np.empty((width, height, 3) if file.orientation >= 5 else (height, width, 3), np.uint8)
    stored, top, convert = as_stored(result, file.orientation), 0, None
    for color, alpha in strips:
        convert = convert or to_srgb(color.mode, file.profile)
        stored[top : top + color.height] = lay_on(convert(color), alpha, behind)
        top += color.height
    return result


def as_stored(upright: ImageArray, orientation: int) -> ImageArray:
    """A view of an upright image as a file with that EXIF orientation stores it."""
    views = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }
    return views[orientation]
