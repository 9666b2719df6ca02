"""What libtiff says while it decodes: to dcu, not to standard error.

libtiff prints messages unless the program installs handlers, which hold for the whole process. dcu's are installed
only while it decodes; messages of other threads are passed on to the handlers that were there before.
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
KINDS = {"error": "TIFFSetErrorHandler", "warning": "TIFFSetWarningHandler"}
Message = tuple[str, str, str]
"""Kind, module, and the message before its values are put in."""

_heard = threading.local()
_lock = threading.Lock()
_users = 0
_previous: dict[str, Any] = {}


def _handler(kind: str) -> Any:
    def handle(module: bytes | None, text: bytes | None, values: int | None) -> None:
        messages = getattr(_heard, "messages", None)
        if messages is not None:
            messages.append((kind, (module or b"").decode("latin-1"), (text or b"").decode("latin-1")))
        elif previous := _previous.get(kind):
            previous(module, text, values)

    return HANDLER(handle)


_HANDLERS = {kind: _handler(kind) for kind in KINDS}


@contextmanager
def messages() -> Iterator[list[Message]]:
    """What libtiff says in this thread; nothing where its functions are not to be found (Pillow on Windows)."""
    heard: list[Message] = []
    _heard.messages = heard
    _install(1)
    try:
        yield heard
    finally:
        _install(-1)
        del _heard.messages


def _install(change: int) -> None:
    """Install the handlers for the first user, and restore the previous ones after the last."""
    global _users
    with _lock:
        _users += change
        if _users == (1 if change > 0 else 0):
            for kind, name in KINDS.items():
                if (function := _setter(name)) is not None:
                    found = function(_HANDLERS[kind] if change > 0 else _previous.get(kind) or HANDLER())
                    _previous[kind] = found if change > 0 else None


def _setter(name: str) -> Any:
    """A function of the libtiff that Pillow's extension module is linked with; None where there is none."""
    path = getattr(getattr(Image, "core", None), "__file__", None)
    try:
        function = getattr(ctypes.CDLL(path), name)
    except (AttributeError, OSError, TypeError):
        return None
    function.restype, function.argtypes = HANDLER, [HANDLER]
    return function
