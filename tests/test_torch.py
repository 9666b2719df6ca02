"""Data sets of latents for PyTorch: what they hold, and that workers and ranks share it without loss."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor, distributed
from torch.utils.data import DataLoader

from dcu.codec import Codec
from dcu.errors import InvalidInputError, MissingInputError, UnavailableError
from dcu.torch import NO_LABEL, Bitstreams, IterableBitstreams, Sample, collate, shuffled

from .conftest import smooth_image, tar, write_codec


@pytest.fixture(scope="module")
def streams(codec: Codec) -> list[bytes]:
    return [codec.compress(smooth_image(32, 40, seed)) for seed in range(8)]


@pytest.fixture
def directory(streams: list[bytes], tmp_path: Path) -> Path:
    """Eight bitstreams of two classes, both extensions, and what is none."""
    for number, data in enumerate(streams):
        path = tmp_path / "data" / ("cat" if number % 2 else "a/barn") / f"{number}{('.dcu', '.bin')[number // 4]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "data" / "notes.txt").write_text("no bitstream")
    return tmp_path / "data"


@pytest.fixture
def tars(streams: list[bytes], tmp_path: Path) -> Path:
    """Five shards of 1, 2, 3, 4 and 5 samples, with their class."""
    place = tmp_path / "shards"
    place.mkdir()
    for shard in range(5):
        members: list[tuple[str, bytes]] = []
        for number in range(shard + 1):
            key = f"k/{shard}{number}"
            members += [(f"{key}.{'dcu' if shard else 'bin'}", streams[number]), (f"{key}.cls", b"%d\n" % number)]
        (place / f"{shard}.tar").write_bytes(tar(members))
    return place


KEYS = sorted(f"k/{shard}{number}" for shard in range(5) for number in range(shard + 1))


def every(data: Bitstreams) -> list[Sample]:
    return [data[index] for index in range(len(data))]


def keys_of(batches: Iterable[Any]) -> list[str]:
    return [key for _, _, keys in batches for key in keys]


def test_directories(directory: Path, streams: list[bytes], codec: Codec) -> None:
    data = Bitstreams(directory)
    assert [sample.key for sample in every(data)] == ["a/barn/0", "a/barn/2", "a/barn/4", "a/barn/6"] + [
        f"cat/{number}" for number in (1, 3, 5, 7)
    ]
    assert data.classes == ["barn", "cat"]
    assert data.class_to_idx == {"barn": 0, "cat": 1}
    assert data.targets == [sample.label for sample in every(data)] == [0, 0, 0, 0, 1, 1, 1, 1]
    for sample in every(data):
        assert sample.latent.dtype == torch.float32
        assert torch.equal(sample.latent, codec.latent(streams[int(sample.key[-1])])[0])


def test_labels_and_transforms(directory: Path, streams: list[bytes]) -> None:
    data = Bitstreams(str(directory), labels={"cat": 3, "barn": 9}, transform=lambda latent: latent.mean((1, 2)))
    assert data.classes == ["cat", "barn"]
    assert data.targets == [9] * 4 + [3] * 4
    assert data[0].latent.shape == (3,)
    with pytest.raises(ValueError, match="labels lacks the class 'barn'"):
        Bitstreams(directory, labels={"cat": 0})
    (directory / "alone.dcu").write_bytes(streams[0])
    assert Bitstreams([directory / "cat", directory / "alone.dcu"]).targets == [NO_LABEL] * 5


def test_latents_take_part_in_training(directory: Path) -> None:
    """A tensor of inference mode is refused by autograd."""
    weight = torch.ones(3, 1, 1, requires_grad=True)
    (Bitstreams(directory)[0].latent * weight).sum().backward()
    assert weight.grad is not None


def test_batches(directory: Path) -> None:
    data = Bitstreams(directory)
    latents, labels, keys = collate([data[0], data[7]])
    assert torch.equal(latents, torch.stack([data[0].latent, data[7].latent]))
    assert labels.tolist() == [0, 1]
    assert labels.dtype == torch.int64
    assert keys == ["a/barn/0", "cat/7"]


def test_latents_of_two_shapes_are_no_batch(directory: Path, codec: Codec) -> None:
    (directory / "cat" / "8.dcu").write_bytes(codec.compress(smooth_image(40, 40)))
    with pytest.raises(ValueError, match=r"\(3, 4, 5\) and \(3, 5, 5\) do not fit into one batch: .*transform"):
        collate(every(Bitstreams(directory)))
    cropped = Bitstreams(directory, transform=lambda latent: latent[:, :4, :4])
    assert collate(every(cropped))[0].shape == (9, 3, 4, 4)


def test_the_codec_is_that_of_the_stream(directory: Path, own_models: Path) -> None:
    other = Codec.from_model(write_codec(own_models / "other", seed=7))
    data = other.compress(smooth_image(32, 40))
    (directory / "cat" / "8.dcu").write_bytes(data)
    assert torch.equal(Bitstreams(directory)[8].latent, other.latent(data)[0])


def test_errors_name_the_file(directory: Path, streams: list[bytes], tmp_path: Path) -> None:
    bad = directory / "cat" / "7.bin"
    bad.write_bytes(streams[7][:-1])
    with pytest.raises(InvalidInputError, match=rf"^{bad}: stream is truncated"):
        Bitstreams(directory)[7]
    bad.write_bytes(streams[7] + b"more")
    with pytest.raises(InvalidInputError, match=rf"^{bad}: bytes after the end"):
        Bitstreams(directory)[7]
    data = Bitstreams(directory)
    bad.unlink()
    with pytest.raises(MissingInputError, match=rf"^{bad}: No such file"):
        data[7]
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x.tar").write_bytes(b"")
    for wrong, said in ((tmp_path / "empty", r"holds no bitstreams .*\.tar 1"), (tmp_path / "none", "no such")):
        with pytest.raises(MissingInputError, match=said):
            Bitstreams(wrong)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_shards_are_split_over_workers(tars: Path, streams: list[bytes], codec: Codec, workers: int) -> None:
    """Two workers have three and two of five shards; they are forked from a process that computed on two threads."""
    assert codec.latent(streams[0]).numel()
    for data in (IterableBitstreams(tars), IterableBitstreams(str(tars / "{0..4}.tar"))):
        loader = DataLoader(data, 4, num_workers=workers, collate_fn=collate, multiprocessing_context=fork(workers))
        batches = list(loader)
        assert sorted(keys_of(batches)) == KEYS
        for latents, labels, keys in batches:
            for latent, label, key in zip(latents, labels, keys, strict=True):
                assert int(label) == int(key[-1])
                assert torch.equal(latent, codec.latent(streams[int(key[-1])])[0])


def fork(workers: int) -> str | None:
    return "fork" if workers else None


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shuffle", [0, 3])
def test_ranks_share_all_samples(tars: Path, workers: int, shuffle: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found: Counter[str] = Counter()
    shares = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        data = IterableBitstreams(tars / "*.tar", shuffle=shuffle, seed=5)
        data.set_epoch(2)
        loader = DataLoader(data, 2, num_workers=workers, collate_fn=collate, multiprocessing_context=fork(workers))
        found.update(keys := keys_of(loader))
        shares.append(len({key[2] for key in keys}))
    assert found == Counter(KEYS)
    assert shares == [3, 2], "of five shards"


def test_the_rank_is_that_of_torch(tars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spawned worker, which has no process group, learns it from the process that spawns it."""
    data = IterableBitstreams(tars)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 5)
    assert {sample.key for sample in data} == {"k/10", "k/11"}
    sent = pickle.dumps(data)
    monkeypatch.undo()
    assert {sample.key for sample in pickle.loads(sent)} == {"k/10", "k/11"}


def test_shuffling_is_random_and_repeatable(tars: Path) -> None:
    def keys(seed: int, epoch: int, shuffle: int = 4) -> list[str]:
        data = IterableBitstreams(tars, shuffle=shuffle, seed=seed)
        data.set_epoch(epoch)
        return [sample.key for sample in data]

    orders = [keys(0, 0), keys(0, 1), keys(1, 0)]
    assert len(set(map(tuple, orders))) == 3
    assert all(sorted(order) == KEYS for order in orders)
    assert keys(0, 1) == orders[1]
    assert keys(0, 0, shuffle=0) == KEYS
    assert sorted(shuffled(range(10), 3, Random(0))) == list(range(10))


def test_workers_that_persist_see_the_epoch(tars: Path) -> None:
    data = IterableBitstreams(tars, shuffle=4)
    loader = DataLoader(
        data, 4, num_workers=1, collate_fn=collate, persistent_workers=True, multiprocessing_context="fork"
    )
    first = keys_of(loader)
    assert keys_of(loader) == first
    data.set_epoch(1)
    assert keys_of(loader) != first


def test_faulty_samples_of_shards(
    tars: Path, streams: list[bytes], codec: Codec, own_models: Path, notes: list[str]
) -> None:
    good, damaged = ("a.dcu", streams[0]), ("b.dcu", streams[1][:-9])
    faults = {
        "b: stream is truncated": [good, damaged],
        "b: holds no bitstream": [good, ("b.txt", b"")],
        "b: the class 'cat' is not an integer: give labels=": [good, ("b.bin", streams[1]), ("b.cls", b"cat")],
    }
    for said, members in faults.items():
        (tars / "1.tar").write_bytes(tar([*members, ("c.bin", streams[2])]))
        samples = iter(IterableBitstreams(tars / "1.tar"))
        assert next(samples).key == "a"
        with pytest.raises(InvalidInputError, match=rf"^{tars}/1\.tar/{said}"):
            next(samples)
        kept = IterableBitstreams([tars / "1.tar", tars / "0.tar"], skip_damaged=True)
        assert [sample.key for sample in kept] == ["a", "c", "k/00"]
        assert notes.pop() == f"{tars}/1.tar/{said}; skipped"
    whole = tar([good, ("b.dcu", streams[1]), ("c.dcu", streams[2])])
    (tars / "1.tar").write_bytes(whole[: whole.index(b"c.dcu") + 520])
    assert [s.key for s in IterableBitstreams(tars / "{1,0}.tar", skip_damaged=True)] == ["a", "k/00"]
    assert "1.tar: not a whole uncompressed tar" in notes.pop()
    other = Codec.from_model(write_codec(own_models / "other", seed=7)).compress(smooth_image(8, 8))
    (tars / "1.tar").write_bytes(tar([("a.dcu", b"\xdc\x75\x01\0none" + other[8:])]))
    with pytest.raises(InvalidInputError, match="checksum"):
        list(IterableBitstreams(tars / "1.tar"))
    with pytest.raises(MissingInputError, match=r"^no\.tar: No such file"):
        list(IterableBitstreams("no.tar", skip_damaged=True))


def test_codecs_that_are_not_installed_are_no_damage(tars: Path, own_models: Path) -> None:
    other = Codec.from_model(write_codec(own_models / "other", seed=7)).compress(smooth_image(8, 8))
    (own_models / "other" / "card.json").unlink()
    (tars / "1.tar").write_bytes(tar([("a.dcu", other)]))
    with pytest.raises(UnavailableError, match=rf"^{tars}/1\.tar/a: "):
        list(IterableBitstreams(tars / "1.tar", skip_damaged=True))


def test_labels_of_shards(tars: Path, streams: list[bytes]) -> None:
    (tars / "1.tar").write_bytes(tar([("a.dcu", streams[0]), ("a.cls", b"cat"), ("b.dcu", streams[1])]))
    assert [sample.label for sample in IterableBitstreams(tars / "1.tar", labels={"cat": 4})] == [4, NO_LABEL]
    with pytest.raises(InvalidInputError, match="'cat' is not in labels"):
        list(IterableBitstreams(tars / "1.tar", labels={"dog": 4}))


class Threads:
    """How many threads PyTorch has in a worker."""

    def __call__(self, latent: Tensor) -> Tensor:
        return torch.tensor([torch.get_num_threads()])


@pytest.mark.slow
@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_however_they_start(directory: Path, tars: Path, start: str) -> None:
    """Of a process that computed on two threads; each has one, and gives what this process gives."""
    data = Bitstreams(directory)
    expected = [sample.latent for sample in every(data)]
    loader: DataLoader[Any] = DataLoader(
        data, 3, num_workers=2, collate_fn=collate, multiprocessing_context=start, timeout=60
    )
    assert torch.equal(torch.cat([latents for latents, _, _ in loader]), torch.stack(expected))
    counted = IterableBitstreams(tars, transform=Threads())
    loader = DataLoader(counted, 3, num_workers=2, collate_fn=collate, multiprocessing_context=start, timeout=60)
    batches = list(loader)
    assert sorted(keys_of(batches)) == KEYS
    assert all(latents.eq(1).all() for latents, _, _ in batches)


def test_an_error_of_a_worker_keeps_its_kind_and_name(directory: Path) -> None:
    (directory / "cat" / "7.bin").write_bytes(b"nothing")
    loader = DataLoader(
        Bitstreams(directory), 2, num_workers=1, collate_fn=collate, multiprocessing_context="fork", timeout=60
    )
    with pytest.raises(InvalidInputError, match=r"cat/7\.bin: not a dcu bitstream"):
        list(loader)
