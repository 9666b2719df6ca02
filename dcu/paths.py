"""Where dcu looks for models and keeps its files."""

from __future__ import annotations

import functools
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import platformdirs


@functools.cache
def shipped(kind: str) -> Path:
    """The directory ``models``, ``configs`` or ``samples`` that dcu carries, in a wheel or in a checkout."""
    inside = Path(__file__).parent / "_shipped" / kind
    return inside if inside.is_dir() else Path(__file__).parent.parent / kind


def user_directory(kind: str) -> Path | None:
    """The user's directory of a kind, "data" or "cache", for dcu; None where there is no home directory.

    $XDG_DATA_HOME and $XDG_CACHE_HOME count where they are absolute, as the XDG Base Directory Specification says.
    """
    return _user_directory(kind, os.environ.get("HOME"), os.environ.get(f"XDG_{kind.upper()}_HOME"))


@functools.cache  # looked up for every bitstream
def _user_directory(kind: str, *_environment: str | None) -> Path | None:
    """The same, by the variables that it depends on."""
    with suppress(RuntimeError):  # neither HOME nor a passwd entry, as in containers with a foreign user id
        place: Path = getattr(platformdirs, f"user_{kind}_path")("dcu", appauthor=False)
        return place if place.is_absolute() else None
    return None


def user_models() -> Path | None:
    """Where models that the user trained are kept; None where there is no home directory."""
    data = user_directory("data")
    return data / "models" if data else None


def search_path() -> list[Path]:
    """The directories in which names are looked up, in order, all absolute."""
    chosen = [Path(part).absolute() for part in os.environ.get("DCU_MODELS", "").split(os.pathsep) if part]
    own = user_models()
    return [*chosen, *([own] if own else []), shipped("models")]


def cache_directory() -> Path:
    """Where what is built once is kept: $DCU_CACHE, or dcu/ in the user's cache directory, or a temporary directory."""
    if chosen := os.environ.get("DCU_CACHE"):
        return Path(chosen)
    return user_directory("cache") or Path(tempfile.gettempdir(), f"dcu-{os.getuid()}")
