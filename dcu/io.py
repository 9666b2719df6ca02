"""Atomic file output: a reader sees the old file or the complete new one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same directory; it is renamed to ``path`` on success and removed on failure.

    Raises
    ------
    OSError
        The temporary file cannot be renamed.
    """
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``; raises OSError."""
    with replacing(path) as part, part.open("xb") as file:
        file.write(data)
