"""Prints the oldest release of each dependency that pyproject.toml allows, as pip takes it; torch is left out."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

EXTRAS = ("bench", "cloud", "fast", "formats", "parquet", "train")


def oldest() -> list[str]:
    """Requirements of the package and of its extras, each at its lower bound."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *(each for extra in EXTRAS for each in project["optional-dependencies"][extra])]
    pinned = dict.fromkeys(
        each.replace(">=", "==") for each in wanted if not re.match(r"(torch|dcu-codec)\b[^-]", each)
    )
    return list(pinned)


if __name__ == "__main__":
    print("\n".join(oldest()))
