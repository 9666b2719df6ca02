"""Large archives: resume, retry, reports, lists, shards and tables; the same for every command that they apply to."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dcu import tables
from dcu.cli.entries import Entry
from dcu.cli.outputs import Output
from dcu.codec import Codec

from .conftest import Dcu, one_line, png, smooth_image, tar

COMMANDS = ("compress", "decode", "segment", "embed")
"""Those that write a file per input."""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A directory of six images, one of them damaged."""
    place = tmp_path / "in"
    (place / "sub").mkdir(parents=True)
    for seed in range(5):
        (place / ("sub" if seed % 2 else "") / f"{seed}.png").write_bytes(png(smooth_image(32, 24, seed)))
    (place / "9.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    return place


@pytest.fixture
def inputs_of(images: Path, tmp_path: Path, codec: Codec) -> Callable[[str], Path]:
    """A directory of inputs for a command: images, or bitstreams of the same names."""
    bins = tmp_path / "bins"
    for path in images.rglob("*.png"):
        place = (bins / path.relative_to(images)).with_suffix(".bin")
        place.parent.mkdir(parents=True, exist_ok=True)
        seed = int(path.stem)
        place.write_bytes(b"nothing" if seed == 9 else codec.compress(smooth_image(32, 24, seed)))
    return lambda command: images if command == "compress" else bins


def written(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def recorded(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, fact: Callable[..., str]) -> list[str]:
    """A fact of each call of a method."""
    facts: list[str] = []
    original = getattr(owner, method)

    def call(*arguments: Any) -> Any:
        facts.append(fact(*arguments))
        return original(*arguments)

    monkeypatch.setattr(owner, method, call)
    return facts


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.usefixtures("segmenter")
@pytest.mark.parametrize("command", COMMANDS)
def test_report_has_a_row_for_every_input(
    dcu: Dcu, inputs_of: Callable[[str], Path], tmp_path: Path, command: str
) -> None:
    answer = dcu(command, inputs_of(command), "-o", tmp_path / "out", "--report", tmp_path / "r.jsonl")
    assert answer.code == 65
    found = rows(tmp_path / "r.jsonl")
    assert [row["status"] for row in found].count("done") == 5
    (failed,) = (row for row in found if row["status"] == "failed")
    assert failed["input"].endswith(("9.png", "9.bin"))
    assert failed["exit_code"] == 65
    assert failed["message"]
    for row in found:
        if row["status"] == "done":
            data = Path(row["output"]).read_bytes()
            assert row["sha256"] == hashlib.sha256(data).hexdigest()
            assert row["bytes"] == len(data)
            assert row["seconds"] >= 0


@pytest.mark.usefixtures("segmenter")
@pytest.mark.parametrize("command", COMMANDS)
def test_finished_outputs_are_skipped(
    dcu: Dcu, inputs_of: Callable[[str], Path], tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = inputs_of(command), tmp_path / "out"
    assert dcu(command, source, "-o", out).code == 65
    before = written(out)
    next(out.rglob("3.*")).unlink()
    worked = recorded(monkeypatch, Entry, "opened", lambda self: str(self.name))
    answer = dcu(command, source, "-o", out, "--skip-existing", "--report", tmp_path / "r.jsonl")
    assert answer.code == 65, "the damaged one fails again"
    assert {Path(name).stem for name in worked} == {"3", "9"}
    assert written(out) == before
    assert "1 done, 1 failed, 4 skipped: done before" in answer.err
    assert sorted(row["status"] for row in rows(tmp_path / "r.jsonl")) == ["done", "failed", *["skipped"] * 4]


@pytest.mark.parametrize("report", ["r.jsonl", "r.parquet"])
def test_only_what_failed_is_retried(dcu: Dcu, images: Path, tmp_path: Path, report: str) -> None:
    out = tmp_path / "out"
    assert dcu("compress", images, "-o", out, "--report", tmp_path / report).code == 65
    before = written(out)
    (images / "9.png").write_bytes(png(smooth_image(32, 24, 9)))
    (images / "10.png").write_bytes(png(smooth_image(32, 24, 10)))
    answer = dcu("compress", images, "-o", out, "--retry", tmp_path / report, "--report", tmp_path / report)
    assert answer.code == 0
    assert set(written(out)) - set(before) == {"9.bin"}
    again = dcu("compress", images, "-o", out, "--retry", tmp_path / report)
    assert (again.code, "0 done, 0 failed" in again.err) == (0, True)


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("none.jsonl", None, 66),
        ("r.jsonl", b"{}\n", 65),
        ("r.jsonl", b"[1]\n", 65),
        ("r.parquet", b"PAR1", 65),
        ("r.csv", b"", 2),
    ],
)
def test_reports_that_cannot_be_retried(
    dcu: Dcu, images: Path, tmp_path: Path, name: str, content: bytes | None, code: int
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    answer = dcu("compress", images, "-o", tmp_path / "out", "--retry", tmp_path / name)
    assert answer.code == code
    assert one_line(answer.err)
    assert not (tmp_path / "out").exists()


def test_outputs_of_another_codec_are_no_finished_ones(dcu: Dcu, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "0.bin").write_bytes(b"text")
    answer = dcu("compress", images / "0.png", "-o", out, "--skip-existing")
    assert answer.code == 73
    assert "not a bitstream" in answer.err
    assert (out / "0.bin").read_bytes() == b"text"


@pytest.mark.parametrize(
    ("made", "asked", "why"),
    [
        (["--quality", "5"], ["--quality", "6"], "of quality 5, not 6"),
        (["--rate", "0.3"], [], "of quality"),
        (["--target-psnr", "15"], ["--quality", "63"], "not 63"),
        ([], ["--codec", "codec-0.0983"], "made by another codec"),
        (["--for", "machines"], ["--target-bytes", "1000"], "made for machines"),
        ([], ["--for", "machines"], "made for people"),
        (["--quality", "5"], ["--quality", "5"], ""),
        (["--rate", "0.3"], ["--rate", "0.3"], ""),
        (["--quality", "5"], ["--target-bytes", "4000"], ""),
        (["--quality", "5"], ["--target-psnr", "30"], ""),
    ],
)
def test_outputs_of_other_options_are_no_finished_ones(
    dcu: Dcu, images: Path, tmp_path: Path, made: list[str], asked: list[str], why: str
) -> None:
    codec, out = ["--codec", "codec-2"], tmp_path / "out.dcu"
    assert dcu("compress", images / "0.png", "-o", out, *codec, *made).code == 0
    before = out.read_bytes()
    answer = dcu("compress", images / "0.png", "-o", out, "--skip-existing", *codec, *asked)
    assert answer.code == (73 if why else 0)
    assert why in answer.err
    assert out.read_bytes() == before


def test_a_report_survives_an_interrupt(
    dcu: Dcu, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Output.put

    def interrupted(self: Any, entry: Any, content: Any) -> Any:
        if entry.name.endswith("2.png"):
            raise KeyboardInterrupt
        return put(self, entry, content)

    monkeypatch.setattr(Output, "put", interrupted)
    answer = dcu("compress", images, "-o", tmp_path / "out", "--report", tmp_path / "r.jsonl")
    assert answer.code == 130
    assert [row["status"] for row in rows(tmp_path / "r.jsonl")] == ["done"]


def test_lists_of_inputs(dcu: Dcu, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(images)
    names = ["0.png", "sub/1.png", "", str(images / "2.png"), "none.png"]
    (tmp_path / "list").write_text("\r\n".join(names))
    answer = dcu("compress", "--files-from", tmp_path / "list", "-o", tmp_path / "out")
    assert answer.code == 66
    assert "none.png: No such file" in answer.err
    assert set(written(tmp_path / "out")) == {"0.bin", "sub/1.bin", "2.bin"}
    assert dcu("compress", "--files-from", tmp_path / "missing", "-o", tmp_path / "out").code == 66
    (tmp_path / "list").write_text("-\n")
    assert dcu("compress", "--files-from", tmp_path / "list", "-o", tmp_path / "out").code == 2
    assert dcu("compress", "-o", tmp_path / "out").code == 2


@pytest.fixture
def shard_of(inputs_of: Callable[[str], Path], tmp_path: Path) -> Callable[[str, str], Path]:
    """A shard of the good inputs of a command, with sidecars."""

    def make(command: str, name: str) -> Path:
        members: list[tuple[str, bytes]] = []
        for path in sorted(inputs_of(command).rglob("*.*"), key=lambda path: path.name):
            if path.is_file() and path.stem != "9":
                members += [(f"k/{path.name}", path.read_bytes()), (f"k/{path.stem}.cls", path.stem.encode())]
        place = tmp_path / "shards" / name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(tar(members))
        return place

    return make


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


@pytest.mark.usefixtures("segmenter")
@pytest.mark.parametrize("command", ["decode", "classify", "segment", "embed", "info", "verify"])
def test_both_extensions_are_read(dcu: Dcu, codec: Codec, tmp_path: Path, command: str) -> None:
    """From directories and from shards."""
    place, shards = tmp_path / "bins", tmp_path / "shards"
    place.mkdir()
    shards.mkdir()
    data = [(name, codec.compress(smooth_image(32, 24))) for name in ("a.bin", "b.dcu", "c.DCU")]
    for name, content in data:
        (place / name).write_bytes(content)
    (shards / "0.tar").write_bytes(tar(data))
    output = {"decode": ["-o", tmp_path / "out"], "segment": ["-o", tmp_path / "out"]}.get(command, [])
    output = ["-o", tmp_path / "out.jsonl"] if command == "embed" else output
    for source in (place, shards):
        report = ["--json"] if command in ("classify", "info", "verify") else ["--report", tmp_path / "r.jsonl"]
        answer = dcu(command, source, *output, *report, *(["--force"] if command == "embed" else []))
        assert answer.code == 0, answer.err
        found = answer.lines if report == ["--json"] else rows(tmp_path / "r.jsonl")
        assert [Path(row["input"]).name for row in found] == ["a.bin", "b.dcu", "c.DCU"]


def test_the_extension_of_bitstreams_can_be_chosen(
    dcu: Dcu, images: Path, shard_of: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--skip-existing, and finished shards, are of that extension."""
    (images / "9.png").unlink()
    out, chosen = tmp_path / "out", ("--extension", ".dcu")
    assert dcu("compress", images, "-o", out).code == 0
    default = written(out)
    assert all(name.endswith(".bin") for name in default)
    answer = dcu("compress", images, "-o", out, "--skip-existing", *chosen)
    assert "5 done" in answer.err
    assert written(out) == default | {name.replace(".bin", ".dcu"): data for name, data in default.items()}
    worked = recorded(monkeypatch, Entry, "opened", lambda self: str(self.name))
    assert "5 skipped" in dcu("compress", images, "-o", out, "--skip-existing", *chosen).err
    assert not worked
    kept = dcu("compress", images, "-o", tmp_path / "kept", "--keep-extension", *chosen)
    assert kept.code == 0
    assert (tmp_path / "kept" / "0.png.dcu").exists()
    source, shards = shard_of("compress", "0.tar"), tmp_path / "made"
    assert dcu("compress", source, "-o", f"{shards}/", *chosen).code == 0
    assert set(members(shards / "0.tar")) == {f"k/{i}{s}" for i in range(5) for s in (".dcu", ".cls")}
    assert "1 skipped" in dcu("compress", source, "-o", f"{shards}/", *chosen).err
    assert dcu("compress", source, "-o", f"{shards}/").code == 73, "made with another extension"


@pytest.mark.usefixtures("segmenter")
@pytest.mark.parametrize("command", ["compress", "decode", "segment"])
def test_shards_keep_keys_and_sidecars(
    dcu: Dcu, shard_of: Callable[[str, str], Path], tmp_path: Path, command: str
) -> None:
    source, out = shard_of(command, "0.tar"), tmp_path / "out"
    shard_of(command, "1.tar")
    answer = dcu(command, str(source.parent / "{0..1}.tar"), "-o", out, "--report", tmp_path / "r.jsonl")
    assert answer.code == 0, answer.err
    suffix = ".bin" if command == "compress" else ".png"
    for name in ("0.tar", "1.tar"):
        found = members(out / name)
        assert set(found) == {f"k/{i}{s}" for i in range(5) for s in (suffix, ".cls")}
        assert found["k/3.cls"] == b"3"
    first, *_ = rows(tmp_path / "r.jsonl")
    assert first["input"] == f"{source}/k/0.{'png' if command == 'compress' else 'bin'}"
    assert first["sha256"] == hashlib.sha256(members(out / "0.tar")[f"k/0{suffix}"]).hexdigest()


def test_results_in_shards_are_those_of_files(
    dcu: Dcu, shard_of: Callable[[str, str], Path], images: Path, tmp_path: Path
) -> None:
    dcu("compress", images, "-o", tmp_path / "files")
    for number, jobs in enumerate((1, 3)):
        out = tmp_path / f"{jobs}.tar"
        assert dcu("compress", shard_of("compress", "0.tar"), "-o", out, "--jobs", jobs).code == 0
        found = members(out)
        assert {Path(k).stem: v for k, v in found.items() if k.endswith(".bin")} == {
            Path(k).stem: v for k, v in written(tmp_path / "files").items()
        }
        assert out.read_bytes() == (tmp_path / "1.tar").read_bytes(), number


def test_finished_shards_are_skipped_without_a_flag(
    dcu: Dcu, shard_of: Callable[[str, str], Path], tmp_path: Path
) -> None:
    source, out = shard_of("compress", "0.tar"), tmp_path / "out"
    dcu("compress", source, "-o", f"{out}/")
    before = (out / "0.tar").stat()
    shard_of("compress", "1.tar")
    answer = dcu("compress", source.parent, "-o", out)
    assert "5 done, 0 failed, 1 skipped: done before" in answer.err
    after = (out / "0.tar").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    answer = dcu("compress", source, "-o", f"{out}/", "--force")
    assert "5 done, 0 failed" in answer.err


def test_shards_of_another_codec_are_not_taken_for_finished(
    dcu: Dcu, shard_of: Callable[[str, str], Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "0.tar").write_bytes(tar([("k/0.bin", b"\xdc\x75\x01\x00other\x10\x10\x10")]))
    before = (out / "0.tar").read_bytes()
    answer = dcu("compress", shard_of("compress", "0.tar"), "-o", out)
    assert answer.code == 73
    assert "exists already, made by something else" in answer.err
    assert (out / "0.tar").read_bytes() == before
    dcu("compress", shard_of("compress", "0.tar"), "-o", out, "--force")
    again = dcu("compress", shard_of("compress", "0.tar"), "-o", out, "--background", "black")
    assert (again.code, "exists already, made with" in again.err) == (73, True)


def test_what_failed_in_a_shard_is_retried_alone(
    dcu: Dcu, shard_of: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out, report = shard_of("compress", "0.tar"), tmp_path / "out", tmp_path / "r.jsonl"
    whole = source.read_bytes()
    dcu("compress", source, "-o", tmp_path / "whole.tar")
    damaged = members(source) | {"k/2.png": b""}
    source.write_bytes(tar(list(damaged.items())))
    assert dcu("compress", source, "-o", f"{out}/", "--report", report).code == 65
    assert "k/2.bin" not in members(out / "0.tar")
    assert "k/2.cls" not in members(out / "0.tar")
    source.write_bytes(whole)
    read = recorded(monkeypatch, Entry, "image", lambda self: str(self.name))
    assert dcu("compress", source, "-o", f"{out}/", "--retry", report).code == 0
    assert read == [f"{source}/k/2.png"]
    assert (out / "0.tar").read_bytes() == (tmp_path / "whole.tar").read_bytes()


@pytest.mark.parametrize("command", ["compress", "classify", "embed"])
def test_samples_that_failed_are_not_forgotten(
    dcu: Dcu, shard_of: Callable[[str, str], Path], tmp_path: Path, command: str
) -> None:
    """A finished shard states that it lacks some: a run without the first one's report fails again, and is retried."""
    source, out, fresh = shard_of(command, "0.tar"), tmp_path / "out", tmp_path / "fresh"
    whole = source.read_bytes()
    bad = "k/2.png" if command == "compress" else "k/2.bin"
    source.write_bytes(tar(list((members(source) | {bad: b""}).items())))
    first = dcu(command, source, "-o", f"{out}/")
    assert (first.code, "1 failed" in first.err) == (65, True)
    for _ in range(2):
        again = dcu(command, source, "-o", f"{out}/", "--report", tmp_path / "r.jsonl")
        assert (again.code, again.err.count("1 of its samples failed before")) == (65, 1)
        (row,) = rows(tmp_path / "r.jsonl")
        assert (row["input"], row["status"]) == (str(source), "failed")
    still = dcu(command, source, "-o", f"{out}/", "--retry", tmp_path / "r.jsonl", "--report", tmp_path / "r2.jsonl")
    assert (still.code, "0 done, 1 failed" in still.err) == (65, True)
    source.write_bytes(whole)
    retried = dcu(command, source, "-o", f"{out}/", "--retry", tmp_path / "r.jsonl")
    assert (retried.code, "1 done, 0 failed" in retried.err) == (0, True)
    assert "1 skipped: done before" in dcu(command, source, "-o", f"{out}/").err
    if command == "compress":
        dcu(command, source, "-o", f"{fresh}/")
        assert (out / "0.tar").read_bytes() == (fresh / "0.tar").read_bytes()


ODD: dict[str, list[tuple[str, int | None]]] = {
    "two images of one key": [("k/1.png", 1), ("k/1.jpg", 2), ("k/2.png", 3)],
    "a key that came before": [("k/1.png", 1), ("k/2.png", 3), ("k/1.png", 4)],
    "nothing else": [("k/1.png", None), ("k/2.png", None)],
}
"""Samples that cannot be in a shard of results, by the seeds of their images."""


@pytest.mark.parametrize("fault", ODD)
def test_samples_that_fail_again_are_not_forgotten(dcu: Dcu, tmp_path: Path, fault: str) -> None:
    source, out, report = tmp_path / "0.tar", tmp_path / "out", tmp_path / "r.jsonl"
    source.write_bytes(
        tar([(name, b"" if seed is None else png(smooth_image(32, 24, seed))) for name, seed in ODD[fault]])
    )
    assert dcu("compress", source, "-o", f"{out}/").code == 65
    before = (out / "0.tar").read_bytes()
    for _ in range(2):
        again = dcu("compress", source, "-o", f"{out}/", "--report", report)
        assert (again.code, "of its samples failed before" in again.err) == (65, True)
        assert dcu("compress", source, "-o", f"{out}/", "--retry", report).code == 65
        assert (out / "0.tar").read_bytes() == before
    source.write_bytes(tar([("k/1.png", png(smooth_image(32, 24, 1))), ("k/2.png", png(smooth_image(32, 24, 3)))]))
    assert dcu("compress", source, "-o", f"{out}/", "--retry", report).code == 0
    assert list(members(out / "0.tar")) == ["k/1.bin", "k/2.bin"]


@pytest.mark.usefixtures("segmenter")
def test_one_of_two_outputs_lacks_samples(dcu: Dcu, shard_of: Callable[[str, str], Path], tmp_path: Path) -> None:
    source, report = shard_of("segment", "0.tar"), tmp_path / "r.jsonl"
    whole = source.read_bytes()
    call = ("segment", source, "-o", f"{tmp_path}/maps/", "--overlay", f"{tmp_path}/seen/")
    source.write_bytes(tar(list((members(source) | {"k/2.bin": b""}).items())))
    assert dcu(*call).code == 65
    source.write_bytes(whole)
    (tmp_path / "seen" / "0.tar").unlink()
    assert dcu(*call, "--report", report).code == 65
    answer = dcu(*call, "--retry", report, "--report", tmp_path / "r2.jsonl")
    assert (answer.code, "5 done, 0 failed" in answer.err) == (0, True)
    for place in ("maps", "seen"):
        assert len(members(tmp_path / place / "0.tar")) == 10, place
    assert {Path(row["output"]).parent for row in rows(tmp_path / "r2.jsonl")} == {
        tmp_path / place / "0.tar" / "k" for place in ("maps", "seen")
    }
    (tmp_path / "seen" / "0.tar").unlink()
    assert "5 done, 0 failed" in dcu(*call).err


def test_a_retry_of_fewer_samples_forgets_no_others(
    dcu: Dcu, shard_of: Callable[[str, str], Path], tmp_path: Path
) -> None:
    source, report = shard_of("classify", "0.tar"), tmp_path / "r.jsonl"
    whole = members(source)
    source.write_bytes(tar(list((whole | {"k/1.bin": b"", "k/2.bin": b""}).items())))
    dcu("classify", source, "-o", f"{tmp_path}/out/", "--report", report)
    source.write_bytes(tar(list((whole | {"k/2.bin": b""}).items())))
    report.write_text("".join(line for line in report.read_text().splitlines(True) if "k/1.bin" in line))
    assert dcu("classify", source, "-o", f"{tmp_path}/out/", "--retry", report).code == 0
    again = dcu("classify", source, "-o", f"{tmp_path}/out/")
    assert (again.code, "1 of its samples failed before" in again.err) == (65, True)


def test_no_report_of_a_table_that_does_not_appear(
    dcu: Dcu, shard_of: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = tables.JsonLines.add

    def full(self: tables.JsonLines, row: dict[str, Any]) -> None:
        if row.get("key") == "k/2" and "probability" in row:
            raise OSError(28, "No space left on device")
        add(self, row)

    monkeypatch.setattr(tables.JsonLines, "add", full)
    table, report = tmp_path / "t.jsonl", tmp_path / "r.jsonl"
    assert dcu("classify", shard_of("classify", "0.tar"), "-o", table, "--report", report).code == 73
    assert not table.exists()
    assert not report.exists()


def test_a_retry_can_be_repeated(dcu: Dcu, shard_of: Callable[[str, str], Path], tmp_path: Path) -> None:
    source, out, report = shard_of("compress", "0.tar"), tmp_path / "out", tmp_path / "r.jsonl"
    whole = source.read_bytes()
    source.write_bytes(tar(list((members(source) | {"k/2.png": b""}).items())))
    assert dcu("compress", source, "-o", f"{out}/", "--report", report).code == 65
    source.write_bytes(whole)
    assert dcu("compress", source, "-o", f"{out}/", "--retry", report).code == 0
    once = (out / "0.tar").read_bytes()
    assert dcu("compress", source, "-o", f"{out}/", "--retry", report).code == 0
    assert (out / "0.tar").read_bytes() == once
    answer = dcu("compress", shard_of("compress", "1.tar"), "-o", f"{out}/", "--retry", report)
    assert (answer.code, "not among the inputs" in answer.err) == (2, True)


def test_a_shard_that_failed_as_a_whole_is_retried(
    dcu: Dcu, shard_of: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out, report = shard_of("compress", "0.tar"), tmp_path / "out", tmp_path / "r.jsonl"
    whole = source.read_bytes()
    source.write_bytes(whole[:3000])
    assert dcu("compress", source, "-o", f"{out}/", "--report", report).code == 65
    assert [(row["input"], row["status"]) for row in rows(report)] == [(str(source), "failed")]
    assert "bytes" not in dcu("compress", source, "-o", f"{out}/").err
    source.write_bytes(whole)
    monkeypatch.chdir(source.parent)
    assert dcu("compress", "./0.tar", "-o", f"{out}/", "--retry", report).code == 2, "another spelling of the directory"
    assert dcu("compress", f"{source.parent}/./0.tar", "-o", f"{out}/", "--retry", report).code == 0
    assert len(members(out / "0.tar")) == 10


def test_a_result_that_would_be_a_sidecar(dcu: Dcu, tmp_path: Path) -> None:
    good = png(smooth_image(32, 24, 1))
    (tmp_path / "0.tar").write_bytes(tar([("1.png", good), ("1.bin", b"x"), ("1.cls", b"7"), ("2.png", good)]))
    answer = dcu("compress", tmp_path / "0.tar", "-o", tmp_path / "out.tar")
    assert answer.code == 65
    assert set(members(tmp_path / "out.tar")) == {"2.bin"}


def test_sidecars_stay_with_the_image_that_succeeds(dcu: Dcu, tmp_path: Path) -> None:
    good = png(smooth_image(32, 24, 1))
    (tmp_path / "0.tar").write_bytes(tar([("1.a.png", b""), ("1.b.png", good), ("1.c.png", good), ("1.cls", b"7")]))
    assert dcu("compress", tmp_path / "0.tar", "-o", tmp_path / "out.tar").code == 65
    assert set(members(tmp_path / "out.tar")) == {"1.b.bin", "1.c.bin", "1.cls"}


def test_files_of_explicit_names_are_not_taken_for_finished(
    dcu: Dcu, shard_of: Callable[[str, str], Path], tmp_path: Path
) -> None:
    dcu("compress", shard_of("compress", "0.tar"), "-o", tmp_path / "one.tar")
    answer = dcu("compress", shard_of("compress", "1.tar"), "-o", tmp_path / "one.tar")
    assert (answer.code, "exists already" in answer.err) == (73, True)
    assert dcu("decode", tmp_path / "one.tar", "-o", tmp_path / "x.png").code == 2


def test_outputs_are_written_when_nobody_reads_the_lines(
    dcu: Dcu, inputs_of: Callable[[str], Path], tmp_path: Path
) -> None:
    import subprocess
    import sys

    words = [sys.executable, "-m", "dcu", "classify", inputs_of("classify"), "--json", "-o", tmp_path / "t.jsonl"]
    with subprocess.Popen([*map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.wait()
    assert len(rows(tmp_path / "t.jsonl")) == 5


def test_a_report_replaces_nothing_else(dcu: Dcu, inputs_of: Callable[[str], Path], tmp_path: Path) -> None:
    bins, listed = inputs_of("classify"), tmp_path / "list.jsonl"
    listed.write_text(f"{bins / '0.bin'}\n")
    table = tmp_path / "t.jsonl"
    assert dcu("classify", bins, "-o", table, "--report", table).code == 2
    assert dcu("classify", "--files-from", listed, "--report", listed).code == 2
    assert listed.read_text().startswith(str(bins))
    report = tmp_path / "r.jsonl"
    dcu("classify", bins, "-o", table, "--report", report)
    before = report.read_bytes()
    assert dcu("classify", bins, "-o", table, "--report", report).code == 73
    assert report.read_bytes() == before, "of a run that did not begin"


def test_an_interrupted_retry_forgets_no_failure(
    dcu: Dcu, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "r.jsonl"
    for name in ("6.png", "7.png"):
        (images / name).write_bytes(b"")
    dcu("compress", images, "-o", tmp_path / "out", "--report", report)
    for name in ("6.png", "7.png", "9.png"):
        (images / name).write_bytes(png(smooth_image(32, 24, 1)))
    put = Output.put

    def interrupted(self: Any, entry: Any, content: Any) -> Any:
        if entry.name.endswith("7.png"):
            raise KeyboardInterrupt
        return put(self, entry, content)

    with monkeypatch.context() as patch:
        patch.setattr(Output, "put", interrupted)
        assert dcu("compress", images, "-o", tmp_path / "out", "--retry", report, "--report", report).code == 130
    assert dcu("compress", images, "-o", tmp_path / "out", "--retry", report).code == 0
    assert {"6.bin", "7.bin", "9.bin"} <= set(written(tmp_path / "out"))


def test_names_that_are_no_text(dcu: Dcu, tmp_path: Path) -> None:
    place = tmp_path / "in"
    place.mkdir()
    try:
        (place / "a\udcff.png").write_bytes(b"")
    except OSError:
        pytest.skip("the file system takes text only")
    report = tmp_path / "r.parquet"
    assert dcu("compress", place, "-o", tmp_path / "out", "--report", report).code == 65
    (place / "a\udcff.png").write_bytes(png(smooth_image(32, 24, 1)))
    assert dcu("compress", place, "-o", tmp_path / "out", "--retry", report).code == 0


def test_local_urls_are_paths(dcu: Dcu, images: Path, tmp_path: Path) -> None:
    before = (images / "0.png").read_bytes()
    assert dcu("compress", images / "0.png", "-o", f"file://{images}/0.png", "--force").code == 2
    assert dcu("compress", f"file://{images}/0.png", "-o", tmp_path / "x.bin").code == 0
    assert (images / "0.png").read_bytes() == before
    for option in ("-o", "--report"):
        answer = dcu("classify", tmp_path / "x.bin", option, "s3://photos/t.jsonl")
        assert (answer.code, "s3://photos/t.jsonl: tables are local files" in answer.err) == (2, True)


def test_tables_do_not_confuse_inputs(dcu: Dcu, inputs_of: Callable[[str], Path], tmp_path: Path) -> None:
    bins, table = inputs_of("classify"), tmp_path / "t.jsonl"
    data = (bins / "0.bin").read_bytes()
    for name in ("d1/p.2023.bin", "d1/p.2024.bin", "d2/p.2023.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    dcu("classify", tmp_path / "d1", "-o", table)
    assert dcu("classify", tmp_path / "d1", tmp_path / "d2", "-o", table, "--skip-existing").code == 0
    assert [row["key"] for row in rows(table)] == ["p.2023", "p.2024", "p.2023"]


@pytest.mark.parametrize("command", ["classify", "embed"])
def test_shards_into_one_table_again(
    dcu: Dcu, shard_of: Callable[[str, str], Path], tmp_path: Path, command: str
) -> None:
    source, table = shard_of(command, "0.tar"), tmp_path / "t.jsonl"
    dcu(command, source, "-o", table)
    before = table.read_bytes()
    answer = dcu(command, source, "-o", table, "--skip-existing")
    assert (answer.code, "0 done, 0 failed, 5 skipped: done before" in answer.err) == (0, True)
    assert table.read_bytes() == before


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_what_comes_before_the_damage_is_the_same_for_all_jobs(
    dcu: Dcu, shard_of: Callable[[str, str], Path], jobs: int
) -> None:
    source = shard_of("classify", "0.tar")
    source.write_bytes(source.read_bytes()[: 8 * 1024 + 600])
    lines = dcu("classify", source, "--json", "--jobs", jobs).lines
    assert [line["input"][-7:] for line in lines if "error" not in line] == [f"k/{i}.bin" for i in range(4)]


@pytest.mark.parametrize("command", ["compress", "decode", "classify", "embed", "verify", "info"])
def test_faulty_shards(dcu: Dcu, shard_of: Callable[[str, str], Path], tmp_path: Path, command: str) -> None:
    """One clear line each, nothing under a final name, and the other shard is worked on."""
    good = shard_of(command, "1.tar")
    truncated = good.with_name("0.tar")
    truncated.write_bytes(good.read_bytes()[:2000])
    output = {"classify": ["-o", tmp_path / "out"], "embed": ["-o", tmp_path / "out"]}
    options = output.get(command, ["-o", tmp_path / "out"] if command in ("compress", "decode") else [])
    answer = dcu(command, truncated, good, *options)
    assert answer.code == 65
    lines = [line for line in answer.err.splitlines() if str(truncated) in line]
    assert len(lines) == 1
    assert "not a whole uncompressed tar" in lines[0]
    if options:
        assert [path.stem for path in (tmp_path / "out").iterdir()] == ["1"]


def test_faulty_samples(dcu: Dcu, tmp_path: Path) -> None:
    good = png(smooth_image(32, 24, 1))
    source = tmp_path / "0.tar"
    source.write_bytes(
        tar([("1.png", good), ("2.png", b""), ("../3.png", good), ("4.txt", b"x"), ("1.png", good), ("5.png", good)])
    )
    answer = dcu("compress", source, "-o", tmp_path / "out.tar", "--json")
    assert answer.code == 65
    assert [line.get("exit_code", 0) for line in answer.lines] == [0, 65, 65, 65, 65, 0]
    assert set(members(tmp_path / "out.tar")) == {"1.bin", "5.bin"}


@pytest.mark.parametrize("suffix", tables.SUFFIXES)
@pytest.mark.parametrize("command", ["classify", "embed"])
def test_tables(
    dcu: Dcu,
    shard_of: Callable[[str, str], Path],
    inputs_of: Callable[[str], Path],
    tmp_path: Path,
    command: str,
    suffix: str,
) -> None:
    source, table = shard_of(command, "0.tar"), tmp_path / f"t{suffix}"
    assert dcu(command, source, "-o", table).code == 0
    columns = ["key", "shard", "codec", "network", "embedding" if command == "embed" else "predictions"]
    found = list(tables.read(table, columns))
    assert [row["key"] for row in found] == [f"k/{i}" for i in range(5)]
    assert {row["shard"] for row in found} == {str(source)}
    if command == "embed":
        assert [row["label"] for row in tables.read(table, ["label"])] == list("01234")
        (printed, *_) = dcu("embed", inputs_of("embed") / "0.bin", "--json").lines
        assert np.allclose(found[0]["embedding"], printed["embedding"], atol=2e-3)
    before = table.read_bytes()
    answer = dcu(command, source, "-o", table)
    assert answer.code == 73
    assert "exists already" in answer.err
    assert table.read_bytes() == before


def test_tables_grow(dcu: Dcu, inputs_of: Callable[[str], Path], tmp_path: Path) -> None:
    bins, table, report = inputs_of("classify"), tmp_path / "t.jsonl", tmp_path / "r.jsonl"
    assert dcu("classify", bins, "-o", table, "--report", report).code == 65
    keys = [row["key"] for row in rows(table)]
    assert keys == ["0", "2", "4", "sub/1", "sub/3"]
    (bins / "9.bin").write_bytes((bins / "0.bin").read_bytes())
    answer = dcu("classify", bins, "-o", table, "--retry", report)
    assert answer.code == 0
    assert [row["key"] for row in rows(table)] == [*keys, "9"]
    (bins / "8.bin").write_bytes((bins / "0.bin").read_bytes())
    answer = dcu("classify", bins, "-o", table, "--skip-existing")
    assert "1 done, 0 failed, 6 skipped: done before" in answer.err
    assert [row["key"] for row in rows(table)] == [*keys, "9", "8"]


def test_a_table_for_each_shard(dcu: Dcu, shard_of: Callable[[str, str], Path], tmp_path: Path) -> None:
    source, out = shard_of("embed", "0.tar"), tmp_path / "out"
    shard_of("embed", "1.tar")
    assert dcu("embed", source.parent, "-o", out).code == 0
    assert {path.name for path in out.iterdir()} == {"0.parquet", "1.parquet"}
    assert "2 skipped: done before" in dcu("embed", source.parent, "-o", out).err


@pytest.mark.parametrize("output", ["t.csv", "dir"])
def test_tables_that_cannot_be(dcu: Dcu, inputs_of: Callable[[str], Path], tmp_path: Path, output: str) -> None:
    answer = dcu("classify", inputs_of("classify"), "-o", tmp_path / output)
    assert answer.code == 2
    assert one_line(answer.err)


def test_parquet_without_pyarrow(
    dcu: Dcu, inputs_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for options in (["-o", tmp_path / "t.parquet"], ["-o", tmp_path / "t.jsonl", "--report", tmp_path / "r.parquet"]):
        answer = dcu("classify", inputs_of("classify"), *options)
        assert answer.code == 69
        assert one_line(answer.err)
        assert "dcu-codec[parquet]" in answer.err


def test_shards_of_a_pipe(
    dcu: Dcu, shard_of: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shard_of("compress", "0.tar")
    dcu("compress", source, "-o", tmp_path / "file.tar")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(source.read_bytes()))))
    assert dcu("compress", "-", "-o", tmp_path / "pipe.tar").code == 0
    assert (tmp_path / "pipe.tar").read_bytes() == (tmp_path / "file.tar").read_bytes()


def test_precision_is_stated_and_bytes_do_not_depend_on_jobs(dcu: Dcu, images: Path, tmp_path: Path) -> None:
    for precision in ("float32", "auto"):
        found = []
        for jobs in (1, 2, 5):
            out = tmp_path / f"{precision}{jobs}"
            answer = dcu("compress", images, "-o", out, "--json", "--jobs", jobs, "--precision", precision)
            stated = {line["precision"] for line in answer.lines if "precision" in line}
            assert stated == {"float32"} or (precision == "auto" and stated == {"bfloat16"})
            found.append(written(out))
        assert found[0] == found[1] == found[2]
    assert torch.get_num_threads() >= 1
