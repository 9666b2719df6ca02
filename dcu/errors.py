"""Every error that a user can cause, with its exit code (sysexits.h)."""

from __future__ import annotations


class DcuError(Exception):
    """An error with a message of one line for the user; the base of all others."""

    exit_code = 1


class UsageError(DcuError):
    """The command line asks for what cannot be done."""

    exit_code = 2


class InvalidInputError(DcuError):
    """The input exists but is not what it should be."""

    exit_code = 65


class MissingInputError(DcuError):
    """The input does not exist or cannot be opened."""

    exit_code = 66


class UnavailableError(DcuError):
    """A model, its weights or a package is not installed, or not what it should be."""

    exit_code = 69


class OutputError(DcuError):
    """The output cannot be written."""

    exit_code = 73


def out_of_memory(error: Exception) -> bool:
    """Whether there was not enough memory, as Python or PyTorch say it."""
    return isinstance(error, MemoryError) or any(
        said in str(error) for said in ("not enough memory", "allocate memory", "out of memory")
    )
