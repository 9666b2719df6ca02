"""Each thing that can go wrong gives one line, the right exit code, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dcu import bitstream
from dcu.bitstream import Stream
from dcu.codec import Codec, codec_of
from dcu.tasks.classify import Classifier, Views

from .conftest import Dcu, OurTables, fixed, one_line, png, process, random_codec, smooth_image
from .test_image import huge_png, truncated_jpeg


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("text.png", b"hello"),
        ("cut.jpg", truncated_jpeg()),
        ("empty.png", b""),
        ("huge.png", huge_png()),
        ("program.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n{} loop"),
    ],
)
def test_broken_images(dcu: Dcu, tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    answer = dcu("compress", path, "-o", tmp_path / "x.bin")
    assert answer.code == 65
    assert one_line(answer.err)
    assert answer.err.startswith(f"dcu: {path}: ")
    assert not (tmp_path / "x.bin").exists()


def test_missing_stream(dcu: Dcu, tmp_path: Path) -> None:
    for name in ("none.bin", "n" * 300):
        for command in ("classify", "info", "verify"):
            answer = dcu(command, tmp_path / name)
            assert answer.code == 66
            assert one_line(answer.err)


def test_header_of_a_giant(dcu: Dcu, tmp_path: Path) -> None:
    path = tmp_path / "giant.bin"
    path.write_bytes(bitstream.write(bitstream.Header(b"abcd"), 100_000, 100_000, [[b""], [b""]]))
    answer = dcu("classify", path)
    assert answer.code == 65
    assert one_line(answer.err)


def test_operating_point_that_the_codec_lacks(dcu: Dcu, codec: Codec, tmp_path: Path) -> None:
    path = tmp_path / "point.bin"
    path.write_bytes(bitstream.write(bitstream.Header(codec.identity, 3), 8, 8, [[b"x"]]))
    for command in ("verify", "classify"):
        assert dcu(command, path).code == 65


def test_missing_file_and_empty_directory(dcu: Dcu, tmp_path: Path) -> None:
    for command in ("compress", "decode"):
        assert dcu(command, tmp_path / "none", "-o", tmp_path / "x").code == 66
        (tmp_path / "empty").mkdir(exist_ok=True)
        answer = dcu(command, tmp_path / "empty", "-o", tmp_path / "x")
        assert answer.code == 66
        assert one_line(answer.err)


@pytest.fixture
def stream(codec: Codec) -> bytes:
    return codec.compress(smooth_image(16, 24))


def test_stream_cut_anywhere_names_nothing(dcu: Dcu, tmp_path: Path, stream: bytes) -> None:
    directory = tmp_path / "cut"
    directory.mkdir()
    for end in range(len(stream)):
        (directory / f"{end:04}.bin").write_bytes(stream[:end])
    answer = dcu("classify", directory, "--json", "-q")
    assert answer.code == 65
    assert {line["exit_code"] for line in answer.lines} == {65}
    assert answer.err.count("dcu: ") == answer.err.count("\n") == len(answer.lines) == len(stream)


def test_flipped_bits_name_nothing(dcu: Dcu, tmp_path: Path, stream: bytes) -> None:
    directory = tmp_path / "flipped"
    directory.mkdir()
    for bit in range(8 * len(stream)):
        damaged = bytearray(stream)
        damaged[bit // 8] ^= 1 << bit % 8
        (directory / f"{bit:05}.bin").write_bytes(damaged)
    for command in ("verify", "classify"):
        answer = dcu(command, directory, "-q")
        assert answer.code == 65
        assert answer.out == ""
        assert answer.err.count("dcu: ") == answer.err.count("\n") == 8 * len(stream)
        assert "installed" not in answer.err  # a flipped codec byte is a broken stream, not a missing model


def test_a_broken_payload_spoils_no_other_of_its_batch(dcu: Dcu, tmp_path: Path, codec: Codec, stream: bytes) -> None:
    """Its checksum is right, its symbols do not exist: found out only while many are decoded together."""
    symbols = codec.analyze(smooth_image(16, 24)).clone()
    symbols[1, 1, 1] = fixed(codec).levels[1] + 2
    broken = bitstream.write(
        bitstream.Header(codec.identity), 24, 16, [[fixed(codec).entropy.encode_with(OurTables(), symbols)]]
    )
    for name, data in (("a.bin", stream), ("b.bin", broken), ("c.bin", stream)):
        (tmp_path / name).write_bytes(data)
    answer = dcu("classify", tmp_path, "--json", "-q")
    assert answer.code == 65
    assert [(Path(line["input"]).name, "error" in line) for line in answer.lines] == [
        ("a.bin", False),
        ("b.bin", True),
        ("c.bin", False),
    ]
    assert one_line(answer.err)


def test_stream_of_a_codec_that_is_not_installed(dcu: Dcu, tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(Codec(random_codec(7), "other").compress(smooth_image(8, 8)))
    for command in ("classify", "verify"):
        answer = dcu(command, path)
        assert answer.code == 69
        assert one_line(answer.err)
    assert dcu("info", path, "--json").lines[0]["codec"] is None


@pytest.mark.parametrize("command", ["compress", "models"])
@pytest.mark.parametrize("harm", ["missing", "altered", "cut", "fingerprint", "card"])
def test_codec_weights_that_are_not_the_cards(
    dcu: Dcu, own_models: Path, photo: Path, tmp_path: Path, harm: str, command: str
) -> None:
    weights, card = own_models / "codec-0.0983/weights.safetensors", own_models / "codec-0.0983/card.json"
    if harm == "missing":
        weights.unlink()
    elif harm == "altered":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    elif harm == "cut":
        weights.write_bytes(weights.read_bytes()[:100])
    elif harm == "fingerprint":
        card.write_text(json.dumps(json.loads(card.read_text()) | {"fingerprint": "00" * 32}))
    else:
        card.write_text("{")
    directory = str(own_models / "codec-0.0983")
    call = (
        ["compress", photo, "-o", tmp_path / "x.bin", "--codec", directory]
        if command == "compress"
        else ["models", "verify", directory]
    )
    answer = dcu(*call)
    assert answer.code == 69
    assert one_line(answer.err)


def test_classifier_weights_that_are_not_the_cards(dcu: Dcu, own_models: Path, stream: bytes, tmp_path: Path) -> None:
    path, weights = tmp_path / "x.bin", own_models / "classifier-0.0983/weights.safetensors"
    path.write_bytes(stream)
    for data in (weights.read_bytes()[:-1] + b"x", weights.read_bytes()[:100]):
        weights.write_bytes(data)
        answer = dcu("classify", path)
        assert (answer.code, answer.out) == (69, "")
        assert one_line(answer.err)


def test_card_that_states_another_cost(dcu: Dcu, own_models: Path) -> None:
    card = own_models / "codec-0.0983/card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"macs_per_pixel": {}}))
    answer = dcu("models", "verify", own_models / "codec-0.0983")
    assert answer.code == 69
    assert "macs_per_pixel" in answer.err


def test_missing_classifier(dcu: Dcu, own_models: Path, stream: bytes, tmp_path: Path) -> None:
    shutil.rmtree(own_models / "classifier-0.0983")
    path = tmp_path / "x.bin"
    path.write_bytes(stream)
    codec_of.cache_clear()
    assert dcu("classify", path).code == 69
    assert dcu("classify", path, "--network", "nothing").code == 69


def test_nothing_is_compiled_at_run_time(photo: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    answer = process("compress", photo, "-q", "-o", tmp_path / "x.bin", CXX="no-such", PATH="", DCU_CACHE=str(cache))
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, b"", b"")
    assert not cache.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_directory(dcu: Dcu, photo: Path, tmp_path: Path) -> None:
    directory = tmp_path / "locked"
    directory.mkdir(mode=0o555)
    answer = dcu("compress", photo, "-o", directory / "x.bin")
    assert answer.code == 73
    assert one_line(answer.err)


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="no /proc")
def test_place_that_takes_no_files(dcu: Dcu, photo: Path) -> None:
    """Even root cannot write here."""
    answer = dcu("compress", photo, "-o", "/proc/photo.bin")
    assert answer.code == 73
    assert one_line(answer.err)


def test_only_regular_files_are_replaced(dcu: Dcu, photo: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert dcu("compress", photo, "-o", pipe, "--force").code == 73
    assert pipe.is_fifo()


def test_output_directory_that_cannot_be_made(dcu: Dcu, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = dcu("compress", photo, "-o", tmp_path / "file" / "x.bin")
    assert answer.code == 73
    assert one_line(answer.err)


def test_full_disk(dcu: Dcu, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def full(self: Path, mode: str = "r", *more: Any, **options: Any) -> Any:
        if self.suffix != ".part":
            return opened(self, mode, *more, **options)
        with opened(self, mode) as file:
            file.write(b"begun")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    answer = dcu("compress", photo, "-o", tmp_path / "x.bin")
    assert answer.code == 73
    assert one_line(answer.err)
    assert [p.name for p in tmp_path.iterdir()] == ["photo.png"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_disk_behind_a_pipe(stream: bytes, tmp_path: Path) -> None:
    import subprocess
    import sys

    with Path("/dev/full").open("wb") as full:
        answer = subprocess.run(
            [sys.executable, "-m", "dcu", "classify", "-"],
            input=stream, stdout=full, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
    assert answer.returncode == 73
    assert one_line(answer.stderr)


def test_debug_shows_where(photo: Path) -> None:
    answer = process("compress", photo, DCU_DEBUG="1")
    assert b"Traceback" in answer.stderr


def test_small_images_still_have_names(dcu: Dcu, tmp_path: Path) -> None:
    path = tmp_path / "dot.png"
    path.write_bytes(png(smooth_image(1, 1)))
    assert dcu("compress", path, "-o", tmp_path / "dot.bin").code == 0
    assert dcu("classify", tmp_path / "dot.bin").code == 0


def test_directory_with_what_cannot_be_read(dcu: Dcu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that cannot be opened is named, the rest is done; a pipe among the files would never end."""
    holiday = tmp_path / "holiday"
    (holiday / "private").mkdir(parents=True)
    (holiday / "a.png").write_bytes(png(smooth_image(16, 16)))
    os.mkfifo(holiday / "pipe.png")
    walk = os.scandir

    def scandir(path: str) -> object:
        if Path(path).name == "private":
            raise PermissionError(13, "Permission denied", str(path))
        return walk(path)

    monkeypatch.setattr(os, "scandir", scandir)
    answer = dcu("compress", holiday, "-o", tmp_path / "bins")
    assert answer.code == 66
    assert answer.err.startswith(f"dcu: {holiday / 'private'}: ")
    assert [path.name for path in (tmp_path / "bins").iterdir()] == ["a.bin"]
    assert dcu("eval", "classifier", holiday).code == 66


def test_empty_name_is_no_directory(dcu: Dcu, tmp_path: Path) -> None:
    answer = dcu("compress", "", "-o", tmp_path / "x.bin")
    assert answer.code == 66
    assert one_line(answer.err)


def test_nobody_reads_the_errors(tmp_path: Path) -> None:
    """Where standard error is closed at its other end, the files that are whole are still answered."""
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(b"broken")
    (tmp_path / "c.png").write_bytes(png(smooth_image(16, 16)))
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "dcu", "compress", str(tmp_path), "-o", str(tmp_path / "bins")]
    try:
        code = subprocess.run(command, stderr=writing, stdout=subprocess.PIPE, timeout=120, check=False).returncode
    finally:
        os.close(writing)
    assert code == 65
    assert [path.name for path in (tmp_path / "bins").iterdir()] == ["c.bin"]


def test_image_that_memory_does_not_hold(
    dcu: Dcu, codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is that input's error; the others are answered."""
    for name, side in (("a", 40), ("b", 80), ("c", 40)):
        (tmp_path / f"{name}.bin").write_bytes(codec.compress(smooth_image(side, side)))
    look = Classifier.look

    def small_machine(self: Classifier, streams: Sequence[Stream], view: str = "center") -> list[Views]:
        if any(stream.full.width > 40 for stream in streams):
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        return look(self, streams, view)

    monkeypatch.setattr(Classifier, "look", small_machine)
    answer = dcu("classify", tmp_path, "--json", "-q")
    assert [Path(line["input"]).name for line in answer.lines] == ["a.bin", "b.bin", "c.bin"]
    assert answer.lines[1]["error"] == "not enough memory"
    assert answer.code == 1
    assert answer.err == f"dcu: {tmp_path / 'b.bin'}: not enough memory\n"


@pytest.mark.parametrize("name", ["n" * 300, "n" * 5000])
def test_model_of_an_impossible_name(dcu: Dcu, photo: Path, tmp_path: Path, name: str) -> None:
    answer = dcu("compress", photo, "-o", tmp_path / "x.bin", "--codec", name)
    assert answer.code == 69
    assert one_line(answer.err)
