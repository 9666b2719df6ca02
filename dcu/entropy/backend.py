"""torchac in the place of our own coder, where ``DCU_CODER=torchac`` asks for it.

Both write the same bytes. torchac knows tables and no context model, which makes it slower; it is here to compare with.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from dcu.errors import UnavailableError, UsageError

HINT = "torchac cannot be used: pip install 'dcu-codec[torchac]', and install a C++ compiler and Python's headers"


class TableCoder(Protocol):
    """Symbols to bytes and back, with one table for each symbol.

    Tables (N, L + 1) are int16 holding uint16, from 0 to 2^16, which wraps to 0; symbols (N,) are int16.
    """

    def encode(self, tables: Tensor, symbols: Tensor) -> bytes: ...
    def decode(self, tables: Tensor, payload: bytes) -> Tensor: ...


class Torchac:
    """torchac's Python API."""

    def __init__(self) -> None:
        self.module = load_torchac()

    def encode(self, tables: Tensor, symbols: Tensor) -> bytes:
        return bytes(self.module.encode_int16_normalized_cdf(tables, symbols))

    def decode(self, tables: Tensor, payload: bytes) -> Tensor:
        symbols: Tensor = self.module.decode_int16_normalized_cdf(tables, payload)
        return symbols


@contextlib.contextmanager
def standard_output_to_error() -> Iterator[None]:
    """Turn descriptor 1 to 2: standard output holds streams and nothing else."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@functools.cache
def load_torchac() -> Any:
    """Import torchac, which compiles itself when it is imported for the first time.

    Raises
    ------
    UnavailableError
        It is not installed, or there is no compiler.
    """
    path = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), path])  # an environment's own ninja
    try:
        with standard_output_to_error():
            return importlib.import_module("torchac")
    except Exception as error:  # torch's builder and the compiler raise many kinds of errors
        raise UnavailableError(HINT) from error
    finally:
        os.environ["PATH"] = path


def chosen_coder() -> TableCoder | None:
    """The coder that ``DCU_CODER`` names; None for our own, which needs no tables.

    Raises
    ------
    UsageError
        There is no such coder.
    UnavailableError
        It is not installed.
    """
    name = os.environ.get("DCU_CODER", "")
    if name == "torchac":
        return Torchac()
    if name in ("", "native"):
        return None
    raise UsageError(f"DCU_CODER: must be native or torchac, not {name!r}")
