"""Every error that a user can cause, with its exit code (sysexits.h)."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class DcuError(Exception):
    """Base class of all errors; the message is one line for the user."""

    exit_code = 1


class UsageError(DcuError):
    """Invalid options or arguments."""

    exit_code = 2


class InvalidInputError(DcuError):
    """The input is invalid or damaged."""

    exit_code = 65


class MissingInputError(DcuError):
    """The input does not exist or cannot be opened."""

    exit_code = 66


class UnavailableError(DcuError):
    """A model, its weights or a package is not installed or not valid."""

    exit_code = 69


class OutputError(DcuError):
    """The output cannot be written."""

    exit_code = 73


@contextmanager
def named(name: str) -> Iterator[None]:
    """Put a name before what is said of its content."""
    try:
        yield
    except (InvalidInputError, UnavailableError) as error:
        raise type(error)(f"{name}: {error}") from error


def of_exit_code(code: int, message: str) -> Exception:
    """An error of the class that has an exit code; 1 is that of memory."""
    classes = {each.exit_code: each for each in DcuError.__subclasses__()}
    return classes[code](message) if code in classes else MemoryError(message)


def out_of_memory(error: Exception) -> bool:
    """Whether there was not enough memory, as Python or PyTorch say it."""
    return isinstance(error, MemoryError) or any(
        said in str(error) for said in ("not enough memory", "allocate memory", "out of memory")
    )
