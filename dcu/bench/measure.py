"""Timing: pipelines take turns, warm, and every stage has its own clock."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dcu.bench.pipelines import TimedPipeline
from dcu.engines import TITLES, Engine

TURN = 6
"""Images that a way has before it is another's turn, at least."""
TURN_SECONDS = 0.2
"""Seconds of its turn, where that is longer."""
WARM = 2
"""Batches of each that are not counted."""


@dataclass(frozen=True)
class Timing:
    """A pipeline on one engine at one batch size, over so many ``batches``.

    Medians in milliseconds per image: of each stage, and of all (``ms``), with its 10 and 90 % quantiles.
    """

    engine: str
    batch: int
    batches: int
    read_ms: float
    decode_ms: float
    network_ms: float
    ms: float
    ms_10: float
    ms_90: float
    images_per_second: float


class Runner:
    """One way on one engine, at one batch size."""

    def __init__(self, pipeline: TimedPipeline, engine: str, run: Engine, batch: int) -> None:
        self.pipeline, self.engine, self.run, self.batch = pipeline, engine, run, batch
        self.milliseconds: list[tuple[float, ...]] = []  # of each stage, an image
        self.seconds = 0.0  # that were counted
        repeats = -(-batch // len(pipeline.files))
        self.files = (pipeline.files * repeats)[: len(pipeline.files) if batch == 1 else batch]
        self.at = 0  # of the files, which is next at batch 1
        self.turn = -(-TURN // batch)  # batches before it is another's

    def once(self) -> tuple[float, ...]:
        """One batch from files to labels: milliseconds of each stage, an image."""
        files = self.files
        if self.batch == 1:  # another file each turn
            files = [self.files[self.at % len(self.files)]]
            self.at += 1
        marks = [time.perf_counter()]
        read = [self.pipeline.read(data) for data in files]
        marks.append(time.perf_counter())
        batch = self.pipeline.decode(read)
        settle(batch)
        marks.append(time.perf_counter())
        self.run(batch)
        settle(batch)
        marks.append(time.perf_counter())
        return tuple(1e3 * (end - start) / self.batch for start, end in pairwise(marks))

    def go_on(self, seconds: float, deadline: float) -> None:
        """One turn at least, and until so many seconds are counted; after a deadline of the clock one batch only."""
        first = len(self.milliseconds)
        while len(self.milliseconds) == first or (
            time.perf_counter() < deadline and (len(self.milliseconds) < first + self.turn or self.seconds < seconds)
        ):
            self.milliseconds.append(self.once())
            self.seconds += sum(self.milliseconds[-1]) * self.batch / 1e3

    def timing(self) -> Timing:
        """What was measured."""
        stages = np.array(self.milliseconds)
        whole = stages.sum(1)
        median = float(np.median(whole))
        read, decode, network = (round(float(time), 2) for time in np.median(stages, 0))
        low, high = (round(float(time), 2) for time in np.quantile(whole, (0.1, 0.9)))
        return Timing(
            *(TITLES[self.engine], self.batch, len(stages), read, decode, network),
            *(round(median, 2), low, high, round(1e3 / median, 1)),
        )


def settle(batch: Tensor) -> None:
    """Wait for a device that works on its own."""
    if batch.device.type == "cuda":
        torch.cuda.synchronize()


def runners(rows: Sequence[TimedPipeline], batches: Sequence[int]) -> list[list[Runner]]:
    """For each pipeline, one runner per engine and batch size; pipelines that share a network share its engines."""
    ready: dict[int, dict[str, Engine]] = {}
    for pipeline in rows:
        if id(pipeline.network) not in ready:
            ready[id(pipeline.network)] = pipeline.engines(
                pipeline.decode([pipeline.read(data) for data in pipeline.files])
            )
    return [
        [Runner(pipeline, name, run, batch) for batch in batches for name, run in ready[id(pipeline.network)].items()]
        for pipeline in rows
    ]


def time_runners(
    entries: Sequence[list[Runner]], seconds: float, show: Callable[[Sequence[int]], Iterable[int]] = iter
) -> None:
    """Take turns, so that all have about as long, about so many seconds together; ``show`` wraps the rounds.

    What is quick so goes more often. What is slow misses rounds, but for the first and the last. The seconds include
    warming up; where they do not suffice, each has one batch to warm up and one that counts.
    """
    everyone = [runner for group in entries for runner in group]
    started = time.perf_counter()
    deadline = started + seconds
    for number in range(WARM):
        for runner in everyone:
            if number == 0 or time.perf_counter() < deadline:
                runner.once()
    share = max(0.0, deadline - time.perf_counter()) / len(everyone)
    rounds = max(2, round(share / TURN_SECONDS))
    for number in show(range(1, rounds + 1)):
        for runner in everyone:
            due = share * number / rounds
            late = time.perf_counter() >= deadline
            if number == 1 or (not late and (number == rounds or runner.seconds < due)):
                runner.go_on(due, deadline)


def peak_mib(runner: Runner) -> float | None:
    """What a batch needs beyond what is there before it, in MiB of resident memory; None where Linux does not tell."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        before = status("VmRSS")
        runner.once()
        return round((status("VmHWM") - before) / 1024, 1)
    except (OSError, KeyError):
        return None


def status(name: str) -> int:
    """A value of /proc/self/status in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = {line.partition(":")[0]: line.partition(":")[2] for line in lines}
    return int(values[name].split()[0])
