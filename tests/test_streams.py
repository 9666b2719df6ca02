"""Standard streams: every command with files, directories and pipes, and with terminals, files and pipes as outputs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dcu import bitstream, paths
from dcu.cli.console import printable
from dcu.codec import Codec
from dcu.image import read_image

from .conftest import Dcu, png, smooth_image
from .spawn import run

NAMES = ("a", "b", "c", "d")
BROKEN = "bb"
CALLS = {
    "compress": ("compress", "-o", "out"),
    "decode": ("decode", "-o", "out"),
    "segment": ("segment", "-o", "out"),
    "embed": ("embed", "-o", "out"),
    "classify": ("classify", "--engine", "pytorch"),
    "info": ("info",),
    "verify": ("verify",),
}
JSON_CALLS = {
    "compress": ("compress", "-o", "out", "--json"),
    "segment": ("segment", "-o", "out", "--json"),
    "segment without -o": ("segment", "--json"),
    "embed": ("embed", "--json"),
    "classify": ("classify", "--engine", "pytorch", "--json"),
    "info": ("info", "--json"),
    "verify": ("verify", "--json"),
}
WRITING = ("compress", "decode", "segment", "embed")
PRINTING = ("segment", "classify", "info", "verify")


@pytest.fixture
def work(tmp_path: Path, codec: Codec, segmenter: Path) -> Path:
    """images/ and bins/ of four images, and one of each that is damaged."""
    for directory in ("images", "bins"):
        (tmp_path / directory).mkdir()
    for seed, name in enumerate(NAMES):
        image = smooth_image(16, 24, seed)
        (tmp_path / "images" / f"{name}.png").write_bytes(png(image))
        (tmp_path / "bins" / f"{name}.bin").write_bytes(codec.compress(image))
    (tmp_path / "images" / f"{BROKEN}.png").write_bytes(b"\x89PNG")
    (tmp_path / "bins" / f"{BROKEN}.bin").write_bytes(b"\xdcu\x01")
    return tmp_path


def inputs(work: Path, command: str, kind: str) -> list[str]:
    """A directory, or its files."""
    directory = "images" if command == "compress" else "bins"
    return (
        [directory]
        if kind == "directory"
        else sorted(f"{directory}/{path.name}" for path in (work / directory).iterdir())
    )


@pytest.mark.parametrize("out", ["pipe", "file", "terminal"])
@pytest.mark.parametrize("kind", ["directory", "files"])
@pytest.mark.parametrize("call", JSON_CALLS)
def test_json_has_a_line_for_every_input(work: Path, call: str, kind: str, out: str) -> None:
    """Whatever standard output is, and with progress on a terminal beside it; failed inputs are lines too."""
    command = JSON_CALLS[call]
    ran = run(*command, *inputs(work, command[0], kind), scratch=work, out=out, err="terminal")
    assert ran.code == 65
    assert [Path(line["input"]).stem for line in ran.lines] == ["a", "b", BROKEN, "c", "d"]
    failed = [line for line in ran.lines if "error" in line]
    assert [set(line) for line in failed] == [{"input", "error", "exit_code"}]
    assert failed[0]["exit_code"] == 65
    assert f"{BROKEN}." in ran.err
    assert '{"' not in ran.err
    if "-o" in command:
        assert len(list((work / "out").iterdir())) == len(NAMES)


@pytest.mark.parametrize("out", ["pipe", "terminal"])
@pytest.mark.parametrize("call", ["segment without -o", "embed", "classify", "info", "verify"])
def test_json_has_a_line_for_every_stream_of_a_pipe(work: Path, call: str, out: str) -> None:
    data = b"".join((work / "bins" / f"{name}.bin").read_bytes() for name in NAMES)
    ran = run(*JSON_CALLS[call], "-", data=data + b"rest", scratch=work, out=out, err="terminal")
    assert ran.code == 65
    assert [line["input"] for line in ran.lines] == ["-"] * 5
    assert "error" in ran.lines[-1]


@pytest.mark.parametrize("command", WRITING)
def test_what_writes_files_outlives_its_standard_output(work: Path, command: str) -> None:
    json_too = ["--json"] if command in ("compress", "segment") else []
    ran = run(*CALLS[command], *json_too, *inputs(work, command, "directory"), "-q", scratch=work, out="gone")
    assert ran.code == 65  # of the damaged one: all the others were done
    assert len(list((work / "out").iterdir())) == len(NAMES)


@pytest.mark.parametrize("call", ["segment without -o", "embed", "classify", "info", "verify"])
def test_what_only_prints_stops_quietly_when_nobody_reads(work: Path, call: str) -> None:
    (work / "bins" / f"{BROKEN}.bin").unlink()
    ran = run(*JSON_CALLS[call], "bins", scratch=work, out="gone")
    assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize("call", JSON_CALLS)
def test_standard_output_that_was_closed_is_an_error(work: Path, call: str) -> None:
    command = JSON_CALLS[call]
    ran = run(*command, *inputs(work, command[0], "directory"), scratch=work, out="closed")
    assert (ran.code, ran.err) == (73, "dcu: standard output is closed\n")
    assert not (work / "out").exists()


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["models", "list"], ["data", "list"], ["info", "--help"]]
)
def test_help_and_lists_need_standard_output(work: Path, arguments: list[str]) -> None:
    assert run(*arguments, scratch=work, out="closed").code == 73
    assert run(*arguments, scratch=work, out="gone").code == 0


@pytest.mark.parametrize("command", ["compress", "decode", "embed"])
def test_what_prints_nothing_needs_no_standard_output(work: Path, command: str) -> None:
    assert run(*CALLS[command], *inputs(work, command, "files")[:2], scratch=work, out="closed").code == 0
    assert len(list((work / "out").iterdir())) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("command", CALLS)
def test_standard_error_changes_no_result(work: Path, command: str) -> None:
    directory = "images" if command == "compress" else "bins"
    for path in (work / directory).glob(f"{BROKEN}.*"):
        path.unlink()
    assert run(*CALLS[command], directory, scratch=work, err="full").code == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_standard_error_in_a_process_of_its_own(work: Path) -> None:
    """The interpreter's own last flush included."""
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "dcu", "verify", str(work / "bins" / "a.bin"), "missing.bin"]
        assert subprocess.run(command, stderr=full, stdout=subprocess.DEVNULL, check=False).returncode == 66


HOSTILE = "esc\x1b[31m\n\x7fred\u202e"
ESCAPED = r"esc\x1b[31m\x0a\x7fred\u202e"


@pytest.mark.parametrize("out", ["pipe", "terminal"])
@pytest.mark.parametrize("command", PRINTING)
def test_control_characters_in_names_are_escaped_everywhere(work: Path, command: str, out: str) -> None:
    name = f"{HOSTILE}.bin"
    (work / name).write_bytes((work / "bins" / "a.bin").read_bytes())
    more = ["-o", "out"] if command == "segment" else []
    ran = run(command, name, "none\x1b\x07.bin", *more, scratch=work, out=out, err=out)
    assert ran.out.startswith(f"{ESCAPED}.bin")
    assert "\x1b" not in ran.out
    assert ran.err.splitlines()[-1].endswith("dcu: none\\x1b\\x07.bin: No such file or directory")
    assert "\x07" not in ran.err
    (line, _) = run(command, name, "none", "--json", scratch=work, out=out, err="pipe").lines
    assert line["input"] == name


def test_bytes_that_are_no_text_are_escaped_too() -> None:
    assert printable(os.fsdecode(b"a\xff\x1b")) == r"a\xff\x1b"


@pytest.mark.parametrize("command", ["decode", "segment", "embed"])
def test_every_stream_of_a_pipe_gets_a_file(work: Path, codec: Codec, command: str) -> None:
    data = b"".join((work / "bins" / f"{name}.bin").read_bytes() for name in NAMES)
    assert run(*CALLS[command], "-", data=data, scratch=work).code == 2  # out is no directory yet: one file
    assert not (work / "out").exists()
    (work / "out").mkdir()
    assert run(*CALLS[command], "-", data=data, scratch=work).code == 0
    names = ["stdin-2", "stdin-3", "stdin-4", "stdin"]
    made = sorted((work / "out").iterdir())
    assert [path.stem for path in made] == names
    if command == "decode":
        assert (read_image(made[0].read_bytes()) == codec.decode((work / "bins/b.bin").read_bytes())).all()


@pytest.mark.parametrize("command", ["decode", "segment", "embed"])
@pytest.mark.parametrize("target", ["-", "one"])
def test_several_streams_do_not_fit_into_one_result(work: Path, command: str, target: str) -> None:
    data = (work / "bins/a.bin").read_bytes()
    target = target if target == "-" else "one.npy" if command == "embed" else "one.png"
    ran = run(command, "-", "-o", target, data=data + data, scratch=work)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "dcu: -: holds several streams: name a directory with -o\n"
    assert not (work / target).exists()


@pytest.mark.parametrize("command", WRITING)
def test_a_terminal_gets_no_binary_data(work: Path, command: str) -> None:
    data = (work / ("images/a.png" if command == "compress" else "bins/a.bin")).read_bytes()
    ran = run(command, "-", data=data, scratch=work, out="terminal")
    assert (ran.code, ran.out) == (2, "")


@pytest.mark.parametrize("columns", ["20", "1000"])
def test_tables_break_no_words_where_the_terminal_is_narrow(
    work: Path, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    ran = run("models", "list", scratch=work, out="terminal")
    rows = [line.split() for line in ran.out.splitlines()]
    names = {path.name for path in paths.shipped("models").iterdir()}
    assert names <= {row[0] for row in rows if len(row) == 5}


@pytest.mark.parametrize("columns", ["0", "-1", "x", "1", ""])
@pytest.mark.parametrize(
    "command", ["", *{call[0]: 0 for call in CALLS.values()}, "models", "train", "eval", "bench", "data"]
)
def test_help_of_any_width(dcu: Dcu, monkeypatch: pytest.MonkeyPatch, command: str, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    answer = dcu(*command.split(), "--help")
    assert answer.code == 0
    assert "Usage: dcu" in answer.out
    assert len(answer.out.splitlines()) > 5


def test_help_keeps_what_is_in_brackets(dcu: Dcu) -> None:
    for command in ("classify", "eval classifier"):
        assert "dcu-codec[fast]" in re.sub(r"\s+", "", dcu(*command.split(), "--help").out)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("command", WRITING)
def test_signals_leave_complete_files_only(work: Path, codec: Codec, command: str, number: int) -> None:
    directory = work / ("images" if command == "compress" else "bins")
    data = (directory / ("a.png" if command == "compress" else "a.bin")).read_bytes()
    for index in range(2000):
        (directory / f"{index:04}{'.png' if command == 'compress' else '.bin'}").write_bytes(data)

    def end(pid: int) -> None:
        while not list(work.glob("out/[!.]*")):
            time.sleep(0.01)
        os.kill(pid, number)

    ran = run(*CALLS[command], directory, "-q", scratch=work, meanwhile=end)
    assert ran.code == 128 + number
    assert ran.err == "dcu: interrupted\n"
    made = list((work / "out").iterdir())
    assert 0 < len(made) < 2000
    assert {path.suffix for path in made} <= {".bin", ".png", ".npy"}
    if command == "compress":
        assert all(bitstream.read(path.read_bytes()).size == path.stat().st_size for path in made)


@pytest.mark.parametrize("delay", [0.15, 0.3, 0.6, 1.0, 1.5])
def test_interrupt_while_modules_are_imported(work: Path, delay: float) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the suite runs in the background
    command = [sys.executable, "-m", "dcu", "classify", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        signal.signal(signal.SIGINT, before)
        time.sleep(delay)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    if b"site.py" in err or b"runpy" in err:
        pytest.skip("the interpreter itself had not started")
    assert child.returncode == 130
    assert (out, err) in ((b"", b"dcu: interrupted\n"), (b"", b""))


def test_progress_is_for_terminals_only(work: Path) -> None:
    assert "\x1b[K" in run("info", "bins", scratch=work, err="terminal").err
    for kind in ("pipe", "file"):
        assert "\r" not in run("info", "bins", scratch=work, err=kind).err
    assert "\x1b" not in run("info", "bins", "-q", scratch=work, err="terminal").err


@pytest.mark.parametrize(
    "arguments", [["list"], ["show", "codec-0.0983"], ["verify", "codec-0.0983", "classifier-0.0983"]]
)
def test_models_speak_json(dcu: Dcu, own_models: Path, arguments: list[str]) -> None:
    (own_models / "classifier-0.0983" / "weights.safetensors").write_bytes(b"")
    answer = dcu("models", *arguments, "--json")
    assert answer.lines
    if arguments[0] == "verify":
        assert answer.code == 69
        assert [(line["input"], line.get("exit_code")) for line in answer.lines] == [
            ("codec-0.0983", None),
            ("classifier-0.0983", 69),
        ]
