"""Work on several images at a time: order, bounds, errors; batches on a device, and where memory is short."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dcu import jobs
from dcu.batching import Batched


def test_results_come_in_order_and_few_are_ahead() -> None:
    taken: list[int] = []

    def values() -> Iterator[int]:
        for value in range(50):
            taken.append(value)
            yield value

    def slow(value: int) -> int:
        time.sleep(0.002 * (value % 3))
        return value

    for number, answer in enumerate(jobs.ordered(slow, values(), 3)):
        assert answer == number
        assert len(taken) <= number + 1 + jobs.AHEAD * 3


def test_one_value_is_worked_on_by_the_calling_thread() -> None:
    here = threading.get_ident()
    assert list(jobs.ordered(lambda _: threading.get_ident(), [1], 4)) == [here]
    assert here not in list(jobs.ordered(lambda _: threading.get_ident(), [1, 2], 4))
    assert list(jobs.ordered(str, [], 4)) == []


def test_an_error_ends_the_iteration_and_cancels_what_waits() -> None:
    begun: list[int] = []

    def fail(value: int) -> int:
        begun.append(value)
        if value == 3:
            raise ValueError("three")
        return value

    with pytest.raises(ValueError, match="three"):
        list(jobs.ordered(fail, range(100), 2))
    assert len(begun) < 20


def test_pixels_are_bounded() -> None:
    memory, now, most = jobs.Pixels(10), [0], [0]
    lock = threading.Lock()

    def work(pixels: int) -> None:
        with memory.held(pixels):
            with lock:
                now[0] += min(pixels, 10)
                most[0] = max(most[0], now[0])
            time.sleep(0.001)
            with lock:
                now[0] -= min(pixels, 10)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, [4, 7, 100, 1, 3, 9, 12, 5] * 5))
    assert most[0] <= 10


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"cpu.max": "150000 100000"}, 1),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu.max": "nonsense"}, None),
    ],
)
def test_cores_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], limit: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(jobs, "CGROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert jobs.cores() == (limit or 8)


def doubled(
    sizes: list[int], memory: int = 10**9, error: type[Exception] = torch.OutOfMemoryError
) -> Callable[..., Tensor]:
    """A network that doubles, records the sizes of batches, and fails above ``memory`` images."""

    def run(batch: Tensor, *more: Tensor) -> Tensor:
        sizes.append(len(batch))
        if len(batch) > memory:
            raise error("CUDA out of memory")
        if (batch == 13).any():
            raise ValueError("thirteen")
        time.sleep(0.002)
        return 2 * batch + sum(more, torch.zeros(1)).reshape(-1, 1, 1, 1)

    return run


def ask(network: Batched, values: list[float], threads: int = 16) -> list[float]:
    """What many threads get that ask at the same time, images of two sizes."""

    def one(index: int) -> float:
        size = 2 + index % 2
        return float(network.alone(torch.full((1, 1, size, size), values[index]))[0, 0, 0, 0])

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, range(len(values))))


def test_threads_are_answered_together() -> None:
    sizes: list[int] = []
    values = [float(v) for v in range(100, 164)]
    assert ask(Batched(doubled(sizes)), values) == [2 * value for value in values]
    assert max(sizes) > 1
    assert sum(sizes) == 64


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_a_batch_without_memory_is_halved(error: type[Exception]) -> None:
    sizes: list[int] = []
    network = Batched(doubled(sizes, memory=3, error=error))
    images = [torch.full((1, 1, 2, 2), float(i)) for i in range(100, 132)]
    assert torch.equal(torch.cat(network.each(images)), 2 * torch.cat(images))
    before = len(sizes)
    assert torch.equal(network(torch.cat(images)), 2 * torch.cat(images))
    assert max(sizes[before:]) <= 3, "later batches are as small from the beginning"


def test_memory_that_is_too_short_for_one_image_is_its_error() -> None:
    network = Batched(doubled([], memory=0))
    with pytest.raises(torch.OutOfMemoryError):
        network.alone(torch.zeros(1, 1, 2, 2))


def test_an_error_is_that_of_its_image() -> None:
    values: list[float] = [1.0, 2.0, 13.0, 4.0]
    network = Batched(doubled([]))
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(network.alone, torch.full((1, 1, 2, 2), value)) for value in values]
    for value, answer in zip(values, asked, strict=True):
        if value == 13:
            with pytest.raises(ValueError, match="thirteen"):
                answer.result()
        else:
            assert answer.result()[0, 0, 0, 0] == 2 * value


def test_batches_have_a_size_at_most_and_take_further_tensors() -> None:
    sizes: list[int] = []
    network = Batched(doubled(sizes), most=8)
    network.each([torch.zeros(1, 1, 2, 2)] * 9)
    assert max(sizes) == 2
    assert float(network.alone(torch.ones(1, 1, 2, 2), torch.tensor([5.0]))[0, 0, 0, 0]) == 7
