"""Colors of any kind to opaque sRGB."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageColor

from dcu.errors import UsageError

Color = tuple[int, int, int]
COLORS = ("L", "RGB", "CMYK", "LAB")
"""Modes that profiles are for."""


def parse_color(name: str) -> Color:
    """A color by name or #rrggbb; raises UsageError."""
    try:
        red, green, blue, *_ = ImageColor.getrgb(name)
    except ValueError as error:
        raise UsageError(f"{name}: not a color") from error
    return red, green, blue


def split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Color (one of ``COLORS``) and opacity (L), if there is any transparency."""
    if not image.has_transparency_data:
        return (image if image.mode in COLORS else image.convert("RGB")), None
    if image.mode in ("La", "LA"):
        gray, alpha = (image.convert("LA") if image.mode == "La" else image).split()
        return gray, alpha
    rgba = image.convert("RGBA")
    return rgba.convert("RGB"), rgba.getchannel("A")


def to_srgb(mode: str, profile: bytes | None) -> Callable[[Image.Image], Image.Image]:
    """A function that converts images of a mode: by the profile, if it is usable; by Pillow's plain rules otherwise."""
    if mode == "LAB":
        return by_profile(ImageCms.createProfile("LAB"), mode)
    if profile:
        try:
            return by_profile(ImageCms.ImageCmsProfile(io.BytesIO(profile)), mode)
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
            pass  # a broken profile, or one for another color space, says nothing of use
    return lambda image: image.convert("RGB")


def by_profile(source: Any, mode: str) -> Callable[[Image.Image], Image.Image]:
    """A function that converts by a profile; raises PyCMSError where it is for another mode."""
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    return lambda image: ImageCms.applyTransform(image, transform) or image


def lay_on(color: Image.Image, alpha: Image.Image | None, behind: Color) -> NDArray[np.uint8]:
    """An RGB image on a plain background, as an array."""
    if alpha is not None:
        color = Image.composite(color, Image.new("RGB", color.size, behind), alpha)
    return np.asarray(color, dtype=np.uint8)
