"""What the Python API accepts, and what it says of everything else: TypeError and ValueError."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from dcu.errors import InvalidInputError
from dcu.image import ImageArray, check_size, from_pillow

T = TypeVar("T")
Data = bytes | bytearray | memoryview
"""A bitstream."""
AnyImage = ImageArray | Image.Image
"""An array (H, W, 3) uint8, or a Pillow image of any mode."""


def image(value: object) -> ImageArray:
    """An image as an array (H, W, 3) uint8; a Pillow image is converted as its file would be read.

    That is: turned as its EXIF orientation says, if it still has one, converted to sRGB by its ICC profile, laid on
    white where it is transparent.

    Raises
    ------
    TypeError
        It is neither an array of uint8 nor a Pillow image.
    ValueError
        It has another shape, no pixels, or more than 2^28.
    """
    if isinstance(value, Image.Image):
        try:
            check_size(*value.size)
            return from_pillow(value)
        except InvalidInputError as error:
            raise ValueError(str(error)) from error
    wanted = "an image must be an array (height, width, 3) of uint8 or a Pillow image"
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{wanted}, not {type(value).__name__}")
    if value.dtype != np.uint8:
        raise TypeError(f"{wanted}, not of {value.dtype}: values are 0 to 255")
    if value.ndim != 3 or value.shape[2] != 3 or 0 in value.shape:
        raise ValueError(f"{wanted}, not of the shape {value.shape}")
    try:
        check_size(value.shape[1], value.shape[0])
    except InvalidInputError as error:
        raise ValueError(str(error)) from error
    return value


def data(value: object) -> bytes:
    """The bytes of a bitstream; raises TypeError."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"a bitstream must be bytes, bytearray or memoryview, not {type(value).__name__}")


def instance(value: object, kind: type[T], name: str) -> T:
    """A value of a type; raises TypeError."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{name} must be {kind.__name__}, not {type(value).__name__}")
    return value


def at_least_one(value: object, name: str) -> int:
    """A positive number; raises TypeError and ValueError."""
    number = instance(value, int, name)
    if number < 1:
        raise ValueError(f"{name} must be at least 1, not {number}")
    return number


def share(value: object, name: str) -> float:
    """A number from 0 to 1; raises TypeError and ValueError."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be between 0 and 1, not {value}")
    return value


def one_of(value: object, choices: Iterable[str], name: str) -> str:
    """One of several words; raises TypeError and ValueError."""
    word = instance(value, str, name)
    if word not in (there := tuple(choices)):
        raise ValueError(f"{name} must be one of {', '.join(there)}, not {word!r}")
    return word


def model_name(value: object) -> str | Path | None:
    """The name or path of a model, None for the default; raises TypeError and ValueError."""
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"a model name must be str or a path, not {type(value).__name__}")
    name = os.fspath(value)
    if not isinstance(name, str) or not name:
        raise ValueError(f"{name!r} is not a model name")
    return name if isinstance(value, str) else Path(value)


def device(value: object) -> str:
    """A device of PyTorch's, such as "cpu", "cuda" or "cuda:1"; raises TypeError and ValueError."""
    kind, _, number = instance(value, str, "device").partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise ValueError(f"device must be cpu or cuda, not {value!r}")
    return str(value)
