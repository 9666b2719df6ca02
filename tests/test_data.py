from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from dcu.data import dataset_name, failures, gather, items, replaceable, sample_items
from dcu.errors import InvalidInputError, MissingInputError

from .conftest import Dcu, png, smooth_image


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


@pytest.mark.parametrize("fault", ["header", "cut in a header", "cut at a header", "zeros", "no end"])
def test_tar_that_is_damaged_or_cut_is_no_smaller_data_set(tmp_path: Path, fault: str) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for number in range(4):
            info = tarfile.TarInfo(f"{number}.png")
            info.size = 512
            archive.addfile(info, io.BytesIO(b"x" * 512))
    data, path = whole.getvalue(), tmp_path / "x.tar"
    path.write_bytes(data)
    assert len(items(path)) == 4
    faulty = {
        "header": data[:2048] + b"?" + data[2049:],
        "cut in a header": data[:2100],
        "cut at a header": data[:2048],
        "zeros": data[:2048] + bytes(512) + data[2560:],
        "no end": data[:4096],
    }
    path.write_bytes(faulty[fault])
    with pytest.raises(InvalidInputError, match="whole"):
        items(path)


def test_what_is_left_out_is_told(directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of directories as the commands tell it, of tars too; the samples are silent."""
    caplog.set_level("INFO", "dcu")
    (directory / "photo.CR2").write_text("x")
    os.mkfifo(directory / "pipe.png")
    assert len(items(directory)) == 2
    (line,) = caplog.messages
    assert line == (
        f"{directory}: 1 skipped: not regular files, 1 skipped: images of other formats (.cr2 1), "
        "1 skipped: other extensions (.txt 1)"
    )
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(directory, ".")
    items(tmp_path / "set.tar")
    assert caplog.messages[1].partition(": ")[2] == line.partition(": ")[2]
    sample_items()
    assert len(caplog.messages) == 2


def test_links_to_directories_are_followed_once(directory: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "c.png").write_text("c")
    (directory / "link").symlink_to(other)
    (directory / "again").symlink_to(other)
    (directory / "up").symlink_to(directory)
    assert [item.name for item in items(directory)] == ["again/c.png", "n00/a.JPG", "n01/b.jpg"]


def test_evaluation_tells_what_is_left_out_and_what_cannot_be_read(dcu: Dcu, tmp_path: Path) -> None:
    """One line each; a set of which an image cannot be read has no figures."""
    data = tmp_path / "set"
    data.mkdir()
    for name in "ab":
        (data / f"{name}.png").write_bytes(png(smooth_image(24, 24)))
    (data / "c.cr2").write_bytes(b"x")
    answer = dcu("eval", "codec", data, "--json", "-q")
    assert (answer.code, answer.err, answer.lines[0]["count"]) == (0, "", 2)
    answer = dcu("eval", "codec", data, "--json")
    assert answer.err == f"dcu: {data}: 1 skipped: images of other formats (.cr2 1)\n"
    (data / "b.png").write_bytes(b"broken")
    answer = dcu("eval", "codec", data, "--json", "-q")
    assert (answer.code, answer.out) == (65, "")
    assert answer.err.startswith("dcu: set/b.png: ")
    assert answer.err.count("\n") == 1


def test_another_image_of_the_same_directory_takes_the_place(tmp_path: Path, notes: list[str]) -> None:
    images = {name: smooth_image(8, 8, seed) for seed, name in enumerate(("x/a", "x/b", "x/c", "y/d", "y/e"))}
    for name, image in images.items():
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"broken" if name in ("x/a", "x/c", "y/d", "y/e") else png(image))
    found = replaceable(items(tmp_path))
    for _ in range(2):
        for item in found[:3]:
            assert np.array_equal(item.image(), images["x/b"])
        for item in found[3:]:
            with pytest.raises(InvalidInputError, match=item.name):
                item.image()
    names = ["x/a.png", "x/c.png", "y/d.png", "y/e.png"]
    assert all(name in str(error) for name, error in zip(names, failures(found), strict=True))
    assert len(notes) == 4
