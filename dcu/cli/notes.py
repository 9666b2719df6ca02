"""Log messages of the library as notes on standard error: one line each, with the name of the input."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from dcu.cli.console import complain

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
    """Prints the library's log on standard error, a line per record, with the name of the input that it is about."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = "note: " if record.levelno >= logging.WARNING else ""
        name = _input.get()
        complain(f"{name}: {kind}{record.getMessage()}" if name else f"{kind}{record.getMessage()}")


def install() -> None:
    """Print the log of dcu, and no warnings of Pillow, whose lines name no input."""
    logger = logging.getLogger("dcu")
    logger.propagate = False
    logger.handlers = [Notes()]
    logger.setLevel(logging.INFO)
    logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"PIL\.")
