"""RGB arrays: padding, resampling, cropping, comparing."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dcu.geometry import CROP, RESIZE

MOST_PSNR = 100.0
"""In dB, of equal images."""
ImageArray = NDArray[np.uint8]
"""(H, W, 3) uint8, sRGB."""


def pad(image: ImageArray, multiple: int) -> ImageArray:
    """Repeat the last row and column until both sides are multiples; ``image[:H, :W]`` crops back."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")


def resize(image: ImageArray, width: int, height: int, filter: Image.Resampling) -> ImageArray:
    """Resample to width x height, antialiased where it shrinks."""
    if (height, width) == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), filter))


def standard_resize(image: ImageArray, side: int = CROP) -> ImageArray:
    """The field's protocol before its crop: a short side of 256 for a crop of 224, others in proportion (bicubic).

    An image that is side x side already stays as it is.
    """
    height, width = image.shape[:2]
    if height == width == side:
        return image
    short = round(RESIZE * side / CROP)
    scale = short / min(height, width)
    width, height = max(short, round(width * scale)), max(short, round(height * scale))
    return resize(image, width, height, Image.Resampling.BICUBIC)


def standard_crop(image: ImageArray, side: int = CROP) -> ImageArray:
    """The field's protocol: the center ``side`` x ``side`` of :func:`standard_resize`."""
    image = standard_resize(image, side)
    height, width = image.shape[:2]
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def psnr(image: ImageArray, decoded: ImageArray) -> float:
    """Peak signal to noise ratio in dB over all three channels: 10 log10(255^2 / MSE).

    Of equal images ``MOST_PSNR``, so that means stay finite.
    """
    error = float(np.square(image.astype(np.float64) - decoded).mean())
    return min(MOST_PSNR, 10 * math.log10(255**2 / error)) if error else MOST_PSNR


def is_gray(image: ImageArray) -> bool:
    """Whether all three channels are equal everywhere."""
    return bool((image[..., :1] == image[..., 1:]).all())


def without_color(image: ImageArray) -> ImageArray:
    """An image (H, W, 3) whose channels are the mean of its own, rounded."""
    mean = (image.sum(2, dtype=np.uint16) + 1) // 3
    return np.repeat(mean.astype(np.uint8)[..., None], 3, 2)
