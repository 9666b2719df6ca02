"""What is prepared once: complete, safe from others, made by one process, and a warning where it cannot be kept."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dcu import cache

NAME = "network.onnx"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DCU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def forbidden() -> bytes:
    raise AssertionError("made again")


def test_made_once_with_its_digest_for_its_owner_alone(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert cache.kept(NAME, "a network", lambda: b"model") == b"model"
    assert "preparing a network, once" in caplog.text
    assert cache.kept(NAME, "a network", forbidden) == b"model"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    digest = (directory / f"{NAME}.sha256").read_text().split()
    assert digest == [hashlib.sha256(b"model").hexdigest()]
    assert not list(directory.glob("*.part"))


@pytest.mark.parametrize("damage", ["changed", "cut", "empty", "digest", "no digest"])
def test_damaged_files_are_made_again(directory: Path, damage: str) -> None:
    cache.kept(NAME, "a network", lambda: b"model")
    place, digest = directory / NAME, directory / f"{NAME}.sha256"
    if damage == "no digest":
        digest.unlink()
    else:
        (digest if damage == "digest" else place).write_bytes({"changed": b"modem", "cut": b"mod"}.get(damage, b""))
    assert cache.kept(NAME, "a network", lambda: b"again") == b"again"
    assert cache.kept(NAME, "a network", forbidden) == b"again"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_directories_of_others_are_not_used(directory: Path, mode: int, caplog: pytest.LogCaptureFixture) -> None:
    """Neither read nor written."""
    cache.kept(NAME, "a network", lambda: b"theirs")
    directory.chmod(mode)
    assert cache.kept(NAME, "a network", lambda: b"mine") == b"mine"
    assert "could not be kept" in caplog.text
    assert "other users may write there" in caplog.text
    assert (directory / NAME).read_bytes() == b"theirs"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_directory_that_belongs_to_someone_else(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.kept(NAME, "a network", lambda: b"theirs")
    os.chown(directory, 4242, 4242)
    assert cache.kept(NAME, "a network", lambda: b"mine") == b"mine"


def test_cache_that_cannot_be_written(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    directory.write_text("a file where a directory should be")
    assert cache.kept(NAME, "a network", lambda: b"model") == b"model"
    assert "could not be kept" in caplog.text
    assert str(directory) in caplog.text


def test_disk_that_is_full(directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    calls = []
    assert cache.kept(NAME, "a network", lambda: calls.append(1) or b"model") == b"model"  # type: ignore[func-returns-value]
    assert len(calls) == 1
    assert "No space left" in caplog.text
    assert not [path for path in directory.iterdir() if path.suffix in (".onnx", ".part")]


def test_errors_of_what_makes_it_are_its_own(directory: Path) -> None:
    def fail() -> bytes:
        raise OSError(5, "of the exporter")

    with pytest.raises(OSError, match="of the exporter"):
        cache.kept(NAME, "a network", fail)


def test_one_makes_it_while_others_wait(directory: Path) -> None:
    calls, answers = [], []

    def slow() -> bytes:
        calls.append(1)
        time.sleep(0.3)
        return b"model"

    everyone = [threading.Thread(target=lambda: answers.append(cache.kept(NAME, "it", slow))) for _ in range(4)]
    for each in everyone:
        each.start()
    for each in everyone:
        each.join()
    assert answers == [b"model"] * 4
    assert len(calls) == 1


def test_process_that_was_killed_blocks_nobody(directory: Path) -> None:
    code = f"""
import os, signal
from dcu import cache
cache.kept({NAME!r}, "it", lambda: os.kill(os.getpid(), signal.SIGKILL))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert cache.kept(NAME, "it", lambda: b"model") == b"model"
