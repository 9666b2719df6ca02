"""Shards: samples, faults, bytes that depend on contents alone, what WebDataset makes of them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from dcu import shards
from dcu.errors import InvalidInputError

from .conftest import tar


def read(data: bytes) -> list[shards.Sample]:
    return list(shards.samples(io.BytesIO(data), "a.tar"))


MEMBERS = [("a/1.jpg", b"one"), ("a/1.cls", b"7"), ("a/1.seg.png", b"map"), ("a/2.jpg", b"two"), ("b", b"bare")]


def test_samples_are_grouped_by_key() -> None:
    found = read(tar(MEMBERS))
    assert [(s.key, s.members) for s in found] == [
        ("a/1", {"jpg": b"one", "cls": b"7", "seg.png": b"map"}),
        ("a/2", {"jpg": b"two"}),
        ("b", {"": b"bare"}),
    ]
    assert [s.name(e) for s in found for e in s.members] == [name for name, _ in MEMBERS]


def test_what_is_written_depends_on_contents_alone() -> None:
    made = []
    for _ in range(2):
        out = io.BytesIO()
        writer = shards.Writer(out, "made by a test")
        for name, data in MEMBERS:
            writer.add(name, data)
        writer.close()
        made.append(out.getvalue())
    assert made[0] == made[1]
    assert [(s.key, s.members) for s in read(made[0])] == [(s.key, s.members) for s in read(tar(MEMBERS))]
    with pytest.raises(ValueError, match=r"a/1\.jpg"):
        writer.add("a/1.jpg", b"")


@pytest.mark.parametrize("cut", [100, 512, 600, 1024 + 512, 4 * 1024 + 600, 5 * 1024])
def test_a_truncated_shard_is_an_error(cut: int) -> None:
    data = tar(MEMBERS)
    with pytest.raises(InvalidInputError, match="not a whole uncompressed tar"):
        read(data[:cut])


def test_a_shard_without_its_end_is_an_error() -> None:
    with pytest.raises(InvalidInputError, match="end is missing"):
        read(tar(MEMBERS)[: len(MEMBERS) * 1024])


@pytest.mark.parametrize("data", [b"", b"x" * 3000, b"\x1f\x8b" + bytes(2000)])
def test_what_is_no_tar(data: bytes) -> None:
    with pytest.raises(InvalidInputError, match="not a whole uncompressed tar"):
        read(data)


@pytest.mark.parametrize(
    ("members", "errors"),
    [
        ([("1.jpg", b"x"), ("2.jpg", b"y"), ("1.jpg", b"z")], [None, None, "came before"]),
        ([("1.jpg", b"x"), ("1.jpg", b"y"), ("2.jpg", b"z")], ["two members", None]),
        ([("../1.jpg", b"x"), ("2.jpg", b"y")], ["outside", None]),
        ([("/etc/1.jpg", b"x"), ("2.jpg", b"y")], ["outside", None]),
        ([("a/../../1.jpg", b"x"), ("2.jpg", b"y")], ["outside", None]),
    ],
)
def test_faulty_samples_are_errors_and_the_rest_is_read(
    members: list[tuple[str, bytes]], errors: list[str | None]
) -> None:
    found = read(tar(members))
    assert len(found) == len(errors)
    for sample, error in zip(found, errors, strict=True):
        assert (sample.error is None) == (error is None)
        if error:
            assert error in str(sample.error)
            assert not sample.members


def test_damaged_headers_and_what_follows_the_end() -> None:
    whole = tar(MEMBERS)
    for damaged in (whole[:1100] + b"x" + whole[1101:], whole + whole, whole[:-100] + b"x" + whole[-99:]):
        with pytest.raises(InvalidInputError, match="not a whole uncompressed tar"):
            read(damaged)
    assert len(read(whole + bytes(50_000))) == 3


def test_names_of_a_directory() -> None:
    found = read(tar([("./1.jpg", b"x"), ("./1.cls", b"7"), ("a//2.jpg", b"y"), ("./a/2.cls", b"8")]))
    assert [(s.key, set(s.members)) for s in found] == [("1", {"jpg", "cls"}), ("a/2", {"jpg", "cls"})]


def test_many_members_and_chains_of_headers() -> None:
    (sample,) = read(tar([(f"1.{n}", b"") for n in range(shards.MOST_MEMBERS + 2)]))
    assert "members" in str(sample.error)
    out = io.BytesIO()
    for _ in range(1500):  # each is the long name of the next
        info = tarfile.TarInfo("././@LongLink")
        info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1
        out.write(info.tobuf(tarfile.GNU_FORMAT) + b"n" + bytes(511))
    with pytest.raises(InvalidInputError):
        read(out.getvalue())


def test_links_and_directories() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        directory, link = tarfile.TarInfo("a"), tarfile.TarInfo("a/1.jpg")
        directory.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(directory)
        archive.addfile(link)
    (sample,) = read(out.getvalue())
    assert "not a regular file" in str(sample.error)


def test_headers_are_bounded() -> None:
    """A name of many megabytes is refused before it is read whole."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("n" * (2 * shards.MOST_HEADER)))
    with pytest.raises(InvalidInputError, match="header is too large"):
        read(out.getvalue())


def test_large_members_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MOST_SAMPLE", 1 << 20)
    found = read(
        tar([("1.jpg", bytes(2 << 20)), ("2.jpg", bytes(600 << 10)), ("2.png", bytes(600 << 10)), ("3.jpg", b"x")])
    )
    assert [sample.error is None for sample in found] == [False, False, True]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("{08..11}.tar", ["08.tar", "09.tar", "10.tar", "11.tar"]),
        ("{3..1}", ["3", "2", "1"]),
        ("{0..10}", list(map(str, range(11)))),
        ("{10..0}", list(map(str, range(10, -1, -1)))),
        ("{00..10}", [f"{number:02}" for number in range(11)]),
        ("{a,b}/{0..1}", ["a/0", "a/1", "b/0", "b/1"]),
        ("{}", ["{}"]),
        ("{a}", ["{a}"]),
    ],
)
def test_patterns(pattern: str, names: list[str]) -> None:
    assert shards.expanded(pattern) == names


def test_patterns_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("0.tar", "1.tar", "[x]{0..1}.tar"):
        (tmp_path / name).write_bytes(b"")
    assert shards.matched("?.tar") == ["0.tar", "1.tar"]
    assert shards.matched("{1..2}.tar") == ["1.tar", "2.tar"]
    assert shards.matched("{1,no*}.tar") == ["1.tar", "no*.tar"]
    assert shards.matched("[x]{0..1}.tar") == ["[x]{0..1}.tar"], "there is such a file"


@pytest.mark.parametrize("pattern", ["{1..10000000000000000000000}", "{1..1001}{1..1001}", "{0..999}" * 20])
def test_patterns_that_stand_for_too_many_names(pattern: str) -> None:
    with pytest.raises(ValueError, match="more than"):
        shards.expanded(pattern)


def test_webdataset_reads_what_is_written_and_the_reverse(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    path = tmp_path / "ours.tar"
    with path.open("wb") as file:
        writer = shards.Writer(file, "made by a test")
        for name, data in MEMBERS[:4]:
            writer.add(name, data)
        writer.close()
    found = list(webdataset.WebDataset(str(path), shardshuffle=False))
    assert [(s["__key__"], {k: v for k, v in s.items() if not k.startswith("__")}) for s in found] == [
        (s.key, s.members) for s in read(path.read_bytes())
    ]
    theirs = tmp_path / "theirs.tar"
    with webdataset.TarWriter(str(theirs)) as made:
        made.write({"__key__": "a/1", "jpg": b"one", "cls": b"7"})
    (sample,) = read(theirs.read_bytes())
    assert (sample.key, sample.members) == ("a/1", {"jpg": b"one", "cls": b"7"})
