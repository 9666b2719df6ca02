"""Import arrows point downward only (docs/architecture.md, "Layers")."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dcu"
FLOORS = [
    {"cli", "__main__", "api", "pillow", "torch"},
    {"bench"},
    {"train", "evaluate"},
    {"tasks", "search"},
    {"codec", "encoding", "data", "datasets"},
    {"coding", "metadata", "rate_control"},
    {"entropy", "install", "store", "weights", "engines", "regions"},
    {"arguments"},
    {"jobs"},
    {"bitstream", "image", "nets", "cache", "threads", "batching", "precision"},
    {"io", "paths", "cards", "old_cards", "labels", "schema", "walk", "shards", "tables", "remote", "pages"},
    {"errors", "geometry", ""},
]
LEVEL = {room: level for level, floor in enumerate(FLOORS) for room in floor}


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "" if parts[0] == "__init__" else parts[0]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_point_downwards(path: Path) -> None:
    here = room_of(path)
    if not here:
        return
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "dcu":
            there = parts[1] if parts[1] in LEVEL else ""
            assert LEVEL[there] >= LEVEL[here], f"{here} imports {name}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "nets").glob("*.py")), ids=lambda p: p.name)
def test_networks_import_torch_alone(path: Path) -> None:
    for name in imported(path):
        root = name.split(".")[0]
        assert root in ("torch", "dcu") or root in sys.stdlib_module_names
        assert root != "dcu" or name.startswith(("dcu.nets", "dcu.geometry"))


@pytest.mark.parametrize(
    "module", ["dcu", "dcu.bitstream", "dcu.image", "dcu.store", "dcu.cli.app", "dcu.cli.info", "dcu.pillow"]
)
def test_torch_is_not_imported(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_training_imports_itself_in_no_circle() -> None:
    modules = {path.stem: set(imported(path)) for path in (PACKAGE / "train").glob("*.py") if path.stem != "__init__"}
    wanted = {
        name: {other for other in modules if any(f"{line}.".startswith(f"dcu.train.{other}.") for line in lines)}
        for name, lines in modules.items()
    }
    while ready := {name for name, others in wanted.items() if not others}:
        wanted = {name: others - ready for name, others in wanted.items() if name not in ready}
    assert not wanted


def test_modules_stay_short() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text("utf-8").splitlines()) <= 400, path
