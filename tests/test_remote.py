"""Shards and files at URLs: an object store on the loopback interface, one that fails, and none at all."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dcu import remote
from dcu.codec import Codec
from dcu.errors import OutputError

from .conftest import Dcu, png, smooth_image, tar

boto = pytest.importorskip("boto3")
pytest.importorskip("s3fs")
server = pytest.importorskip("moto.server")

ACCESS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An object store with the bucket ``photos``."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ACCESS.items():
            patch.setenv(name, value)
        running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        running.start()
        host, port = running.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", url := f"http://{host}:{port}")
        boto.client("s3", endpoint_url=url).create_bucket(Bucket="photos")
        yield url
        running.stop()


@pytest.fixture
def store(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of the bucket, empty."""
    import s3fs

    for name, value in (ACCESS | {"AWS_ENDPOINT_URL": endpoint}).items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    yield "s3://photos"
    client = boto.client("s3", endpoint_url=endpoint)
    for entry in client.list_objects_v2(Bucket="photos").get("Contents", []):
        client.delete_object(Bucket="photos", Key=entry["Key"])


def put(endpoint: str, key: str, data: bytes) -> None:
    boto.client("s3", endpoint_url=endpoint).put_object(Bucket="photos", Key=key, Body=data)


def get(endpoint: str, key: str) -> bytes:
    body: bytes = boto.client("s3", endpoint_url=endpoint).get_object(Bucket="photos", Key=key)["Body"].read()
    return body


def keys(endpoint: str) -> list[str]:
    found = boto.client("s3", endpoint_url=endpoint).list_objects_v2(Bucket="photos").get("Contents", [])
    return sorted(entry["Key"] for entry in found)


def shard(first: int) -> bytes:
    return tar([(f"{n}.png", png(smooth_image(32, 24, n))) for n in range(first, first + 3)])


def test_shards_from_store_to_store(dcu: Dcu, endpoint: str, store: str, tmp_path: Path) -> None:
    for number in range(2):
        put(endpoint, f"in/{number}.tar", shard(3 * number))
        (tmp_path / f"{number}.tar").write_bytes(shard(3 * number))
    assert dcu("compress", tmp_path / "0.tar", tmp_path / "1.tar", "-o", tmp_path / "out").code == 0
    for pattern in ("in/*.tar", "in/{0..1}.tar"):
        answer = dcu("compress", f"{store}/{pattern}", "-o", f"{store}/out/{len(pattern)}/")
        assert answer.code == 0, answer.err
        for name in ("0.tar", "1.tar"):
            assert get(endpoint, f"out/{len(pattern)}/{name}") == (tmp_path / "out" / name).read_bytes()
    answer = dcu("compress", f"{store}/in/*.tar", "-o", f"{store}/out/8/")
    assert "2 skipped: done before" in answer.err
    assert len(dcu("classify", f"{store}/out/8/*.tar", "--json").lines) == 6


def test_single_files(dcu: Dcu, endpoint: str, store: str, tmp_path: Path, codec: Codec) -> None:
    data = png(smooth_image(32, 24, 1))
    put(endpoint, "a.png", data)
    (tmp_path / "a.png").write_bytes(data)
    assert dcu("compress", tmp_path / "a.png", "-o", tmp_path / "a.bin").code == 0
    assert dcu("compress", f"{store}/a.png", "-o", f"{store}/a.bin").code == 0
    assert get(endpoint, "a.bin") == (tmp_path / "a.bin").read_bytes()
    put(endpoint, "a.bin", b"other")
    answer = dcu("compress", f"{store}/a.png", "-o", f"{store}/a.bin")
    assert answer.code == 73
    assert get(endpoint, "a.bin") == b"other"
    assert dcu("compress", f"{store}/a.png", "-o", f"{store}/a.bin", "--force").code == 0
    assert dcu("compress", f"{store}/a.png", "-o", f"{store}/a.png").code == 2
    assert get(endpoint, "a.png") == data


def test_faults_of_a_store(dcu: Dcu, endpoint: str, store: str, tmp_path: Path) -> None:
    put(endpoint, "0.tar", shard(0)[:2000])
    put(endpoint, "1.tar", shard(0))
    answer = dcu("compress", f"{store}/{{0..2}}.tar", "-o", f"{store}/out/")
    assert answer.code == 65
    assert [line.split(": ")[1] for line in answer.err.splitlines()[:-1]] == [f"{store}/0.tar", f"{store}/2.tar"]
    assert [key for key in keys(endpoint) if key.startswith("out/")] == ["out/1.tar"]
    answer = dcu("compress", f"{store}/1.tar", "-o", "s3://nowhere/out/")
    assert answer.code == 73
    assert len(answer.err.splitlines()) == 2


def test_a_store_that_fails_in_the_middle(dcu: Dcu, endpoint: str, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from s3fs.core import S3File

    put(endpoint, "0.tar", tar([("0.png", png(smooth_image(32, 24, 0))), ("0.txt", bytes(2**16))]))
    put(endpoint, "1.tar", shard(3))
    read = S3File.read

    def failing(self: S3File, count: int = -1) -> bytes:
        if self.path.endswith("0.tar") and self.tell():
            raise RuntimeError("connection lost")
        data: bytes = read(self, count)
        return data

    monkeypatch.setattr(S3File, "read", failing)
    answer = dcu("compress", f"{store}/{{0..1}}.tar", "-o", f"{store}/out/")
    assert answer.code == 66
    assert "0.tar: connection lost" in answer.err
    assert [key for key in keys(endpoint) if key.startswith("out/")] == ["out/1.tar"]


def test_a_store_that_does_not_answer(dcu: Dcu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    for name, value in (ACCESS | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}).items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    answer = dcu("compress", "s3://photos/0.tar", "-o", tmp_path / "out")
    assert answer.code == 66
    assert "s3://photos/0.tar" in answer.err.splitlines()[0]
    s3fs.S3FileSystem.clear_instance_cache()


def test_urls_without_fsspec(dcu: Dcu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    answer = dcu("compress", "s3://photos/0.tar", "-o", tmp_path / "out")
    assert answer.code == 69
    assert "dcu-codec[cloud]" in answer.err


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("s3://b/a#1.tar", "/a#1.tar"),
        ("https://h/a/b.png?x=/y", "/a/b.png"),
        ("http://[x/a.png", "/a.png"),
        ("s3://b", "/"),
    ],
)
def test_paths_of_urls(url: str, path: str) -> None:
    assert remote.path_of(url) == path


def test_files_of_stores_without_atomic_writes_are_complete_or_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    monkeypatch.setattr(remote, "OBJECTS", set())
    remote.write("memory://out/a.bin", b"new", force=False)
    assert store.find("/out") == ["/out/a.bin"]
    assert store.cat_file("/out/a.bin") == b"new"

    def broken(path: str, data: bytes) -> None:
        store.store[path] = store.store["/out/a.bin"]
        raise OSError("the connection is gone")

    monkeypatch.setattr(type(store), "pipe_file", staticmethod(broken))
    with pytest.raises(OutputError, match="gone"):
        remote.write("memory://out/b.bin", b"other", force=False)
    assert not store.exists("/out/b.bin")
    store.rm("/out", recursive=True)


@pytest.mark.parametrize("error", [None, FileExistsError("there")])
def test_files_of_stores_that_do_not_rename_onto_files_are_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: OSError | None
) -> None:
    store = pytest.importorskip("fsspec").filesystem("memory")
    monkeypatch.setattr(remote, "OBJECTS", set())
    move = type(store).mv

    def refusing(self: Any, part: str, path: str) -> None:
        if not self.exists(path):
            move(self, part, path)
        elif error:
            raise error

    def timed_out(self: Any, part: str, path: str) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(type(store), "mv", refusing)
    remote.write("memory://out/a.bin", b"old", force=False)
    with monkeypatch.context() as patched:
        patched.setattr(type(store), "mv", timed_out)
        with pytest.raises(OutputError, match="timed out"):
            remote.write("memory://out/a.bin", b"new", force=True)
    assert store.cat_file("/out/a.bin") == b"old"
    remote.write("memory://out/a.bin", b"new", force=True)
    assert store.cat_file("/out/a.bin") == b"new"
    (tmp_path / "part").write_bytes(b"newer")
    remote.upload(tmp_path / "part", "memory://out/a.bin")
    assert store.cat_file("/out/a.bin") == b"newer"
    assert store.find("/out") == ["/out/a.bin"]
    store.rm("/out", recursive=True)


def test_a_prefix_is_not_listed(dcu: Dcu, tmp_path: Path) -> None:
    answer = dcu("compress", "s3://photos/in/", "-o", tmp_path / "out")
    assert (answer.code, "s3://photos/in/*.tar" in answer.err) == (66, True)


def test_protocols_that_do_not_exist(dcu: Dcu, tmp_path: Path) -> None:
    answer = dcu("compress", "nosuch://a/0.tar", "-o", tmp_path / "out")
    assert answer.code == 69
    assert "nosuch" in answer.err
