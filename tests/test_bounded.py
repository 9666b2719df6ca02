"""Files of any size and kind are refused after their first bytes; killed runs leave nothing behind."""

from __future__ import annotations

import fcntl
import io
import os
import resource
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dcu.cli import bounded
from dcu.codec import Codec
from dcu.io import remove_stale, replacing, write_atomic

from .conftest import Dcu, one_line, png, smooth_image

COMMANDS = ("compress", "decode", "classify", "segment", "embed", "info", "verify")
HUGE = 3 * 2**30


def output(command: str, directory: Path) -> list[str]:
    """The option of commands that write."""
    suffix = {"compress": "bin", "embed": "npy", "decode": "png", "segment": "png"}.get(command)
    return ["-o", str(directory / f"out.{suffix}")] if suffix else []


def growth(before: int) -> int:
    """MiB by which this process's largest size has grown."""
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // (
        2**20 if sys.platform == "darwin" else 2**10
    )


@pytest.mark.slow
@pytest.mark.usefixtures("segmenter")
@pytest.mark.parametrize("begin", [b"", b"\xdcu\x01", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
@pytest.mark.parametrize("command", COMMANDS)
def test_gigabytes_that_are_no_input(dcu: Dcu, tmp_path: Path, command: str, begin: bytes) -> None:
    """A sparse file that begins with nothing, or as streams and images do."""
    path = tmp_path / ("big.png" if command == "compress" else "big.bin")
    path.write_bytes(begin)
    os.truncate(path, HUGE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = dcu(command, path, *output(command, tmp_path))
    assert answer.code == 65
    assert one_line(answer.err)
    assert growth(before) < 100


@pytest.mark.usefixtures("segmenter")
@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_devices(dcu: Dcu, tmp_path: Path, command: str, device: str) -> None:
    answer = dcu(command, device, *output(command, tmp_path))
    assert answer.code == 65
    assert one_line(answer.err)


@pytest.mark.usefixtures("segmenter")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_pipe_that_never_ends(dcu: Dcu, tmp_path: Path, command: str) -> None:
    fifo, stop = tmp_path / "fifo", threading.Event()
    os.mkfifo(fifo)

    def feed() -> None:
        with fifo.open("wb", buffering=0) as file:
            while not stop.is_set():
                try:
                    file.write(bytes(2**16))
                except BrokenPipeError:
                    return

    feeder = threading.Thread(target=feed)
    feeder.start()
    answer = dcu(command, fifo, *output(command, tmp_path))
    stop.set()
    feeder.join(60)
    assert answer.code == 65


@pytest.mark.slow
def test_images_through_a_pipe_and_with_much_else(dcu: Dcu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = png(smooth_image(200, 200)) + bytes(2**21)
    (tmp_path / "x.png").write_bytes(data)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def feed() -> None:
        with suppress(BrokenPipeError):
            fifo.write_bytes(data)

    threading.Thread(target=feed).start()
    assert dcu("compress", tmp_path / "x.png", "-o", tmp_path / "a.bin").code == 0
    assert dcu("compress", fifo, "-o", tmp_path / "b.bin").code == 0
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()
    monkeypatch.setattr(bounded, "SPARE_BYTES", 2**16)
    monkeypatch.setattr(bounded, "BYTES_PER_PIXEL", 1)
    for name in ("x.png", "fifo"):
        threading.Thread(target=feed, daemon=True).start()
        answer = dcu("compress", tmp_path / name, "-o", tmp_path / "c.bin")
        assert answer.code == 65
        assert "too large for its pixels" in answer.err


@pytest.mark.parametrize(
    "options", [{"format": "TIFF", "compression": "tiff_lzw"}, {"format": "WEBP", "lossless": True}]
)
def test_pixels_of_images_whose_size_is_at_their_end(options: dict[str, Any]) -> None:
    """Memory is bounded by pixels before an image is decoded; those of narrow ones are of whole blocks."""
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (800, 704, 3), np.uint8)
    Image.fromarray(noise).save(out, **options)
    assert len(out.getvalue()) > bounded.HEAD
    assert bounded.pixels_of(out.getvalue()) == 800 * 704
    assert bounded.pixels_of(png(smooth_image(1, 80))) == 8 * 80
    assert bounded.pixels_of(b"no image") == 0


def test_files_of_killed_runs_are_removed(dcu: Dcu, photo: Path, tmp_path: Path) -> None:
    directory = tmp_path / "bins"
    directory.mkdir()
    stale, busy = (directory / f".dcu-{digit * 16}.part" for digit in "01")
    others = [directory / ".dcu-0.part", directory / ".0123456789abcdef.part", directory / "dcu.part"]
    for path in (stale, busy, *others):
        path.write_bytes(b"begun")
    with busy.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert dcu("compress", photo, "-o", directory / "x.bin").code == 0
    assert sorted(directory.iterdir()) == sorted([busy, *others, directory / "x.bin"])


def test_a_file_that_is_being_written_is_not_stale(tmp_path: Path) -> None:
    with replacing(tmp_path / "x") as part:
        part.write_bytes(b"data")
        remove_stale.cache_clear()
        write_atomic(tmp_path / "y", b"other")
        assert part.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "y"]
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "x"):
        raise ZeroDivisionError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "y"]


@pytest.mark.parametrize("command", ["verify", "info"])
def test_many_streams_cost_little_each(dcu: Dcu, codec: Codec, tmp_path: Path, command: str) -> None:
    """Cards are not read for each of them."""
    (tmp_path / "0.bin").write_bytes(codec.compress(smooth_image(16, 24)))
    for index in range(1, 500):
        os.link(tmp_path / "0.bin", tmp_path / f"{index}.bin")
    times = []
    for place in (tmp_path / "0.bin", tmp_path / "0.bin", tmp_path):
        before = time.process_time()
        assert dcu(command, place, "-q").code == 0
        times.append(time.process_time() - before)
    assert (times[2] - times[1]) / 500 < 0.002
