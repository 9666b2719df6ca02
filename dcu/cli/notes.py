"""Log messages of the library as notes on standard error: one line each, with the name of the input."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
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
    """Tells the library's log, a line per record, with the name of the input that it is about."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self.tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        kind = "note: " if record.levelno >= logging.WARNING else ""
        name = _input.get()
        self.tell(f"{name}: {kind}{record.getMessage()}" if name else f"{kind}{record.getMessage()}")


def install(tell: Callable[[str], None] = complain) -> None:
    """Print the log of dcu, or tell it otherwise, and no warnings of Pillow, whose lines name no input."""
    logger = logging.getLogger("dcu")
    logger.propagate = False
    logger.handlers = [Notes(tell)]
    logger.setLevel(logging.INFO)
    logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"PIL\.")
