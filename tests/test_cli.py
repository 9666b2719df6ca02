from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dcu import bitstream
from dcu.codec import Codec
from dcu.image import read_image

from .conftest import Dcu, one_line, png, process, smooth_image


@pytest.fixture
def holiday(tmp_path: Path) -> Path:
    directory = tmp_path / "holiday"
    for index, name in enumerate(("a.png", "day1/b.png", "day2/b.png")):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(smooth_image(24 + index, 30, seed=index)))
    (directory / "notes.txt").write_text("no image")
    return directory


def test_file_there_and_back(dcu: Dcu, photo: Path, tmp_path: Path) -> None:
    stream, back = tmp_path / "photo.bin", tmp_path / "back.png"
    assert dcu("compress", photo, "-o", stream).code == 0
    assert dcu("decode", stream, "-o", back).code == 0
    assert read_image(back.read_bytes()).shape == (40, 52, 3)
    assert dcu("verify", stream).out.startswith(f"{stream}: valid, {stream.stat().st_size} bytes")
    shown = dcu("classify", stream, "--top", "2").out
    assert shown.splitlines()[0] == str(stream)
    assert shown.count("%") == 2


def test_json_shapes(dcu: Dcu, photo: Path, tmp_path: Path) -> None:
    stream = tmp_path / "photo.bin"
    (compressed,) = dcu("compress", photo, "-o", stream, "--json").lines
    assert set(compressed) == {"input", "output", "codec", "precision", "bytes", "bpp", "seconds"}
    assert compressed["bytes"] == stream.stat().st_size
    (info,) = dcu("info", stream, "--json").lines
    assert set(info) == {"input", "width", "height", "bytes", "bpp", "codec", "fingerprint", "layers"}
    assert (info["width"], info["height"], info["codec"]) == (52, 40, "codec-0.0983")
    assert info["bpp"] == pytest.approx(8 * info["bytes"] / (52 * 40), abs=1e-5)
    assert set(info["layers"][0]) == {"width", "height", "bytes"}
    (named,) = dcu("classify", stream, "--json").lines
    assert set(named) == {"input", "predictions", "max_probability", "network", "codec"}
    assert set(named["predictions"][0]) == {"label", "wnid", "index", "probability"}


def test_info_accounts_for_every_bit(dcu: Dcu, photo: Path, tmp_path: Path) -> None:
    stream = tmp_path / "photo.bin"
    dcu("compress", photo, "-o", stream)
    line = dcu("info", stream).out.splitlines()[-1]
    assert sum(int(word.strip(",")) for word in line.split() if word.strip(",").isdigit()) == 8 * stream.stat().st_size


def test_directory_keeps_its_tree_and_order(dcu: Dcu, holiday: Path, tmp_path: Path) -> None:
    bins = tmp_path / "bins"
    assert dcu("compress", holiday, "-o", bins).code == 0
    found = sorted(p.relative_to(bins).as_posix() for p in bins.rglob("*.bin"))
    assert found == ["a.bin", "day1/b.bin", "day2/b.bin"]
    named = dcu("classify", bins, "--json").lines
    assert [Path(n["input"]).relative_to(bins).as_posix() for n in named] == found
    assert dcu("decode", bins, "-o", tmp_path / "out").code == 0
    assert read_image((tmp_path / "out/day2/b.png").read_bytes()).shape == (26, 30, 3)


def test_pipe_holds_the_stream_and_nothing_else(codec: Codec, photo: Path) -> None:
    squeezed = process("compress", "-", "--json", "--codec", "codec-0.0983", data=photo.read_bytes())
    assert squeezed.returncode == 0
    assert bitstream.read(squeezed.stdout).size == len(squeezed.stdout)
    assert json.loads(squeezed.stderr)["output"] == "-"
    named = process("classify", "-", "--json", data=squeezed.stdout * 3)
    assert [json.loads(line)["input"] for line in named.stdout.splitlines()] == ["-"] * 3
    decoded = process("decode", "-", data=squeezed.stdout)
    assert np.array_equal(read_image(decoded.stdout), codec.decode(squeezed.stdout))


def test_broken_stream_ends_its_pipe(codec: Codec) -> None:
    good = codec.compress(smooth_image(16, 16))
    answer = process("classify", "-", "--json", data=good + good[:-1] + b"\x00" + good)
    assert answer.returncode == 65
    good_line, bad_line = map(json.loads, answer.stdout.splitlines())
    assert "predictions" in good_line
    assert bad_line == {"input": "-", "error": "checksum mismatch: the stream is damaged", "exit_code": 65}
    assert one_line(answer.stderr)


def test_one_broken_input_does_not_stop_the_others(dcu: Dcu, holiday: Path, tmp_path: Path) -> None:
    bins = tmp_path / "bins"
    dcu("compress", holiday, "-o", bins)
    (bins / "day1/b.bin").write_bytes(b"")
    answer = dcu("classify", bins, tmp_path / "missing.bin", "--json")
    assert answer.code == 65  # that of the first that failed
    names = ["a.bin", "day1/b.bin", "day2/b.bin", "missing.bin"]
    assert [line["input"].endswith(name) for line, name in zip(answer.lines, names, strict=True)] == [True] * 4
    assert [line.get("exit_code") for line in answer.lines] == [None, 65, None, 66]
    assert answer.err.count("dcu: ") == 2


def test_output_rules(dcu: Dcu, holiday: Path, photo: Path, tmp_path: Path) -> None:
    assert dcu("compress", photo).code == 2
    assert dcu("compress", holiday).code == 2
    assert dcu("compress", holiday, "-o", "-").code == 2
    assert dcu("compress", photo, holiday, "-o", photo).code == 2
    clash = dcu("compress", holiday / "day1", holiday / "day2", "-o", tmp_path / "x")
    assert clash.code == 2
    assert one_line(clash.err)
    assert not (tmp_path / "x").exists()


def test_another_file_is_not_overwritten(dcu: Dcu, photo: Path, tmp_path: Path) -> None:
    stream = tmp_path / "photo.bin"
    stream.write_bytes(b"mine")
    assert dcu("compress", photo, "-o", stream).code == 73
    assert stream.read_bytes() == b"mine"
    assert dcu("compress", photo, "-o", stream, "--force").code == 0
    assert dcu("compress", photo, "-o", stream).code == 0  # the same file: nothing to do


def test_usage_errors(dcu: Dcu, photo: Path) -> None:
    for arguments in (
        ["compres", photo],
        ["compress"],
        ["classify", photo, "--top", "0"],
        ["compress", photo, "-o", "x.bin", "--rate", "0.5"],
        ["compress", photo, "-o", "x.bin", "--rate", "0.0983", "--codec", "codec-0.0983"],
        ["compress", photo, "-o", "x.bin", "--device", "tpu"],
        ["compress", photo, "-", "-", "-o", "x"],
        ["decode", photo, "-o", "x.docx"],
        ["decode", photo, "-o", "x.png", "--format", "a/b"],
        ["compress", photo, "-o", "x.bin", "--background", "nocolour"],
    ):
        answer = dcu(*arguments)
        assert answer.code == 2, arguments
        assert one_line(answer.err), answer.err


def test_choices_are_listed(dcu: Dcu, photo: Path) -> None:
    ran = dcu("compress", photo, "--device", "tpu")
    assert (ran.code, ran.err) == (2, "dcu: Invalid value for '--device': 'tpu' is not one of 'auto', 'cpu', 'cuda'.\n")


def test_binary_is_not_written_to_a_terminal(photo: Path) -> None:
    ours, theirs = pty.openpty()
    answer = subprocess.run(
        [sys.executable, "-m", "dcu", "compress", "-"],
        input=photo.read_bytes(), stdout=theirs, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    os.close(theirs)
    os.close(ours)
    assert answer.returncode == 2
    assert one_line(answer.stderr)


def test_closed_pipe_ends_quietly(codec: Codec) -> None:
    data = codec.compress(smooth_image(16, 16)) * 200
    child = subprocess.Popen(
        [sys.executable, "-m", "dcu", "classify", "-", "--json"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    child.stdin.write(data)
    child.stdin.close()
    assert child.wait(60) == 0
    assert child.stderr.read() == b""


def test_closed_descriptors(photo: Path, tmp_path: Path) -> None:
    shell = f"{sys.executable} -m dcu"
    for command, code in (
        (f"{shell} info - <&-", 66),
        (f"{shell} compress {photo} -o {tmp_path}/x.bin >&-", 0),
        (f"set -o pipefail; {shell} --help | head -0", 0),
    ):
        answer = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
        assert answer.returncode == code, answer.stderr
        assert b"Traceback" not in answer.stderr


def test_interrupt_leaves_whole_files_only(tmp_path: Path) -> None:
    directory, bins = tmp_path / "many", tmp_path / "bins"
    directory.mkdir()
    image = png(smooth_image(256, 256))
    for index in range(400):
        (directory / f"{index:03}.png").write_bytes(image)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the suite runs in the background
    child = subprocess.Popen(
        [sys.executable, "-m", "dcu", "compress", str(directory), "-o", str(bins)], stderr=subprocess.PIPE
    )
    signal.signal(signal.SIGINT, before)
    while child.poll() is None and not list(bins.glob("*.bin")):
        pass
    child.send_signal(signal.SIGINT)
    assert child.wait(60) == 130
    assert child.stderr is not None
    assert one_line(child.stderr.read())
    written = list(bins.iterdir())
    assert 0 < len(written) < 400
    for path in written:
        assert path.suffix == ".bin"
        assert bitstream.read(path.read_bytes()).size == path.stat().st_size


def test_verbose_logs_what_is_loaded_and_quiet_does_not(dcu: Dcu, photo: Path, tmp_path: Path) -> None:
    call = ("compress", photo, "-o", tmp_path / "x.bin", "--force")
    assert "dcu: codec-0.0983 from" in dcu(*call, "-v").err
    assert "codec-0.0983 from" not in dcu(*call).err
    assert dcu(*call, "--quiet").err == ""


def test_help_is_there_for_every_command(dcu: Dcu) -> None:
    for command in ("compress", "decode", "classify", "info", "verify", "models", "train", "eval"):
        answer = dcu(command, "--help")
        assert answer.code == 0
        assert "Usage" in answer.out
    assert "classify" in dcu("--help").out
    bare = dcu()
    assert (bare.code, bare.err) == (2, "")
    assert dcu("--version").out.startswith("dcu ")


def test_models(dcu: Dcu, models: Path) -> None:
    listed = [line["name"] for line in dcu("models", "list", "--json").lines]
    assert listed[:2] == ["classifier-0.0983", "codec-0.0983"]
    assert json.loads(dcu("models", "show", "codec-0.0983").out)["kind"] == "codec"
    assert dcu("models", "verify", "codec-0.0983", "classifier-0.0983").code == 0
    assert dcu("models", "show", "nothing").code == 69
