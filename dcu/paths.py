"""Where dcu looks for models and keeps its files."""

from __future__ import annotations

import os
from pathlib import Path


def shipped(kind: str) -> Path:
    """The directory ``models``, ``configs`` or ``samples`` that dcu carries, in a wheel or in a checkout."""
    inside = Path(__file__).parent / "_shipped" / kind
    return inside if inside.is_dir() else Path(__file__).parent.parent / kind


def user_models() -> Path:
    """Where models that the user trained are kept."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "dcu" / "models"


def search_path() -> list[Path]:
    """The directories in which names are looked up, in order."""
    chosen = [Path(part) for part in os.environ.get("DCU_MODELS", "").split(os.pathsep) if part]
    return [*chosen, user_models(), shipped("models")]


def cache_directory() -> Path:
    """Where what is built once is kept: $DCU_CACHE, or dcu/ in the user's cache directory."""
    if chosen := os.environ.get("DCU_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dcu"
