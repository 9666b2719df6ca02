"""The compiled coder (`src/bindings.cpp`): symbols to payloads and back, with a context model or with tables."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]

class BrokenPayload(ValueError): ...  # noqa: N818

class ContextModel:
    def __init__(
        self,
        passes: Sequence[tuple[int, int, int, Ints, Sequence[tuple[Ints, Ints]]]],
        values: Ints,
        exponential: Ints,
    ) -> None: ...
    def encode(
        self, symbols: NDArray[np.uint8], positions: Sequence[NDArray[np.int64]], instructions: str = ""
    ) -> bytes: ...
    def decode(
        self,
        payloads: Sequence[bytes],
        positions: Sequence[NDArray[np.int64]],
        height: int,
        width: int,
        threads: int,
        instructions: str = "",
    ) -> NDArray[np.uint8]: ...
    @property
    def limits(self) -> list[list[int]]: ...

class LogisticModel:
    def __init__(
        self,
        passes: Sequence[tuple[Ints, Ints, Sequence[tuple[Ints, Ints]], Ints, Ints]],
        channels: int,
        compressed: Ints,
        radii: Ints,
        ends: Ints,
    ) -> None: ...
    def encode(
        self, symbols: NDArray[np.int16], positions: Sequence[NDArray[np.int64]], instructions: str = ""
    ) -> bytes: ...
    def decode(
        self,
        payloads: Sequence[bytes],
        positions: Sequence[NDArray[np.int64]],
        height: int,
        width: int,
        threads: int,
        instructions: str = "",
    ) -> NDArray[np.int16]: ...
    def lengths(self, payload: bytes, positions: Sequence[NDArray[np.int64]], height: int, width: int) -> list[int]: ...

def encode_tables(tables: NDArray[np.uint16], symbols: NDArray[np.int16]) -> bytes: ...
def decode_tables(tables: NDArray[np.uint16], payload: bytes) -> NDArray[np.int16]: ...
def instruction_sets() -> list[str]: ...
