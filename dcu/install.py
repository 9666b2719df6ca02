"""Where new models go, and what they must not harm; removing those that the user installed."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from dcu import paths, store
from dcu.errors import OutputError, UnavailableError, UsageError
from dcu.schema import NAME


def place_for(name: str, out: Path | None) -> Path:
    """The directory of a new model: what the user named, or of its name in the user's data directory.

    Raises
    ------
    UsageError
        Neither is there; a directory whose name cannot be a model's.
    """
    if out is None:
        user = paths.user_models()
        if user is None:
            raise UsageError("no home directory for models: set the model's directory with --out")
        out = user / name
    directory = Path(os.path.abspath(out))
    if not re.fullmatch(NAME, directory.name):
        raise UsageError(f"--out: '{directory.name}' is not a valid model name")
    return directory


def check_free(directory: Path, force: bool) -> None:
    """Refuse to write a model where it would overwrite or hide another one, or where nothing can be written.

    Raises
    ------
    OutputError
        A model is there already, or no directory can be made there.
    UsageError
        It would hide an installed model of that name, or be hidden by it.
    """
    there = next(place for place in (directory, *directory.parents) if os.path.lexists(place))
    if not os.path.isdir(there):
        raise OutputError(f"{there}: not a directory")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"{there}: cannot be written")
    if force:
        return
    if any(os.path.lexists(directory / name) for name in (store.CARD, store.WEIGHTS)):
        raise OutputError(f"{directory}: model exists; use --force to overwrite it")
    searched = {os.path.realpath(place) for place in paths.search_path()}
    if os.path.realpath(directory.parent) in searched:
        for other in store.directories():
            if other.name == directory.name:
                raise UsageError(
                    f"{directory.name}: a model of this name is installed ({other}); "
                    "choose another with --out, or use --force to shadow it"
                )


def remove(name: str) -> Path:
    """Remove a model that the user installed; other files of its directory stay. Its directory.

    Raises
    ------
    UsageError
        A path; a model that is not in the user's data directory.
    UnavailableError
        There is none of that name.
    OutputError
        It cannot be removed.
    """
    if store.is_path(name):
        raise UsageError(f"{name}: is a path; models are removed from the user's data directory by name")
    user = paths.user_models()
    there = [directory for directory in store.directories() if directory.name == name]
    own = [directory for directory in there if directory.parent == user]
    if not there:
        raise UnavailableError(f"{name}: model not installed")
    if not own:
        whose = "is a released model" if there[0].parent == paths.shipped("models") else f"is in {there[0].parent}"
        raise UsageError(f"{name}: {whose}; only models in the user's data directory are removed")
    try:
        if own[0].is_symlink():
            own[0].unlink()
            return own[0]
        for file in (store.CARD, store.WEIGHTS):  # the card first: without it there is no model
            (own[0] / file).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # what is not dcu's stays
            own[0].rmdir()
    except OSError as error:
        raise OutputError(f"{own[0]}: {error.strerror}") from error
    return own[0]
