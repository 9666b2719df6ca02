"""Pages of documentation and experiments: links lead somewhere, pages stay short, experiments are complete."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import pytest

from .code_blocks import BLOCK
from .test_help import parse

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "experiments").rglob("*.md")])
EXPERIMENTS = sorted(path for path in (ROOT / "experiments").iterdir() if path.is_dir())
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text("utf-8")):
        if "://" not in target and not target.startswith("#"):
            assert (page.parent / target.partition("#")[0]).exists(), target


INLINE = re.compile(r"(?<=`)dcu [a-z][^`\n]+ --[a-z][^`\n]*(?=`)")
"""Commands in a sentence or a table, if they have an option; arguments may be missing."""
USER_PAGES = [page for page in PAGES if "experiments" not in page.parts and page.name != "CHANGELOG.md"]


@pytest.mark.parametrize("page", USER_PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_printed_commands_are_those_of_the_command_line(page: Path) -> None:
    text = page.read_text("utf-8")
    for line in [line for _, block in BLOCK.findall(text) for line in block.splitlines()]:
        for command in line.split(" | "):
            if command.startswith("dcu "):
                parse(shlex.split(command.partition(" > ")[0], comments=True)[1:])
    for command in INLINE.findall(text):
        if "..." not in command:
            parse(shlex.split(command)[1:], complete=False)


def test_pages_stay_short() -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert len(page.read_text("utf-8").split()) <= 3000, page


@pytest.mark.parametrize("directory", EXPERIMENTS, ids=lambda path: path.name)
def test_experiments_are_complete_and_listed(directory: Path) -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-[a-z0-9.-]+", directory.name)
    assert "**Shipped.**" in (directory / "notes.md").read_text("utf-8")
    with (directory / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert all(None not in row and None not in row.values() for row in rows), "as many cells as columns"
    assert f"({directory.name}/notes.md)" in (ROOT / "experiments" / "README.md").read_text("utf-8")
