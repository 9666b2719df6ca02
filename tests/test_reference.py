"""docs/reference/{cli,cli-models,python}.md are those of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

import dcu as package
from docs import reference


@pytest.mark.parametrize("columns", ["40", "200"])
@pytest.mark.parametrize("page", reference.PAGES)
def test_generated_pages_are_up_to_date(page: str, columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert (reference.REFERENCE / page).read_text("utf-8") == reference.PAGES[page](), "run `make docs`"


def test_every_public_name_is_documented() -> None:
    documented = {name for names in reference.GROUPS.values() for name in names}
    assert documented | {"__version__"} == set(package.__all__)


def test_exit_codes_are_those_of_the_errors() -> None:
    text = Path(reference.REFERENCE / "exit-codes.md").read_text("utf-8")
    for name in reference.GROUPS["Errors"][1:]:
        assert f"`{name}` ({getattr(package, name).exit_code})" in text
        assert f"| {getattr(package, name).exit_code} |" in text
