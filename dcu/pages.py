"""Self-contained HTML pages from templates in the package."""

from __future__ import annotations

from importlib import resources
from importlib.util import find_spec
from typing import Any

from dcu.errors import UnavailableError


def check_packages(extra: str) -> None:
    """Raise UnavailableError, which names the extra to install, where Jinja is missing."""
    if find_spec("jinja2") is None:
        raise UnavailableError(f"jinja2 is not installed: pip install 'dcu-codec[{extra}]'")


def render(package: str, template: str, **values: Any) -> str:
    """A page from a template of a package; values are escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(resources.files(package).joinpath(template).read_text("utf-8")).render(values)
