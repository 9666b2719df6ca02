from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from dcu.data import dataset_name, gather, items
from dcu.errors import InvalidInputError, MissingInputError


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name, text in (("set/n01/b.jpg", "bb"), ("set/n00/a.JPG", "a"), ("set/readme.txt", "x")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "set"


def test_directory_and_tar_hold_the_same(directory: Path, tmp_path: Path) -> None:
    tar = tmp_path / "set.tar"
    with tarfile.open(tar, "w") as archive:
        archive.add(directory, ".")
    for source in (directory, tar):
        found = items(source)
        assert [(i.dataset, i.label, i.read()) for i in found] == [("set", "n00", b"a"), ("set", "n01", b"bb")]
    assert len(gather([directory, tar])) == 4


def test_directory_of_shards(directory: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(3):
        with tarfile.open(shards / f"{number:04}.tar", "w") as archive:
            archive.add(directory, ".")
    assert [item.dataset for item in gather([shards])] == ["shards"] * 6
    assert items(shards)[2].read() == b"a"


def test_data_set_is_called_as_people_call_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its whole name where it is a directory, dots and all; of a tar what is before the ending."""
    directory = tmp_path / "at-0.635"
    directory.mkdir()
    (tmp_path / "set.tar").touch()
    monkeypatch.chdir(directory)
    assert [dataset_name(path) for path in (directory, Path(), tmp_path / "set.tar")] == ["at-0.635", "at-0.635", "set"]


def test_nothing_there(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError):
        items(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInputError):
        items(tmp_path / "empty")
    with pytest.raises(InvalidInputError):
        items(directory / "readme.txt")


@pytest.mark.parametrize(
    "size", [b"\xff" * 10 + b"\xfe\x00", b"\xff" * 12, b"\x80" + b"\x00" * 2 + b"\x40" + b"\x00" * 8]
)
def test_tar_whose_headers_lie(tmp_path: Path, size: bytes) -> None:
    """Sizes of -512, which would be read for ever, of -1, and of more than any file has, as GNU tar writes them."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name in ("a.png", "b.png"):
            info = tarfile.TarInfo(name)
            info.size = 512
            archive.addfile(info, io.BytesIO(bytes(512)))
    data = bytearray(whole.getvalue())
    header = data[1024:1536]
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    data[1024:1536] = header
    (tmp_path / "evil.tar").write_bytes(data)
    with pytest.raises(InvalidInputError):
        items(tmp_path / "evil.tar")
