"""Signals that end a run: all of them clean up as Ctrl-C does."""

from __future__ import annotations

import os
import signal
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
received: list[int] = []
"""The signals that came, in order."""


def install() -> None:
    """Have the signals raise KeyboardInterrupt; those that the caller ignores (nohup, a shell's ``&``) stay ignored."""
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a worker that was forked
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        received.append(number)
        if importing(frame):  # extension modules swallow exceptions while they load; there is nothing to clean up
            os.write(2, b"dcu: interrupted\n")
            os._exit(exit_code())
        raise KeyboardInterrupt

    for number in ENDING:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            signal.signal(number, end)


def ignore() -> None:
    """Let nothing disturb the interpreter while it ends: the work is done."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported where a signal came in."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def exit_code() -> int:
    """Of a run that was interrupted: 128 and the signal's number, as shells count."""
    return 128 + (received[0] if received else signal.SIGINT)
