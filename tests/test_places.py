"""Where results go: never onto an input, never two in one place; what directories hold and what is left out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dcu import store
from dcu.cli import places
from dcu.codec import Codec

from .conftest import Dcu, one_line, png, smooth_image

WRITING = {"compress": ".bin", "decode": ".png", "segment": ".png", "embed": ".npy"}
SPELLINGS: dict[str, Callable[[Path], str]] = {
    "same": lambda path: path.name,
    "absolute": str,
    "with dots": lambda path: f"./sub/../{path.name}",
    "symlink": lambda path: linked(path, os.symlink),
    "hard link": lambda path: linked(path, os.link),
    "linked directory": lambda path: f"{linked(path.parent, os.symlink)}/{path.name}",
}


def linked(path: Path, link: Callable[[Path, Path], None]) -> str:
    place = path.parent / f"link{path.suffix}" if path.is_file() else path / "linked"
    link(path, place)
    return place.name


@pytest.fixture
def here(tmp_path: Path, codec: Codec, segmenter: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with sub/ and a stream."""
    directory = tmp_path / "here"
    (directory / "sub").mkdir(parents=True)
    monkeypatch.chdir(directory)
    (directory / "x.bin").write_bytes(codec.compress(smooth_image(16, 24)))
    return directory


def source(command: str, codec: Codec, place: Path) -> bytes:
    image = smooth_image(16, 24)
    data = png(image) if command == "compress" else codec.compress(image)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return data


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("command", WRITING)
def test_an_input_is_no_output(
    dcu: Dcu, here: Path, codec: Codec, command: str, spelling: str, force: list[str]
) -> None:
    place = here / f"photo{WRITING[command]}"
    data = source(command, codec, place)
    answer = dcu(command, place, "-o", SPELLINGS[spelling](place), *force)
    assert answer.code == 2
    assert one_line(answer.err)
    assert "would be overwritten" in answer.err
    assert place.read_bytes() == data


@pytest.mark.parametrize("command", WRITING)
def test_nothing_is_written_where_one_result_would_replace_an_input(
    dcu: Dcu, here: Path, codec: Codec, command: str
) -> None:
    places = [here / "in" / f"{name}{WRITING[command]}" for name in "ab"]
    for place in places:
        data = source(command, codec, place)
    shutil.copytree(here / "in", here / "out")
    assert dcu(command, *places, here / "out" / places[1].name, "-o", "out", "--force").code == 2
    assert all((here / "out" / place.name).read_bytes() == data for place in places)
    assert len(list((here / "out").iterdir())) == 2


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_map_and_overlay_have_places_of_their_own(dcu: Dcu, here: Path, spelling: str, force: list[str]) -> None:
    place = here / "m.png"
    if "link" in spelling and spelling != "linked directory":
        place.write_bytes(b"mine")
    answer = dcu("segment", "x.bin", "-o", place, "--overlay", SPELLINGS[spelling](place), *force)
    assert answer.code == 2
    assert one_line(answer.err)
    assert not place.exists() or place.read_bytes() == b"mine"
    assert dcu("segment", "x.bin", "x.bin", "-o", "out", "--overlay", "sub/../out").code == 2


def test_an_overlay_alone_is_enough(dcu: Dcu, here: Path) -> None:
    answer = dcu("segment", "x.bin", "--overlay", "over.png")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("x.bin\n")
    assert (here / "over.png").exists()
    assert not (here / "x.png").exists()


@pytest.mark.parametrize("command", WRITING)
def test_one_input_named_twice(dcu: Dcu, here: Path, codec: Codec, command: str) -> None:
    source(command, codec, here / "x.in")
    answer = dcu(command, "x.in", "./x.in", "-o", "out")
    assert answer.code == 2
    assert answer.err.startswith("dcu: 1 name clash: ")
    assert not (here / "out").exists()


@pytest.fixture
def case_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "folded", lambda directory, name: name.casefold())


@pytest.mark.usefixtures("case_is_ignored")
@pytest.mark.parametrize("command", WRITING)
def test_names_that_differ_in_case_only(dcu: Dcu, here: Path, codec: Codec, command: str) -> None:
    for name in ("in/A.in", "in2/a.in"):
        source(command, codec, here / name)
    assert dcu(command, "in/A.in", "in2/a.in", "-o", "out").code == 2


def test_file_systems_are_asked_for_case(tmp_path: Path) -> None:
    (tmp_path / "name").touch()
    assert places.ignores_case(str(tmp_path)) == (tmp_path / "NAME").exists()
    assert places.ignores_case(str(tmp_path / "none" / "none")) == (tmp_path / "NAME").exists()


def test_clashes_are_counted_and_a_way_out_is_named(dcu: Dcu, here: Path, codec: Codec) -> None:
    for name in ("a.jpg", "a.png", "b.jpg", "b.png", "b.bmp", "c.png"):
        source("compress", codec, here / "in" / name)
    answer = dcu("compress", "in", "-o", "out")
    assert answer.code == 2
    assert one_line(answer.err)
    assert answer.err.startswith("dcu: 3 name clashes: in/a.jpg and in/a.png would both become out/a.bin; ")
    assert "--keep-extension" in answer.err
    assert not (here / "out").exists()
    assert dcu("compress", "in", "-o", "out", "--keep-extension").code == 0
    made = sorted(path.name for path in (here / "out").iterdir())
    assert made == ["a.jpg.bin", "a.png.bin", "b.bmp.bin", "b.jpg.bin", "b.png.bin", "c.png.bin"]
    for command, suffix in (("decode", ".png"), ("segment", ".png"), ("embed", ".npy")):
        assert dcu(command, "out", "-o", command).code == 0
        assert sorted(path.name for path in (here / command).iterdir()) == [n.replace(".bin", suffix) for n in made]


def test_advice_is_given_where_it_helps(dcu: Dcu, here: Path, codec: Codec) -> None:
    for name in ("day1/a.png", "day2/a.png"):
        source("compress", codec, here / name)
    answer = dcu("compress", "day1", "day2", "-o", "out")
    assert answer.code == 2
    assert "--keep-extension" not in answer.err


@pytest.mark.parametrize("command", [*WRITING, "classify", "info", "verify"])
@pytest.mark.parametrize("target", ["file", "directory"])
def test_an_empty_name_is_no_input(dcu: Dcu, here: Path, command: str, target: str) -> None:
    output = [] if command not in WRITING else ["-o", "sub" if target == "directory" else "y.png"]
    answer = dcu(command, "", *output)
    assert (answer.code, answer.err) == (66, "dcu: '': No such file or directory\n")
    assert dcu(command, "x.bin", "", *(["-o", "sub"] if output else []), "-q").code in (65, 66)


@pytest.mark.parametrize(
    "call",
    [
        *([command, "x.bin", "-o", ""] for command in WRITING),
        ["segment", "x.bin", "-o", "m.png", "--overlay", ""],
        ["bench", "--html", ""],
        ["eval", "codec", "sub", "--plot", ""],
        ["eval", "codec", "sub", "--compressai", ""],
        ["train", "codec", "tiny", "--data", "sub", "--out", ""],
        ["train", "head", "sub", "--out", ""],
        ["train", "mean", "classifier-0.0983", "--out", ""],
    ],
)
def test_an_empty_output_is_a_wrong_call(dcu: Dcu, here: Path, call: list[str]) -> None:
    before = sorted(here.iterdir())
    answer = dcu(*call)
    assert answer.code == 2
    assert one_line(answer.err)
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    "call",
    [
        ["eval", "codec", ""],
        ["eval", "classifier", ""],
        ["bench", "--data", ""],
        ["train", "codec", "tiny", "--data", ""],
        ["train", "head", ""],
    ],
)
def test_an_empty_name_is_no_data_set(dcu: Dcu, here: Path, call: list[str]) -> None:
    assert dcu(*call).code == 66


def test_reports_and_models_do_not_replace_what_they_are_made_of(dcu: Dcu, here: Path, own_models: Path) -> None:
    (here / "a.png").write_bytes(png(smooth_image(16, 24)))
    shutil.make_archive("set", "tar", here, "a.png")
    for call in (
        ["eval", "codec", ".", "--codec", "codec-0.0983", "--plot", "sub/../a.png", "--force"],
        ["bench", "--data", "set.tar", "--html", "./set.tar", "--force", "--baselines", ""],
        ["train", "mean", "classifier-0.0983", "--out", own_models / "codec-0.0983" / ".." / "classifier-0.0983"],
    ):
        answer = dcu(*call)
        assert answer.code == 2, call
        assert "would be overwritten" in answer.err
    assert store.find("classifier-0.0983").kind == "classifier"


@pytest.fixture
def tree(here: Path) -> Path:
    """in/ with images, two of which a link leads to, links in circles, and files that are left out."""
    image = png(smooth_image(16, 24))
    for name in ("in/a.png", "in/deep/b.png", "elsewhere/c.png", "elsewhere/deeper/d.png"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(image)
    for name in ("e.eps", "notes.txt", "f.XMP", "plain"):
        (here / "in" / name).write_bytes(image)
    os.mkfifo(here / "in" / "pipe.png")
    for link, target in (("out-of-it", "../elsewhere"), ("again", "deep"), ("up", ".."), ("deep/loop", ".")):
        (here / "in" / link).symlink_to(target)
    (here / "in" / "gone.png").symlink_to("nowhere")
    return here


def test_directories_are_read_once_and_what_is_left_out_is_counted(dcu: Dcu, tree: Path) -> None:
    answer = dcu("compress", "in", "-o", "out")
    assert answer.code == 66
    made = sorted(path.relative_to(tree / "out").as_posix() for path in (tree / "out").rglob("*.bin"))
    assert made == ["a.bin", "deep/b.bin", "out-of-it/c.bin", "out-of-it/deeper/d.bin"]
    failed, summary = answer.err.splitlines()
    assert failed == "dcu: in/gone.png: No such file or directory"
    assert summary.startswith(
        "4 done, 1 failed, 3 skipped: circular or repeated links to directories, 1 skipped: not regular files, "
        "1 skipped: images of other formats (.eps 1), 3 skipped: other extensions (none 1, .txt 1, .xmp 1); "
    ), summary


@pytest.mark.parametrize("command", ["decode", "segment", "embed", "classify", "info", "verify"])
def test_directories_of_bitstreams_end_with_a_summary(dcu: Dcu, here: Path, codec: Codec, command: str) -> None:
    (here / "in" / "deep").mkdir(parents=True)
    shutil.copy("x.bin", "in/deep/x.bin")
    (here / "in" / "x.BIN").write_bytes(b"broken")
    (here / "in" / "image.png").write_bytes(b"")
    (here / "in" / "linked").symlink_to("deep")
    call = [command, "in", *(["-o", "out"] if command in WRITING else [])]
    answer = dcu(*call)
    assert answer.code == 65
    assert answer.err.splitlines()[1] == (
        "1 done, 1 failed, 1 skipped: circular or repeated links to directories, "
        "1 skipped: images of other formats (.png 1)"
    )
    assert one_line(dcu(*call, "--quiet", *(["--force"] if command in WRITING else [])).err)
    assert "done" not in dcu(command, "x.bin", *(["-o", "sub"] if command in WRITING else [])).err


@pytest.mark.parametrize("command", ["compress", "verify"])
def test_an_empty_directory_says_what_it_holds_instead(dcu: Dcu, here: Path, command: str) -> None:
    (here / "sub" / "a.eps").touch()
    answer = dcu(command, "sub", *(["-o", "out"] if command == "compress" else []))
    assert answer.code == 66
    assert one_line(answer.err)
    assert ".eps 1" in answer.err
