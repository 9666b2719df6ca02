"""What is at an output's place already: results of other options, and what is no file, are not taken for finished."""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from dcu import store, tables
from dcu.codec import Codec
from dcu.io import lock_of, locked
from dcu.tasks.classify import Classifier

from .conftest import Dcu, one_line, png, smooth_image, tar


def shard(path: Path, names: Sequence[str] = ("0.png", "1.png")) -> Path:
    """A shard of images."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(tar([(name, png(smooth_image(32, 24, seed))) for seed, name in enumerate(names)]))
    return path


@pytest.fixture
def bins(tmp_path: Path, codec: Codec) -> Path:
    """A shard of bitstreams."""
    path = tmp_path / "bins" / "0.tar"
    path.parent.mkdir()
    path.write_bytes(tar([(f"{seed}.bin", codec.compress(smooth_image(32, 24, seed))) for seed in range(2)]))
    return path


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("made", "asked"),
    [
        (["--codec", "codec-2", "--quality", "0"], ["--codec", "codec-2"]),
        (["--codec", "codec-2"], ["--codec", "codec-2", "--quality", "0"]),
        (["--codec", "codec-2", "--target-psnr", "0"], ["--codec", "codec-2"]),
        ([], ["--keep-extension"]),
        ([], ["--precision", "float32"]),
    ],
)
def test_shards_of_other_options_are_no_finished_ones(
    dcu: Dcu, tmp_path: Path, made: list[str], asked: list[str]
) -> None:
    source, out = shard(tmp_path / "in" / "0.tar"), f"{tmp_path / 'out'}/"
    assert dcu("compress", source, "-o", out, *made).code == 0
    before = (tmp_path / "out" / "0.tar").read_bytes()
    answer = dcu("compress", source, "-o", out, *asked)
    assert (answer.code, "exists already, made with" in answer.err) == (73, True)
    assert (tmp_path / "out" / "0.tar").read_bytes() == before
    assert "1 skipped" in dcu("compress", source, "-o", out, *made).err


def test_a_retry_adds_no_results_of_other_options(dcu: Dcu, tmp_path: Path) -> None:
    source, out, report = shard(tmp_path / "in" / "0.tar"), f"{tmp_path / 'out'}/", tmp_path / "r.jsonl"
    whole = source.read_bytes()
    source.write_bytes(tar([("0.png", png(smooth_image(32, 24, 0))), ("1.png", b"")]))
    assert dcu("compress", source, "-o", out, "--report", report).code == 65
    before = (tmp_path / "out" / "0.tar").read_bytes()
    source.write_bytes(whole)
    answer = dcu("compress", source, "-o", out, "--retry", report, "--background", "black")
    assert (answer.code, "exists already, made with" in answer.err) == (73, True)
    assert (tmp_path / "out" / "0.tar").read_bytes() == before
    assert dcu("compress", source, "-o", out, "--retry", report).code == 0
    assert set(members(tmp_path / "out" / "0.tar")) == {"0.bin", "1.bin"}


def test_a_sample_that_was_refused_as_a_whole_is_retried(dcu: Dcu, tmp_path: Path) -> None:
    source, out, report = shard(tmp_path / "in" / "0.tar"), f"{tmp_path / 'out'}/", tmp_path / "r.jsonl"
    whole, data = source.read_bytes(), io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        image = png(smooth_image(32, 24, 0))
        good, link = tarfile.TarInfo("0.png"), tarfile.TarInfo("1.png")
        good.size, link.type, link.linkname = len(image), tarfile.SYMTYPE, "0.png"
        archive.addfile(good, io.BytesIO(image))
        archive.addfile(link)
    source.write_bytes(data.getvalue())
    assert dcu("compress", source, "-o", out, "--report", report).code == 65
    source.write_bytes(whole)
    answer = dcu("compress", source, "-o", out, "--retry", report)
    assert answer.code == 0, answer.err
    assert set(members(tmp_path / "out" / "0.tar")) == {"0.bin", "1.bin"}


@pytest.mark.parametrize(
    ("command", "asked"),
    [("classify", ["--top", "3"]), ("classify", ["--engine", "pytorch"]), ("embed", ["--views", "5"])],
)
def test_tables_of_other_options_are_no_finished_ones(
    dcu: Dcu, bins: Path, tmp_path: Path, command: str, asked: list[str]
) -> None:
    for place, skip in ((f"{tmp_path / 'out'}/", []), (str(tmp_path / "t.parquet"), ["--skip-existing"])):
        assert dcu(command, bins, "-o", place).code == 0
        table = tmp_path / "out" / "0.parquet" if place.endswith("/") else Path(place)
        before = table.read_bytes()
        answer = dcu(command, bins, "-o", place, *skip, *asked)
        assert (answer.code, "exists already, made with" in answer.err) == (73, True)
        assert table.read_bytes() == before
        assert "skipped: done before" in dcu(command, bins, "-o", place, *skip).err


def test_tables_of_other_weights_are_no_finished_ones(dcu: Dcu, bins: Path, own_models: Path, tmp_path: Path) -> None:
    """Of a network that was trained anew since."""
    model, out = store.read_model(own_models / "classifier-0.0983"), f"{tmp_path / 'out'}/"
    call = ("classify", bins, "-o", out, "--network", model.name)
    assert dcu(*call).code == 0
    weights = {name: tensor.float() for name, tensor in model.weights().items()}
    store.write_model(model.directory, model.card, {name: tensor + 1 for name, tensor in weights.items()})
    assert dcu(*call).code == 73
    assert dcu(*call, "--force").code == 0


def test_tables_state_the_classes_that_were_asked_for(dcu: Dcu, bins: Path, tmp_path: Path) -> None:
    chosen, out = tmp_path / "classes.txt", tmp_path / "t.parquet"
    first, second = (label.label for label in Classifier.load().labels[:2])
    chosen.write_text(f"{first}\n")
    assert dcu("classify", bins, "-o", out, "--classes", chosen).code == 0
    assert "done before" in dcu("classify", bins, "-o", out, "--classes", chosen, "--skip-existing").err
    chosen.write_text(f"{second}\n")
    assert dcu("classify", bins, "-o", out, "--classes", chosen, "--skip-existing").code == 73


def test_extensions_are_kept_in_a_single_shard(dcu: Dcu, tmp_path: Path) -> None:
    source = shard(tmp_path / "in" / "0.tar", ("7.jpg", "7.png"))
    assert dcu("compress", source, "-o", tmp_path / "out.tar", "--keep-extension").code == 0
    assert set(members(tmp_path / "out.tar")) == {"7.jpg.bin", "7.png.bin"}


def test_what_is_no_file_is_neither_replaced_nor_read(dcu: Dcu, bins: Path, tmp_path: Path) -> None:
    image = tmp_path / "0.png"
    image.write_bytes(png(smooth_image(32, 24, 0)))
    for name in ("pipe.bin", "pipe.tar", "pipe.jsonl", "pipe.parquet"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "directory.jsonl").mkdir()
    source = shard(tmp_path / "in" / "0.tar")
    for call in (
        ("compress", image, "-o", tmp_path / "pipe.bin", "--force"),
        ("compress", image, "-o", tmp_path / "pipe.bin", "--skip-existing"),
        ("compress", source, "-o", tmp_path / "pipe.tar"),
        ("compress", source, "-o", tmp_path / "pipe.tar", "--force"),
        ("compress", image, "-o", tmp_path / "out.bin", "--report", tmp_path / "pipe.jsonl"),
        ("compress", image, "-o", tmp_path / "out.bin", "--report", tmp_path / "directory.jsonl"),
        ("classify", bins, "-o", tmp_path / "pipe.parquet", "--force"),
        ("classify", bins, "-o", tmp_path / "pipe.jsonl", "--skip-existing"),
    ):
        answer = dcu(*call)
        assert (answer.code, "not a regular file" in answer.err) == (73, True), call
    assert not (tmp_path / "out.bin").exists()
    assert all((tmp_path / name).is_fifo() for name in ("pipe.bin", "pipe.tar", "pipe.jsonl", "pipe.parquet"))


def test_a_name_that_is_too_long_is_the_error_of_its_input(dcu: Dcu, bins: Path, tmp_path: Path) -> None:
    place, long = tmp_path / "in", "a" * 251
    place.mkdir()
    for name in ("0", long):
        (place / f"{name}.png").write_bytes(png(smooth_image(32, 24, 0)))
    for option in ("--skip-existing", "--force"):
        answer = dcu("compress", place, "-o", tmp_path / "out", "--keep-extension", option)
        assert (answer.code, "1 done" in answer.err or "1 skipped" in answer.err) == (73, True), answer.err
    assert dcu("classify", bins, "-o", tmp_path / f"{long}.jsonl").code == 73


def test_names_that_are_no_utf8(dcu: Dcu, bins: Path, tmp_path: Path) -> None:
    place = tmp_path / os.fsdecode(b"caf\xe9")
    assert dcu("embed", bins, "-o", place / "f.parquet").code == 0
    assert [row["key"] for row in tables.read(place / "f.parquet", ["key"])] == ["0", "1"]


def test_a_table_that_could_not_be_written_replaces_nothing(
    dcu: Dcu, bins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk: what was written of a row is not the end of a table."""
    table = tmp_path / "t.jsonl"
    dcu("classify", bins, "-o", table)
    before, add = table.read_bytes(), tables.JsonLines.add

    def full(self: tables.JsonLines, row: dict[str, object]) -> None:
        if row["key"] == "1":
            self.file.write('{"inp')
            raise OSError(errno.ENOSPC, "No space left on device")
        add(self, row)

    monkeypatch.setattr(tables.JsonLines, "add", full)
    for option in ("--force", "--skip-existing"):
        answer = dcu("classify", bins, "-o", table, option, "-q")
        assert (answer.code, answer.err) == (73, f"dcu: {table}: No space left on device\n")
        assert table.read_bytes() == before
    assert dcu("classify", bins, "-o", tmp_path / "new.jsonl").code == 73
    assert not (tmp_path / "new.jsonl").exists()


def test_two_runs_do_not_write_one_table(dcu: Dcu, bins: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.jsonl"
    with locked(lock_of(table), temporary=True):
        answer = dcu("classify", bins, "-o", table)
    assert (answer.code, answer.err) == (73, f"dcu: {table}: another run is writing it\n")
    assert dcu("classify", bins, "-o", table).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bins", "t.jsonl"]


@pytest.mark.parametrize("value", [5, None, "\ud800"])
@pytest.mark.parametrize("option", ["--skip-existing", "--retry"])
def test_rows_that_are_no_rows_of_a_run(dcu: Dcu, bins: Path, tmp_path: Path, option: str, value: object) -> None:
    table = tmp_path / "t.jsonl"
    dcu("classify", bins, "-o", table)
    row = json.loads(table.read_text().splitlines()[0]) | {"input": value}
    if option == "--retry":
        table.write_text(json.dumps(row | {"status": "failed"}) + "\n")
        answer = dcu("classify", bins, "-o", tmp_path / "new.jsonl", option, table, "-q")
    else:
        table.write_text(json.dumps(row) + "\n")
        answer = dcu("classify", bins, "-o", table, option, "-q")
    assert answer.code in (0, 2, 65)
    assert not answer.err or one_line(answer.err)


def test_tables_with_columns_of_other_types(dcu: Dcu, bins: Path, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow.parquet")
    table = tmp_path / "t.parquet"
    dcu("embed", bins, "-o", table)
    found = pyarrow.read_table(table)
    other = found.set_column(0, "input", [[1, 2]])
    pyarrow.write_table(other.replace_schema_metadata(found.schema.metadata), table)
    answer = dcu("embed", bins, "-o", table, "--skip-existing")
    assert (answer.code, "exists already, with other columns" in answer.err) == (73, True)
    assert one_line(answer.err)


def test_damaged_outputs_are_no_finished_ones(dcu: Dcu, tmp_path: Path) -> None:
    image, out = tmp_path / "a.png", tmp_path / "a.bin"
    image.write_bytes(png(smooth_image(32, 24)))
    dcu("compress", image, "-o", out)
    whole = out.read_bytes()
    for damaged in (whole[:-1], whole + b"x", b""):
        out.write_bytes(damaged)
        answer = dcu("compress", image, "-o", out, "--skip-existing")
        assert (answer.code, "--force overwrites it" in answer.err) == (73, True)
        assert out.read_bytes() == damaged
    (tmp_path / "b.png").write_bytes(b"")
    out.write_bytes(whole)
    assert dcu("decode", out, "-o", tmp_path / "b.png", "--skip-existing").code == 73
    source = shard(tmp_path / "in" / "0.tar")
    assert dcu("compress", source, "-o", f"{tmp_path}/out/").code == 0
    made = tmp_path / "out" / "0.tar"
    made.write_bytes(made.read_bytes()[:5120])
    answer = dcu("compress", source, "-o", f"{tmp_path}/out/")
    assert (answer.code, "damaged" in answer.err) == (73, True)


def test_files_that_are_too_large_for_a_target_are_no_finished_ones(dcu: Dcu, tmp_path: Path) -> None:
    image, out = tmp_path / "a.png", tmp_path / "a.bin"
    image.write_bytes(png(smooth_image(64, 48)))
    chosen = ("compress", image, "-o", out, "--codec", "codec-2")
    dcu(*chosen, "--quality", "63")
    size = out.stat().st_size
    answer = dcu(*chosen, "--target-bytes", size - 1, "--skip-existing")
    assert (answer.code, f"of {size} bytes, more than {size - 1}" in answer.err) == (73, True)
    assert dcu(*chosen, "--target-bytes", size, "--skip-existing").code == 0


def test_samples_of_a_shard_that_was_not_read_are_among_the_inputs(dcu: Dcu, tmp_path: Path) -> None:
    source, out, report = tmp_path / "0.tar", tmp_path / "out", tmp_path / "r.jsonl"
    source.write_bytes(tar([("0.png", png(smooth_image(32, 24))), ("1.png", b"")]))
    dcu("compress", source, "-o", f"{out}/", "--report", report)
    answer = dcu("compress", source, "-o", f"{out}/", "--retry", report, "--background", "black", "-q")
    assert (answer.code, "not among the inputs" in answer.err) == (73, False)
    assert one_line(answer.err)


def test_a_list_of_windows(dcu: Dcu, tmp_path: Path) -> None:
    """With a byte order mark, and two characters at the end of a line."""
    (tmp_path / "a.png").write_bytes(png(smooth_image(32, 24)))
    (tmp_path / "list").write_bytes(codecs.BOM_UTF8 + os.fsencode(tmp_path / "a.png") + b"\r\n")
    assert dcu("compress", "--files-from", tmp_path / "list", "-o", f"{tmp_path}/out").code == 0


def test_a_list_with_a_nul_byte(dcu: Dcu, tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"a.png\0b.png\0")
    answer = dcu("compress", "--files-from", tmp_path / "list", "-o", tmp_path / "out")
    assert answer.code == 65
    assert one_line(answer.err)
