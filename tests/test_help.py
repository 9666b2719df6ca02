"""Help, completion, versions, suggestions and --dry-run of every command."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

import dcu as package
from dcu import engines
from dcu.cli import app, options
from dcu.evaluate import baselines
from dcu.image.legend import SPARE, with_legend

from .conftest import Dcu, one_line, process, smooth_image

ROOT = Path(__file__).parent.parent


def commands(group: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The names of every command that is no group."""
    for name, stub in group.commands.items():
        command = app.loaded(name) if group is ROOT_GROUP else stub
        if hasattr(command, "commands"):
            yield from commands(command, (*names, name))
        else:
            yield (*names, name)


ROOT_GROUP: Any = typer.main.get_command(app.app)
COMMANDS = list(commands(ROOT_GROUP))


def parse(words: list[str], complete: bool = True) -> None:
    """Parse a call; raises a usage error where a command, an option, a value or (``complete``) an argument is wrong."""
    if words[0].startswith("-"):
        return
    command, rest = app.loaded(words[0]), words[1:]
    while hasattr(command, "commands") and rest:
        _, command, rest = command.resolve_command(command.make_context(words[0], rest), rest)
    try:
        command.make_context(words[0], rest)
    except Exception as error:  # of typer's copy of click
        if complete or type(error).__name__ != "MissingParameter":
            raise


@pytest.mark.parametrize("names", [(), *COMMANDS], ids=" ".join)
def test_help_fits_and_has_an_example_that_parses(dcu: Dcu, names: tuple[str, ...]) -> None:
    answer = dcu(*names, "-h")
    assert answer.code == 0
    assert answer.out == dcu(*names, "--help").out
    assert max(map(len, answer.out.splitlines())) <= 80
    assert "..." not in answer.out.partition("Commands:")[2]  # no summary is cut
    (example,) = re.findall(r"^  Example: dcu (.+)$", answer.out, re.MULTILINE)
    words = shlex.split(example)
    assert tuple(words[: len(names)]) == names
    parse(words)


def test_summaries_are_the_first_lines_of_help(dcu: Dcu) -> None:
    for name, summary in app.COMMANDS.items():
        answer = dcu(name, "--help").out
        assert f"\n  {summary}" in answer
        assert "..." not in answer.partition("Commands:")[2], "no summary is cut"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(["compres"], "'compress'"), (["models", "lst"], "'list'"), (["compress", "x", "--qiet"], "--quiet")],
)
def test_mistyped_names_get_a_suggestion(dcu: Dcu, typed: list[str], meant: str) -> None:
    answer = dcu(*typed)
    assert answer.code == 2
    assert one_line(answer.err)
    assert meant in answer.err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dcu comp", ["compress"]),
        ("dcu train se", ["segmenter"]),
        ("dcu classify --vie", ["--view", "--views"]),
        ("dcu classify --engine p", ["pytorch"]),
        (
            "dcu classify --network classifier",
            ["classifier-0.0983", "classifier-0.330", "classifier-0.635", "classifier-2"],
        ),
    ],
)
def test_completion(line: str, expected: list[str]) -> None:
    count = str(len(line.split()) - 1)
    answer = process(_DCU_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=count)
    assert answer.stdout.decode().split() == expected, answer.stderr
    assert answer.returncode == 0


def test_completion_script_is_printed() -> None:
    assert b"_DCU_COMPLETE=complete_bash" in process(_DCU_COMPLETE="source_bash").stdout


def test_versions(dcu: Dcu) -> None:
    answer = dcu("-V")
    assert answer.out == dcu("--version").out
    assert answer.out.startswith(f"dcu {package.__version__}\n")
    for name in ("Python", "PyTorch", "ONNX Runtime", "CPU features", "classifier-0.0983 ("):
        assert name in answer.out


def test_version_and_names_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["name"] == "dcu-codec"
    assert project["scripts"] == {"dcu": "dcu.__main__:main"}
    assert "version" not in project  # it is in dcu/__init__.py alone
    assert f"## {package.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_engines_and_formats_are_those_of_the_library() -> None:
    assert get_args(options.Engine) == engines.NAMES
    assert tuple(sorted(baselines.FORMATS)) == options.FORMATS


@pytest.mark.parametrize("command", ["compress", "decode", "embed", "segment"])
def test_dry_run_writes_nothing(dcu: Dcu, photo: Path, tmp_path: Path, command: str) -> None:
    bins, out = tmp_path / "bins", tmp_path / "out"
    dcu("compress", photo, "-o", bins / "photo.bin")
    before = sorted(tmp_path.rglob("*"))
    source = photo if command == "compress" else bins
    answer = dcu(command, source, bins / "missing", "-o", out, "--dry-run")
    assert answer.code == 66
    suffix = {"compress": ".bin", "decode": ".png", "embed": ".npy", "segment": ".png"}[command]
    assert answer.out.endswith(f" -> {out / 'photo'}{suffix}\n")
    assert sorted(tmp_path.rglob("*")) == before


def test_dry_run_names_what_exists(dcu: Dcu, photo: Path, tmp_path: Path) -> None:
    place = tmp_path / "photo.bin"
    place.write_bytes(b"mine")
    assert dcu("compress", photo, "-o", place, "--dry-run").out == f"{photo} -> {place} (exists)\n"
    (line,) = dcu("compress", photo, "-o", place, "--dry-run", "--json").lines
    assert line == {"input": str(photo), "output": str(place), "exists": True}
    assert place.read_bytes() == b"mine"


def test_dry_run_of_what_failed(dcu: Dcu, photo: Path, tmp_path: Path) -> None:
    broken, report = tmp_path / "broken.png", tmp_path / "report.jsonl"
    broken.write_bytes(b"no image")
    command = ("compress", photo, broken, "-o", tmp_path / "bins")
    assert dcu(*command, "--report", report).code == 65
    assert dcu(*command, "--retry", report, "--dry-run").out == f"{broken} -> {tmp_path / 'bins' / 'broken.bin'}\n"


def test_dry_run_of_data_sets(dcu: Dcu, tmp_path: Path) -> None:
    answer = dcu("data", "build", "kodak", "--clones", tmp_path, "-o", tmp_path / "data", "--dry-run")
    assert (answer.code, answer.out) == (0, f"{tmp_path / 'data' / 'kodak-odd.tar'}\n")
    assert not (tmp_path / "data").exists()


@pytest.mark.usefixtures("segmenter")
def test_list_classes(dcu: Dcu) -> None:
    lines = dcu("segment", "--list-classes", "--json").lines
    assert lines[0] == {"index": 0, "label": "sky", "color": "#0000ff"}
    assert "#102030" in dcu("segment", "--list-classes").out
    assert one_line(dcu("segment").err)


def test_legend_has_a_square_of_each_color() -> None:
    image, colors = smooth_image(60, 80), {"sky": (1, 2, 250), "a class of a long name": (9, 80, 7)}
    out = with_legend(image, colors.items())
    assert (out[:60] == image).all()
    for color in colors.values():
        assert (out[60:] == color).all(2).sum() >= 100
    flat = smooth_image(1, SPARE)
    assert with_legend(flat, colors.items()).shape == flat.shape
