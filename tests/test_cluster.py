"""``--executor ray``: workers, and what is reported of their work, without Ray; then a cluster that loses one."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dcu.cli import notes
from dcu.cli.cluster import Job, RayCluster, Worker, room
from dcu.cli.files import Source
from dcu.errors import UnavailableError

from .conftest import Dcu, one_line, png, smooth_image, tar

pytest.importorskip("ray.data")
COMMANDS = ("compress", "classify", "embed")


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards of images with labels; a damaged image is in the first, and a truncated shard is the third."""
    place = tmp_path / "shards"
    place.mkdir()
    for shard in range(2):
        members = [(f"{n}.png", png(smooth_image(32, 24, 3 * shard + n))) for n in range(3)]
        members += [(f"{n}.cls", str(n).encode()) for n in range(3)]
        members += [("9.png", b"\x89PNG\r\n\x1a\nnothing")] if shard == 0 else []
        (place / f"{shard}.tar").write_bytes(tar(sorted(members)))
    (place / "2.tar").write_bytes((place / "1.tar").read_bytes()[:-9000])
    return place


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[Job], Job]:
    """Workers of this process in the place of Ray's, with a job that was sent; returns what changes that job."""
    changes: list[Callable[[Job], Job]] = []

    @contextmanager
    def started(self: RayCluster) -> Iterator[None]:
        yield

    def answers(self: RayCluster, found: Sequence[Source], job: Job) -> Iterator[dict[str, Any]]:
        sent = pickle.loads(pickle.dumps(job))
        worker = Worker(changes[0](sent) if changes else sent)
        for each in found:
            item = {"name": each.name, "path": str(each.path or ""), "relative": str(each.relative)}
            yield json.loads(worker(item)["answer"])
        notes.install()

    monkeypatch.setattr(RayCluster, "started", started)
    monkeypatch.setattr(RayCluster, "answers", answers)
    return changes.append  # type: ignore[return-value]


@pytest.fixture
def inputs_of(dcu: Dcu, shards: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Shards for a command: of images, or of bitstreams."""
    bins = tmp_path / "bins"
    dcu("compress", shards, "-o", bins, "-q")
    (bins / "2.tar").write_bytes((bins / "1.tar").read_bytes()[:-9000])
    return lambda command: shards if command == "compress" else bins


def contents(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir()}


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("command", COMMANDS)
def test_workers_write_and_report_what_a_local_run_does(
    dcu: Dcu, inputs_of: Callable[[str], Path], tmp_path: Path, command: str
) -> None:
    found, options = inputs_of(command), ["--json"] if command == "compress" else []
    answers = {}
    for executor in ("local", "ray"):
        os.chdir(tmp_path)
        out, report = f"{command}-out", tmp_path / f"{executor}.jsonl"
        answer = dcu(command, found, "-o", out, "--report", report, "--executor", executor, *options)
        assert report.exists(), answer.err
        lines = [{**json.loads(line), "seconds": 0} for line in report.read_text().splitlines()]
        timeless = re.sub(r'"seconds": [0-9.e-]+|[0-9.]+ images per second', "", answer.out + answer.err)
        answers[executor] = answer.code, timeless, lines, contents(tmp_path / out)
        (tmp_path / out).rename(tmp_path / executor)
    assert answers["ray"] == answers["local"]
    assert answers["ray"][0] == 65


@pytest.mark.usefixtures("in_process")
def test_finished_shards_are_skipped_and_failures_retried(dcu: Dcu, shards: Path, tmp_path: Path) -> None:
    call = ("compress", shards, "-o", tmp_path / "out", "--executor", "ray", "--report", tmp_path / "r.jsonl")
    dcu(*call)
    before = contents(tmp_path / "out")
    again = dcu(*call).err
    assert "0.tar: 1 of its samples failed before" in again
    assert "1 skipped: done before" in again
    assert contents(tmp_path / "out") == before
    (shards / "2.tar").write_bytes((shards / "1.tar").read_bytes())
    answer = dcu(*call, "--retry", tmp_path / "r.jsonl")
    assert (answer.code, "3 done, 1 failed" in answer.err) == (65, True)
    assert contents(tmp_path / "out") == before | {"2.tar": before["1.tar"]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda job: replace(job, version="0.1"), "has dcu"),
        (lambda job: replace(job, models={"codec-0.0983": "0" * 64}), "codec-0.0983 has other weights"),
        (lambda job: replace(job, models={"codec-9": "0" * 64}), "codec-9: model not installed"),
        (lambda job: replace(job, directory="/nowhere"), "/nowhere: No such file"),
    ],
)
def test_workers_that_lack_something_end_the_run(
    dcu: Dcu, shards: Path, tmp_path: Path, in_process: Callable[[object], None], change: object, said: str
) -> None:
    in_process(change)
    answer = dcu("compress", shards, "-o", tmp_path / "out", "--executor", "ray", "-q")
    assert (answer.code, said in answer.err, one_line(answer.err)) == (69, True, True)
    assert not (tmp_path / "out").exists()


def test_notes_of_workers_are_told(dcu: Dcu, tmp_path: Path, in_process: object) -> None:
    from PIL import Image

    frames = [Image.fromarray(smooth_image(32, 24, n)) for n in range(2)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    (tmp_path / "a.tar").write_bytes(tar([("a.tif", (tmp_path / "a.tif").read_bytes())]))
    answer = dcu("compress", tmp_path / "a.tar", "-o", f"{tmp_path}/out/", "--executor", "ray")
    assert "a.tar/a.tif: note: 2 images, the first is taken" in answer.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("compress {shards} -o out --address 127.0.0.1:1", "--address needs --executor ray"),
        ("compress {shards} -o out --workers 2", "--workers needs --executor ray"),
        ("embed {shards} -o out --gpus-per-worker 0.5", "--gpus-per-worker needs --executor ray"),
        ("compress {photo} -o out/ --executor ray", "processes shards"),
        ("classify {shards} --executor ray", "name a directory with -o"),
        ("classify {shards} --executor ray -o labels.parquet", "name a directory with -o"),
        ("compress {shards}/0.tar --executor ray -o a.tar", "name a directory with -o"),
    ],
)
def test_wrong_calls(dcu: Dcu, shards: Path, photo: Path, words: str, said: str) -> None:
    answer = dcu(*words.format(shards=shards, photo=photo).split())
    assert (answer.code, said in answer.err, one_line(answer.err)) == (2, True, True)


def test_an_address_where_nothing_answers(dcu: Dcu, shards: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    answer = dcu("compress", shards, "-o", tmp_path / "out", "--executor", "ray", "--address", "127.0.0.1:1", "-q")
    assert (answer.code, one_line(answer.err)) == (69, True)
    assert "--address 127.0.0.1:1: " in answer.err
    assert time.monotonic() - started < 60


def test_room_for_workers() -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}},
        {"Alive": True, "Resources": {"CPU": 3.0}},
        {"Alive": False, "Resources": {"CPU": 64.0}},
    ]
    assert [room(nodes, 1, 0), room(nodes, 2, 0), room(nodes, 1, 0.25)] == [7, 3, 4]
    with pytest.raises(UnavailableError, match="8 CPUs"):
        room(nodes, 8, 0)


def listening(owner: int) -> set[str]:
    """The local addresses at which a process and those that it started listen."""
    tree = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(line.split()[0]): int(line.split()[1]) for line in tree.splitlines()}

    def ours(number: int) -> bool:
        while number > 1:
            if number == owner:
                return True
            number = parents.get(number, 0)
        return False

    found = subprocess.run(["ss", "-ltnup"], capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in found.splitlines() if any(map(ours, map(int, re.findall(r"pid=(\d+)", line))))]
    return {line[4].rpartition(":")[0] for line in lines}


@contextmanager
def two_machines() -> Iterator[tuple[str, Callable[[], None]]]:
    """The address of a cluster of two workers, and what kills one of them; skips where Ray does not start in time."""
    from ray.cluster_utils import Cluster

    try:
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        lost, _ = [nodes.add_node(num_cpus=1) for _ in range(2)]
    except Exception as error:
        pytest.skip(f"Ray does not start: {error}")  # it waits for half a minute, whatever the load
    try:
        yield nodes.address, lambda: nodes.remove_node(lost, allow_graceful=False)
    finally:
        nodes.shutdown()  # type: ignore[no-untyped-call]


@pytest.mark.slow
def test_a_cluster_of_ones_own_is_on_the_loopback_interface_and_sends_nothing(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()
    statistics: set[str] = set()
    call = [
        sys.executable,
        "-m",
        "dcu",
        "compress",
        str(shards / "1.tar"),
        "-o",
        f"{tmp_path}/out/",
        "--executor",
        "ray",
    ]
    with subprocess.Popen(call, stderr=subprocess.PIPE, text=True) as process:

        def watch() -> None:
            while process.poll() is None:
                with suppress(OSError, subprocess.SubprocessError):
                    seen.update(listening(process.pid))
                    statistics.update(Path(f"/proc/{process.pid}/environ").read_text().split("\0"))
                time.sleep(0.5)

        watcher = threading.Thread(target=watch)
        watcher.start()
        _, said = process.communicate()
        watcher.join()
    if "timed out" in said:
        pytest.skip("Ray does not start in time")
    assert process.returncode == 0, said
    assert "3 done, 0 failed" in said
    assert seen <= {"127.0.0.1", "[::ffff:127.0.0.1]", "[::1]"}
    assert seen, "nothing was seen to listen"
    assert not list(Path("/tmp").glob("dcu-ray-*"))


@pytest.mark.slow
def test_a_worker_that_is_lost_changes_nothing(dcu: Dcu, tmp_path: Path) -> None:
    place = tmp_path / "many"
    place.mkdir()
    for shard in range(12):
        members = [(f"{n}.png", png(smooth_image(96, 96, 10 * shard + n))) for n in range(8)]
        (place / f"{shard:02}.tar").write_bytes(tar(members))
    assert dcu("compress", place, "-o", tmp_path / "local", "-j", 1, "-q").code == 0
    with two_machines() as (address, kill_one):
        call = [
            "compress",
            str(place),
            "--codec",
            "codec-0.0983",
            "-o",
            str(tmp_path / "out"),
            "--executor",
            "ray",
            "--address",
            address,
        ]
        with subprocess.Popen([sys.executable, "-m", "dcu", *call], stderr=subprocess.PIPE, text=True) as process:
            while not (tmp_path / "out" / "02.tar").exists() and process.poll() is None:
                time.sleep(0.01)
            kill_one()
            _, said = process.communicate()
    assert process.returncode == 0, said
    assert contents(tmp_path / "out") == contents(tmp_path / "local")
