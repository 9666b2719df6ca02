"""What README.md and docs/quickstart.md print runs as printed, in order, with the released models."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import code_blocks

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "quickstart.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DCU_MODELS")  # not the tiny ones of other tests
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    code_blocks.run(page, tmp_path / "work")


def test_blocks_that_do_not_run_install(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```\nmake test\npip install .\nfalse\n```\n```python\nraise SystemExit(1)\n```\n")
    found = [words[-1] for words in code_blocks.commands(page)]
    assert found == ["false", "raise SystemExit(1)\n"]
    with pytest.raises(RuntimeError, match="false"):
        code_blocks.run(page, tmp_path / "work")


def test_budgets_of_training(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```\ndcu train codec x --minutes 60\ndcu bench --seconds 20 --json\n```\n")
    lines = [words[-1] for words in code_blocks.commands(page)]
    assert lines == ["dcu train codec x --minutes 0.02", "dcu bench --seconds 0 --json"]


def test_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 130
    assert len(text.split()) <= 1200
