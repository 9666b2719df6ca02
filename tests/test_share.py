"""The files that tell other programs what a bitstream is: file(1) and shared-mime-info."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

import dcu
from dcu.bitstream import MAGIC, VERSIONS, Header, thumbnail_size, write
from dcu.pillow import MIME

SHARE = Path(dcu.__file__).parent / "share"
NAMESPACE = "{http://www.freedesktop.org/standards/shared-mime-info}"


def stream(version: int, point: int, width: int, metadata: bytes = b"") -> bytes:
    payloads = [[b"x"]] * (2 if thumbnail_size(width, width) else 1)
    tiles = [payloads[0], [b"x"]] if len(payloads) > 1 else payloads
    return write(Header(b"abcd", point, version, metadata=metadata), width, width, tiles)


CASES = {
    stream(1, 0, 8): "dcu bitstream, version 1, codec 61626364",
    stream(1, 3, 1024): "dcu bitstream, version 1, with thumbnail layer, codec 61626364",
    stream(2, 20, 8): "dcu bitstream, version 2, operating point 20, codec 61626364",
    stream(2, 63, 1024, b"m"): (
        "dcu bitstream, version 2, operating point 63, with thumbnail layer, with metadata, codec 61626364"
    ),
}


@pytest.mark.skipif(not shutil.which("file"), reason="needs file(1)")
def test_magic(tmp_path: Path) -> None:
    path = tmp_path / "stream"

    def told(data: bytes, *options: str) -> str:
        path.write_bytes(data)
        command = ["file", "--brief", "--magic-file", str(SHARE / "dcu.magic"), *options, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert not done.stderr
        return done.stdout.strip()

    for data, said in CASES.items():
        assert told(data) == said
        assert told(data, "--mime-type") == MIME
    assert "dcu" not in told(b"\xdc\x75\x09" + b"\0" * 20)


def test_mime_type() -> None:
    (kind,) = ElementTree.parse(SHARE / "dcu.xml").getroot()
    assert kind.get("type") == MIME
    assert [each.get("pattern") for each in kind.iter(f"{NAMESPACE}glob")] == ["*.dcu"]
    values = [match.get("value", "") for match in kind.iter(f"{NAMESPACE}match")]
    assert [value.encode().decode("unicode_escape").encode("latin-1") for value in values] == [
        MAGIC + bytes([version]) for version in VERSIONS
    ]


@pytest.mark.skipif(not shutil.which("update-mime-database"), reason="needs shared-mime-info")
def test_the_database_takes_the_type(tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    shutil.copy(SHARE / "dcu.xml", tmp_path / "packages")
    subprocess.run(["update-mime-database", str(tmp_path)], capture_output=True, check=True)
    assert f"{MIME}:*.dcu" in (tmp_path / "globs2").read_text()
