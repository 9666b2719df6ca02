"""Errors that libtiff finds while it decodes: to dcu, not to standard error.

libtiff prints them unless the program installs a handler, which holds for the whole process. dcu's is installed only
while it decodes; errors of other threads are passed on to the handler that was there before. (Pillow switches
warnings off.)
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image

HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
"""void handler(const char *module, const char *format, va_list), which is passed as one pointer."""

_heard = threading.local()
_lock = threading.Lock()
_users = 0
_previous: Any = None


def _handle(module: bytes | None, text: bytes | None, values: int | None) -> None:
    messages = getattr(_heard, "messages", None)
    if messages is not None:
        messages.append((text or b"").decode("latin-1"))
    elif _previous:
        _previous(module, text, values)


_HANDLER = HANDLER(_handle)


@contextmanager
def errors() -> Iterator[list[str]]:
    """What libtiff reports in this thread: C format strings, without their values.

    Nothing where its functions are not to be found (Pillow on Windows).
    """
    heard: list[str] = []
    _heard.messages = heard
    _install(1)
    try:
        yield heard
    finally:
        _install(-1)
        del _heard.messages


def _install(change: int) -> None:
    """Install the handler for the first user, and restore the previous one after the last."""
    global _users, _previous
    with _lock:
        _users += change
        if _users == (1 if change > 0 else 0) and (install := _installer()) is not None:
            _previous = install(_HANDLER if change > 0 else _previous or HANDLER())


def _installer() -> Any:
    """TIFFSetErrorHandler of the libtiff that Pillow's extension module is linked with; None where there is none."""
    path = getattr(getattr(Image, "core", None), "__file__", None)
    try:
        function = ctypes.CDLL(path).TIFFSetErrorHandler
    except (AttributeError, OSError, TypeError):
        return None
    function.restype, function.argtypes = HANDLER, [HANDLER]
    return function
