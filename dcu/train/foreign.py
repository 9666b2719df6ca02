"""Weights that other programs wrote: safetensors, and files of PyTorch, of which tensors are read and nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from dcu.errors import InvalidInputError, MissingInputError

PICKLED = (".pt", ".pth", ".bin")
"""How files of PyTorch end."""


def is_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint of this package: it says in its header where the run stood."""
    try:
        with safe_open(path, "pt") as file:
            return "scalars" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by their names.

    Raises
    ------
    MissingInputError, InvalidInputError
        No such file; not a file of named tensors.
    """
    try:
        found = torch.load(path, "cpu", weights_only=True) if path.suffix in PICKLED else load_file(path)
    except OSError as error:
        raise MissingInputError(f"{path}: {error.strerror or 'cannot be read'}") from error
    except Exception as error:  # of broken pickles, of any kind
        raise InvalidInputError(f"{path}: not a file of weights") from error
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise InvalidInputError(f"{path}: not a table of tensors by name")
    return found


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
