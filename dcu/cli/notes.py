"""Log messages of the library as notes on standard error: one line each, with the name of the input."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from dcu.cli.app import complain

_input: ContextVar[str] = ContextVar("input", default="")


@contextmanager
def about(name: str) -> Iterator[None]:
    """Name the input that messages are about."""
    token = _input.set(name)
    try:
        yield
    finally:
        _input.reset(token)


class Notes(logging.Handler):
    """Prints messages."""

    def emit(self, record: logging.LogRecord) -> None:
        name = _input.get()
        complain(f"{name}: note: {record.getMessage()}" if name else f"note: {record.getMessage()}")


def install() -> None:
    """Print the warnings of dcu, and none of Pillow, whose lines name no input."""
    logger = logging.getLogger("dcu")
    logger.propagate = False
    logger.handlers = [Notes(logging.WARNING)]
    logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"PIL\.")
