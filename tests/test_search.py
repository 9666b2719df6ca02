"""`dcu index` and `dcu search`: what is found, and that an index is whole whatever happens to who writes it."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dcu import tables
from dcu.codec import Codec
from dcu.errors import InvalidInputError, MissingInputError, OutputError, UnavailableError, UsageError
from dcu.io import locked
from dcu.search import duplicates as near
from dcu.search import index as indexes
from dcu.search.index import Index, build

from .conftest import Dcu, one_line, png, smooth_image, tar, write_codec

pytestmark = pytest.mark.skipif(find_spec("lancedb") is None, reason="LanceDB is not installed")
Vectors = Sequence[Sequence[float]] | NDArray[np.float32]


def axes(*values: float) -> list[float]:
    """A vector whose first numbers are these."""
    return [*values, *[0.0] * (1280 - len(values))]


THREE = [axes(1, 0), axes(1, 1), axes(0, 2)]


def write(path: Path, vectors: Vectors, network: str = "n", names: str = "", labels: Sequence[str] = ()) -> Path:
    """A table of embeddings of the files 0.bin, 1.bin and so on."""
    with tables.writing(path, tables.EMBEDDINGS) as table:
        for number, vector in enumerate(vectors):
            row: dict[str, Any] = {"input": f"{names}{number}.bin", "key": f"{names}{number}", "shard": None}
            row |= {"codec": "c", "network": network, "label": labels[number] if labels else None}
            table.add(row | {"embedding": np.asarray(vector, np.float32)})
    return path


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """An index of three vectors."""
    build(tmp_path / "index", [write(tmp_path / "a.parquet", THREE, labels=("cat", "dog", "tea"))])
    return tmp_path / "index"


def found(index: Path, *query: float, **settings: Any) -> list[tuple[str, float]]:
    return [(hit.input, hit.similarity) for hit in Index(index).search(axes(*query), **settings)]


EXPECTED = [("0.bin", 1.0), ("1.bin", 0.7071), ("2.bin", 0.0)]


def test_nearest_by_angle_come_first(index: Path) -> None:
    assert found(index, 5, 0) == EXPECTED
    assert found(index, 5, 0, top=1) == EXPECTED[:1]
    assert found(index, 5, 0, least=0.5) == EXPECTED[:2]
    assert [hit.near_duplicate for hit in Index(index).search(axes(1, 0))] == [True, False, False]
    assert Index(index).network == "n"


def test_conditions_come_before_the_search(index: Path) -> None:
    assert found(index, 5, 0, top=1, where="label = 'tea'") == [("2.bin", 0.0)]
    assert found(index, 5, 0, where="label in ('dog', 'tea') and key < '2'") == [("1.bin", 0.7071)]


@pytest.mark.parametrize(
    "where", ["", "label =", "lable = 'cat'", "label + 3", "label", "cast(input as int) = 1", "true; x"]
)
def test_conditions_that_are_none(index: Path, where: str) -> None:
    with pytest.raises(UsageError, match=r"^--where: [^\n]+$"):
        Index(index).search(axes(1), where=where)


def test_a_semicolon_in_text(index: Path) -> None:
    assert found(index, 5, 0, where="label = 'tea;'") == []


def test_more_hits_than_rows(index: Path) -> None:
    for top in (4, 2**32, 10**20):
        assert found(index, 5, 0, top=top) == found(index, 5, 0, top=top, exact=True) == EXPECTED


def test_nothing_is_similar_to_zero(index: Path) -> None:
    with pytest.raises(InvalidInputError, match="zero"):
        found(index, 0, 0)


def test_zero_embeddings_are_left_out(dcu: Dcu, tmp_path: Path) -> None:
    """As of images of a few pixels: one of them is told, and the others are indexed."""
    table = write(tmp_path / "a.parquet", [axes(1, 0), axes(0, 0), axes(0, 0), axes(0, 1)])
    answer = dcu("index", "build", table, "-o", tmp_path / "index")
    assert answer.code == 65
    assert "2 embeddings of n, 2 added" in answer.out
    assert answer.err == "dcu: 1.bin: its embedding is zero; left out, 2 such in total\n"
    assert found(tmp_path / "index", 1, 0) == [("0.bin", 1.0), ("3.bin", 0.0)]


def test_labels_of_other_inputs(dcu: Dcu, tmp_path: Path) -> None:
    labels, table = tmp_path / "labels.jsonl", write(tmp_path / "a.parquet", THREE)
    labels.write_text('{"input": "/elsewhere/1.bin", "label": "tabby cat"}\n')
    answer = dcu("index", "build", table, "-o", tmp_path / "index", "--labels", labels)
    assert (answer.code, "labels of none of the tables' inputs" in answer.err) == (65, True)
    assert not (tmp_path / "index").exists()
    labels.write_text('{"input": "1.bin", "label": "tabby cat"}\n')
    answer = dcu("index", "build", table, "-o", tmp_path / "index", "--labels", labels)
    assert "3 added, 0 skipped, 1 labeled" in answer.out
    answer = dcu("index", "add", table, tmp_path / "index", "--labels", labels)
    assert "0 added, 3 skipped\n" in answer.out


def test_rows_are_added_once(index: Path, tmp_path: Path) -> None:
    more = write(tmp_path / "more.jsonl", [axes(1, 0.5)], names="new/")
    again = tmp_path / "a.parquet"
    assert Index(index).add([more, again, more]) == indexes.Added("n", 1, 4, 4, 0, [])
    assert Index(index).add([more]) == indexes.Added("n", 0, 1, 4, 0, [])
    assert found(index, 1, 0.5, top=1) == [("new/0.bin", 1.0)]
    assert len(found(index, 1, 0)) == 4


def test_later_searches_read_no_vectors_and_find_the_same(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Index(index)
    first = opened.search(axes(5, 0))
    assert [hit.label for hit in first] == ["cat", "dog", "tea"]
    assert opened.kept is None  # one search needs no memory
    assert opened.search(axes(5, 0)) == first
    monkeypatch.setattr(type(opened.table), "search", None)
    assert opened.search(axes(5, 0)) == first
    assert [hit.input for hit in opened.search(axes(0, 5), top=1)] == ["2.bin"]


def test_rows_added_after_a_search_are_found(index: Path, tmp_path: Path) -> None:
    opened = Index(index)
    for _ in range(2):
        opened.search(axes(1, 0.5))
    opened.add([write(tmp_path / "more.jsonl", [axes(1, 0.5)], names="new/")])
    assert opened.search(axes(1, 0.5), top=1)[0].input == "new/0.bin"


def test_large_indexes_are_not_kept_in_memory(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "LARGE", 2)
    opened = Index(index)
    for _ in range(2):
        assert [(hit.input, hit.similarity) for hit in opened.search(axes(5, 0))] == EXPECTED
    assert opened.kept is None


def test_labels_of_a_table_of_classify(tmp_path: Path) -> None:
    labels = tmp_path / "labels.jsonl"
    labels.write_text('{"input": "1.bin", "label": "tabby cat"}\n{"input": "gone.bin", "label": "x"}\n')
    build(tmp_path / "index", [write(tmp_path / "a.parquet", THREE, labels=("cat", "dog", "tea"))], labels)
    assert [hit.label for hit in Index(tmp_path / "index").search(axes(1))] == ["cat", "tabby cat", "tea"]


def damaged(path: Path) -> Path:
    """A table of which the second half is missing."""
    write(path, THREE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


FAULTS: dict[str, Callable[[Path], Any]] = {
    "nan": lambda d: write(d / "x.parquet", [axes(1), axes(np.nan)]),
    "infinite": lambda d: write(d / "x.jsonl", [axes(1), axes(1e9)]),
    "zero": lambda d: write(d / "x.parquet", [axes(0), axes(0)]),
    "no rows": lambda d: write(d / "x.parquet", []),
    "empty": lambda d: write(d / "x.jsonl", []),
    "half a table": lambda d: damaged(d / "x.parquet"),
    "half of JSON": lambda d: damaged(d / "x.jsonl"),
    "short": lambda d: write(d / "x.jsonl", [axes(1)[:9]]),
    "two networks": lambda d: [write(d / "x.parquet", THREE), write(d / "y.parquet", THREE, "other", "y")],
    "no column": lambda d: shutil.copy(write_labels(d / "labels.parquet"), d / "x.parquet"),
    "missing": lambda d: d / "gone.parquet",
}


def write_labels(path: Path) -> Path:
    with tables.writing(path, {"input": "string", "label": "string"}) as table:
        table.add({"input": "a", "label": "b"})
    return path


def test_labels_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "labels.jsonl").write_text('{"input": "1.bin", "label": 3}\n')
    with pytest.raises(InvalidInputError, match=r"labels\.jsonl: .*not text"):
        build(tmp_path / "index", [write(tmp_path / "a.parquet", THREE)], tmp_path / "labels.jsonl")
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("fault", FAULTS)
def test_tables_that_cannot_be_used(index: Path, tmp_path: Path, fault: str) -> None:
    """Neither an index that is there changes, nor does a new one appear."""
    (tmp_path / "faulty").mkdir()
    made = FAULTS[fault](tmp_path / "faulty")
    paths = list(map(Path, made if isinstance(made, list) else [made]))
    kind = MissingInputError if fault == "missing" else InvalidInputError
    with pytest.raises(kind, match=r"^[^\n]+$"):
        build(index, paths, force=True)
    with pytest.raises(kind, match=r"^[^\n]+$"):
        Index(index).add(paths)
    with pytest.raises(kind):
        build(tmp_path / "new", paths)
    assert found(index, 5, 0) == EXPECTED
    assert not (tmp_path / "new").exists()


def test_networks_do_not_mix(index: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="embeddings of other; the index is of n"):
        Index(index).add([write(tmp_path / "b.parquet", THREE, "other", "b/")])
    assert found(index, 5, 0) == EXPECTED


def test_an_index_that_is_there_is_replaced_only_by_force(index: Path, tmp_path: Path) -> None:
    other = [write(tmp_path / "b.parquet", [axes(0, 1)], "other")]
    with pytest.raises(OutputError, match="--force"):
        build(index, other)
    assert found(index, 5, 0) == EXPECTED
    build(index, other, force=True)
    assert found(index, 0, 5) == [("0.bin", 1.0)]
    assert Index(index).network == "other"


def test_a_directory_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"")
    table = write(tmp_path / "a.parquet", THREE)
    for place in ("photos", "a.parquet"):
        with pytest.raises(OutputError):
            build(tmp_path / place, [table], force=True)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a.jpg"]
    with pytest.raises(UsageError, match="local directory"):
        build(Path("s3://bucket/index"), [table])


@pytest.mark.parametrize("kind", ["_versions/*.manifest", "data/*.lance"])
def test_damaged_index(index: Path, dcu: Dcu, tmp_path: Path, kind: str) -> None:
    for path in (index / "embeddings.lance").glob(kind):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InvalidInputError, match=r"^[^\n]*damaged index[^\n]*$"):
        found(index, 1, 0)
    answer = dcu("index", "duplicates", index)
    assert answer.code == 65
    assert one_line(answer.err)


def test_missing_index(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no index"):
        Index(tmp_path / "gone")
    assert list(tmp_path.iterdir()) == []


def test_one_process_writes_at_a_time(index: Path, tmp_path: Path) -> None:
    with locked(index / indexes.LOCK), pytest.raises(OutputError, match="another process"):
        Index(index).add([tmp_path / "a.parquet"])


def test_without_lancedb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(UnavailableError, match=r"dcu-codec\[search\]"):
        Index(tmp_path)


KILLED = """
import os, signal, sys
from pathlib import Path
from dcu.search import features, index
batches = features.Rows.batches
def dying(self):
    yield from batches(self)
    os.kill(os.getpid(), signal.SIGKILL)
features.Rows.batches = dying
index.build(Path(sys.argv[1]), [Path(sys.argv[2])], force=True)
"""


@pytest.mark.slow
def test_killed_builds_leave_what_was_there(index: Path, tmp_path: Path) -> None:
    table = write(tmp_path / "b.parquet", np.random.default_rng(0).normal(size=(600, 1280)).astype(np.float32))
    for place in (index, tmp_path / "new"):
        done = subprocess.run([sys.executable, "-c", KILLED, place, table], check=False)
        assert done.returncode == -signal.SIGKILL
    assert found(index, 5, 0) == EXPECTED
    with pytest.raises(MissingInputError):
        Index(tmp_path / "new")
    assert build(tmp_path / "new", [table]).count == 600


@pytest.mark.slow
def test_full_disk(index: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for it."""
    table = write(tmp_path / "b.parquet", np.random.default_rng(0).normal(size=(600, 1280)).astype(np.float32))
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))  # noqa: E731
    for place in (index, tmp_path / "new"):
        command = [sys.executable, "-m", "dcu", "index", "build", str(table), "-o", str(place), "--force"]
        done = subprocess.run(command, capture_output=True, preexec_fn=limit, check=False)
        assert done.returncode == 73
        assert one_line(done.stderr)
    assert found(index, 5, 0) == EXPECTED
    assert not (tmp_path / "new").exists()


def clustered(count: int) -> NDArray[np.float32]:
    """Vectors around a few centers."""
    rng = np.random.default_rng(0)
    near: NDArray[np.float32] = (rng.normal(size=(8, 1280))[rng.integers(0, 8, count)]).astype(np.float32)
    return near + rng.normal(scale=0.5, size=near.shape).astype(np.float32)


def test_approximate_search(tmp_path: Path, dcu: Dcu, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clustered(400)
    write(tmp_path / "a.parquet", vectors)
    write(tmp_path / "b.parquet", [axes(1)], names="b/")
    monkeypatch.setattr(indexes, "LARGE", 399)
    monkeypatch.setattr(indexes, "QUERIES", 20)
    answer = dcu("index", "build", tmp_path / "a.parquet", "-o", tmp_path / "index")
    assert answer.code == 0
    assert f"dcu index approximate {tmp_path / 'index'}" in answer.err
    (row,) = dcu("index", "approximate", tmp_path / "index", "--json").lines
    assert row["recall_at_10"] >= 0.95
    assert Index(tmp_path / "index").approximate
    answer = dcu("index", "add", tmp_path / "b.parquet", tmp_path / "index")
    assert (answer.code, answer.err) == (0, "")
    assert found(tmp_path / "index", 1, top=1) == [("b/0.bin", 1.0)]
    monkeypatch.setattr(indexes, "PROBES", 1)
    assert Index(tmp_path / "index").recall() < 0.9  # one of 20 partitions
    for exact in (True, False):
        (hit,) = Index(tmp_path / "index").search(vectors[7], 1, exact=exact)
        assert (hit.input, hit.similarity) == ("7.bin", 1.0)


def test_recall_is_the_share_of_neighbors_that_are_found(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each row one of two others; the row itself does not count."""
    nearest = Index.nearest

    def forgetful(self: Index, query: Any, top: int, where: str | None, exact: bool) -> list[dict[str, Any]]:
        return nearest(self, query, top if exact else 2, where, exact)

    monkeypatch.setattr(Index, "nearest", forgetful)
    assert Index(index).recall() == 0.5


@pytest.mark.parametrize("block", [2, 3, 4096])
def test_near_duplicates(tmp_path: Path, dcu: Dcu, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """Through another one too: 0 and 4 are less similar than the threshold, 2 is near both."""
    vectors = [axes(1, 0), axes(0, 0, 1), axes(1, 0.3), axes(0, 0, 0, 1), axes(1, 0.6), axes(0, 0, 1, 0.01)]
    monkeypatch.setattr(near, "BLOCK", block)
    dcu("index", "build", write(tmp_path / "a.parquet", vectors), "-o", tmp_path / "index")
    rows = dcu("index", "duplicates", tmp_path / "index", "--json").lines
    assert [row["inputs"] for row in rows] == [["0.bin", "2.bin", "4.bin"], ["1.bin", "5.bin"]]
    assert rows[0]["similarity"] == pytest.approx(1 / 1.09**0.5, abs=2e-3)
    none = dcu("index", "duplicates", tmp_path / "index", "--min-similarity", "1")
    assert (none.code, none.out, none.err) == (0, "", "dcu: note: no two images have a similarity of 1 or more\n")
    assert dcu("index", "duplicates", tmp_path / "index", "--min-similarity", "0.9999", "--json").lines == rows[1:]


@pytest.fixture
def archive(dcu: Dcu, codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Bitstreams in files and in a shard, and an index of them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bins").mkdir()
    for seed in range(3):
        (tmp_path / "bins" / f"{seed}.bin").write_bytes(codec.compress(smooth_image(64, 80, seed)))
        (tmp_path / f"{seed}.png").write_bytes(png(smooth_image(64, 80, seed)))
    shard = tar([("a/3.bin", codec.compress(smooth_image(72, 64, 3))), ("a/3.cls", b"tabby cat")])
    (tmp_path / "s.tar").write_bytes(shard)
    assert dcu("embed", "bins", "s.tar", "-o", "features.parquet").code == 0
    assert dcu("index", "build", "features.parquet", "-o", "index").code == 0
    return tmp_path / "index"


def test_images_and_bitstreams_are_queries(archive: Path, dcu: Dcu) -> None:
    image, bitstream = (dcu("search", archive, query, "--top", "3", "--json") for query in ("1.png", "bins/1.bin"))
    assert image.code == bitstream.code == 0, image.err
    assert image.lines == bitstream.lines
    assert len(image.lines) == 3
    own = {"input": "bins/1.bin", "key": "1", "shard": None, "label": None, "similarity": 1.0, "near_duplicate": True}
    assert own in image.lines  # the tiny network sees little difference
    (row,) = dcu("search", archive, "1.png", "--where", "label = 'tabby cat'", "--json").lines
    assert (row["input"], row["shard"]) == ("s.tar/a/3.bin", "s.tar")


def test_queries_that_cannot_be_answered(archive: Path, dcu: Dcu, own_models: Path, tmp_path: Path) -> None:
    write_codec(own_models / "other", seed=5)
    Path("other.bin").write_bytes(Codec.load(own_models / "other").compress(smooth_image(64, 64)))
    Path("noise.bin").write_bytes(b"noise")
    shutil.copytree(own_models / "classifier-0.0983", own_models / "mine")
    for query, code in (("other.bin", 69), ("noise.bin", 65), ("features.parquet", 65), ("gone.jpg", 66)):
        answer = dcu("search", archive, query)
        assert answer.code == code, answer.err
        assert one_line(answer.err)
        assert query in answer.err
    answer = dcu("search", archive, "1.png", "--network", own_models / "mine")
    assert answer.code == 65
    assert one_line(answer.err)
    assert "embeddings of classifier-0.0983 on codec-0.0983, not of mine" in answer.err
    assert dcu("search", archive, "1.png", "--where", "nonsense =").code == 2


def test_page_of_hits(archive: Path, dcu: Dcu) -> None:
    Path("bins/2.bin").unlink()
    answer = dcu("search", archive, "1.png", "--html", "hits.html")
    assert answer.code == 0, answer.err
    text = Path("hits.html").read_text()
    assert 'src="http' not in text
    assert text.count("<script") == 0
    assert text.count("<img") == text.count('src="data:image/jpeg;base64,') == 4  # the query, two files, one of a shard
    assert text.count('class="gone"') == 1
    assert 'aria-label="bins/2.bin: no image"' in text
    assert "tabby cat" in text
    assert text.count('class="near"') >= 1
    assert dcu("search", archive, "1.png", "--html", "hits.html", "--top", "1").code == 73
    assert dcu("search", archive, "1.png", "--html", "1.png", "--force").code == 2


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromedriver"), reason="no Chromium with its driver is installed")
def test_a_browser_draws_the_page(archive: Path, dcu: Dcu) -> None:
    from selenium import webdriver

    Path("bins/2.bin").unlink()
    dcu("search", archive, "1.png", "--html", "hits.html")
    options = webdriver.ChromeOptions()
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    papers = []
    try:
        for mode in ("light", "dark"):
            feature = {"features": [{"name": "prefers-color-scheme", "value": mode}]}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
            for width in (1280, 390):
                size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": False}
                browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
                browser.get(Path("hits.html").absolute().as_uri())
                assert browser.execute_script("return document.body.scrollWidth - window.innerWidth") <= 0
            papers.append(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
        assert browser.execute_script("return [...document.images].every(i => i.naturalWidth >= 64)")
        box = "return (b => b.width * b.height)(document.querySelector('.gone').getBoundingClientRect())"
        assert browser.execute_script(box) > 10_000
        assert browser.get_log("browser") == []
    finally:
        browser.quit()
    assert papers[0] != papers[1]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_network_no_files_and_no_remarks_of_others(archive: Path, tmp_path: Path) -> None:
    home, trace = tmp_path / "home", tmp_path / "trace"
    home.mkdir()
    before = set(tmp_path.rglob("*"))
    strace = ["strace", "-f", "-qq", "-e", "trace=network", "-e", "signal=none", "-o"]
    for command in (
        ["index", "build", "features.parquet", "-o", "index", "--force"],
        ["index", "add", "features.parquet", "index"],
        ["index", "approximate", "index"],
        ["search", "index", "1.png"],
    ):
        done = subprocess.run(
            [*strace, str(trace), sys.executable, "-m", "dcu", *command],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"HOME": str(home), "TMPDIR": str(home)},
        )
        assert done.stderr == ""
        assert "connect(" not in trace.read_text()
        assert "sendmsg(" not in trace.read_text()
    assert {path for path in set(tmp_path.rglob("*")) - before if archive not in path.parents} == {trace}


def test_an_image_is_compressed_as_it_is_said(archive: Path, dcu: Dcu) -> None:
    assert dcu("search", archive, "1.png", "--quality", "0", "--json").code == 0
    for query, words in (("1.png", "quality is 0 to 0, not 7"), ("bins/1.bin", "QUERY is a bitstream")):
        answer = dcu("search", archive, query, "--quality", "7")
        assert answer.code == 2
        assert one_line(answer.err)
        assert words in answer.err
