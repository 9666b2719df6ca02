"""Files of weights (safetensors) that anybody may have written, checked before anything is allocated."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from dcu.cards import parse_json
from dcu.errors import UnavailableError
from dcu.io import read_regular
from dcu.schema import Between, Count, build

if TYPE_CHECKING:
    from torch import Tensor

MOST_BYTES = 2**27
"""Of a file; the largest of dcu's own has 9 MB."""
MOST_TENSORS = 2**12
MOST_HEADER = 2**20
MOST_DIMENSIONS = 8
MOST_WIDTH = 2**12
"""Rows of an empty matrix, which no size of a file bounds."""
ITEM_BYTES = {"F16": 2, "BF16": 2, "F32": 4, "I16": 2, "I32": 4}
INTEGERS = "context."
"""How the names of integer tensors begin: those of a codec's context model, which are exact."""


@dataclass(frozen=True)
class Entry:
    """What the header says of a tensor."""

    dtype: str
    shape: Annotated[tuple[Annotated[int, Between(0, MOST_BYTES)], ...], Between(0, MOST_DIMENSIONS)]
    data_offsets: Annotated[tuple[Count, ...], Between(2, 2)]


def read(path: Path, sha256: str | None) -> dict[str, Tensor]:
    """The tensors of a file that must have this SHA-256: every number finite, integers where they must be.

    Raises
    ------
    UnavailableError
        The file is missing, is not the one that the card was written for, or holds what is no model's.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = read_regular(path, MOST_BYTES)
    except OSError as error:
        raise UnavailableError(f"{path}: weights are missing") from error
    except ValueError as error:
        raise UnavailableError(f"{path}: {error}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UnavailableError(f"{path}: weights do not match the model card")
    try:
        check_header(data)
        tensors = load(data)
    except (SafetensorError, ValueError) as error:
        raise UnavailableError(f"{path}: invalid weights ({error})") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UnavailableError(f"{path}: invalid weights ({name} has values that are not finite)")
    return tensors


def finite(answer: Tensor, name: str) -> Tensor:
    """What a network gives; raises UnavailableError where numbers overflowed, as those of finite weights may."""
    if not bool(answer.isfinite().all()):
        raise UnavailableError(f"{name}: network output is not finite")
    return answer


def check_header(data: bytes) -> None:
    """Refuse a header that lies, or has names that no model has; raises ValueError."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(MOST_HEADER, len(data) - 8):
        raise ValueError("no header")
    header = parse_json(data[8 : 8 + size])
    if not isinstance(header, dict) or len(header) > MOST_TENSORS:
        raise ValueError("no header")
    for name, value in header.items():
        if name == "__metadata__":
            continue
        entry = build(Entry, value)
        integers = name.startswith(INTEGERS)
        if entry.dtype not in ITEM_BYTES or integers != entry.dtype.startswith("I"):
            raise ValueError(f"{name[:80]!r} is of type {entry.dtype[:20]}")
        if 0 in entry.shape and not (integers and max(entry.shape) <= MOST_WIDTH):  # a first pass has no context
            raise ValueError(f"{name[:80]!r} is empty")
        first, last = entry.data_offsets
        if last - first != math.prod(entry.shape) * ITEM_BYTES[entry.dtype] or 8 + size + last > len(data):
            raise ValueError(f"{name[:80]!r} does not match its shape")
