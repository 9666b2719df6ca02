"""Work on many images: several at a time, each on one thread, results in the order of the inputs."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

R = TypeVar("R")
T = TypeVar("T")

AHEAD = 2
"""Inputs for each job that are begun, or done and not yet taken."""
MOST_BYTES = 2**28
"""Of what was read and is not done yet, where it is held in memory."""
MOST_PIXELS = 2**27
"""Pixels of the images that are worked on at the same time; a larger one is alone."""
CGROUPS = Path("/sys/fs/cgroup")


def cores() -> int:
    """The processors that this process may use: its affinity, and the limits of its control groups."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([count, *map(int, quotas())]))


def quotas() -> Iterator[float]:
    """Processors that control groups allow, of versions 1 and 2."""
    try:
        own = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in own:
        directory = CGROUPS / ("cpu" if "cpu" in controllers.split(",") else "") / path.strip("/")
        for place in (directory, *directory.parents):
            if CGROUPS not in (place, *place.parents):
                break
            for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
                try:
                    quota, period = " ".join((place / name).read_text() for name in names).split()
                    if quota not in ("max", "-1"):
                        yield int(quota) / int(period)
                except (OSError, ValueError, ZeroDivisionError):
                    continue


def ordered(
    function: Callable[[T], R], values: Iterable[T], jobs: int, weigh: Callable[[T], int] = lambda value: 0
) -> Iterator[R]:
    """The function of each value, in order, computed on ``jobs`` threads; of a single value on the calling thread.

    Values are taken as they are needed: ``AHEAD`` for each job, fewer where they weigh more than ``MOST_BYTES``
    together. An error of the function ends the iteration; one of the values does so after the results of those before.
    """
    if jobs == 1:
        yield from map(function, values)
        return
    errors: list[Exception] = []
    begin = before_errors(values, errors)
    first = list(islice(begin, 2))
    if len(first) < 2:
        yield from map(function, first)
    else:
        yield from in_parallel(function, chain(first, begin), jobs, weigh)
    if errors:
        raise errors[0]


def before_errors(values: Iterable[T], errors: list[Exception]) -> Iterator[T]:
    """The values before an error, which is noted."""
    try:
        yield from values
    except Exception as error:
        errors.append(error)


def in_parallel(function: Callable[[T], R], values: Iterable[T], jobs: int, weigh: Callable[[T], int]) -> Iterator[R]:
    """The function of each value, as :func:`ordered` says, on threads."""
    from dcu.threads import workers  # it needs torch

    pool, pending, weight = workers(jobs), deque[tuple[int, Future[R]]](), 0
    try:
        for value in values:
            weight += (own := weigh(value))
            pending.append((own, pool.submit(function, value)))
            while len(pending) >= AHEAD * jobs or (weight > MOST_BYTES and pending):
                own, future = pending.popleft()
                yield future.result()
                weight -= own
        while pending:
            yield pending.popleft()[1].result()
    finally:
        for _, future in pending:
            future.cancel()


class Pixels:
    """Bounds the pixels of images that are worked on at the same time."""

    def __init__(self, most: int = MOST_PIXELS) -> None:
        self.most, self.taken, self.change = most, 0, threading.Condition()

    @contextmanager
    def held(self, pixels: int) -> Iterator[None]:
        """Wait until an image of so many pixels has a place."""
        pixels = min(pixels, self.most)
        with self.change:
            self.change.wait_for(lambda: self.taken + pixels <= self.most)
            self.taken += pixels
        try:
            yield
        finally:
            with self.change:
                self.taken -= pixels
                self.change.notify_all()
