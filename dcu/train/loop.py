"""The one training loop: schedule, moving average, checkpoints, log, progress.

What is trained is a :class:`Task`; data order and augmentation are functions of (seed, step), so that a resumed
run continues exactly as if it had never stopped.
"""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Generic, Protocol, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from dcu.errors import InvalidInputError, OutputError, UsageError
from dcu.io import locked
from dcu.precision import computes_bf16
from dcu.train import parallel
from dcu.train.averaging import MovingAverage
from dcu.train.checkpoint import Checkpoint, Origin, State, load_optimizer_state, optimizer_state
from dcu.train.optimizers import ParameterGroup, make_optimizer
from dcu.train.recipe import Schedule

R = TypeVar("R")
B = TypeVar("B")
"""A task's batch: a named tuple of tensors, numbers and such tuples."""


class Task(Protocol[B]):
    """What the loop trains."""

    scalars: dict[str, float]
    """State beside the weights that a resumed run needs."""
    device: str
    """Where its weights are: "cpu" or "cuda"."""

    @property
    def held_out(self) -> Sized:
        """The images on which it is validated."""

    @property
    def module(self) -> nn.Module:
        """All that has weights."""

    def groups(self) -> Sequence[ParameterGroup]:
        """Parameter groups of the optimizer."""

    def batch(self, step: int) -> B:
        """The data of a step, on the CPU; runs in a thread ahead of time."""

    def loss(self, batch: B) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch on the task's device, and what is to be logged."""

    def validate(self) -> dict[str, float]:
        """Metrics of the averaged weights on held-out images; may steer ``scalars``."""


class Loss(nn.Module, Generic[B]):
    """A task's loss as a module, which is what DistributedDataParallel wraps."""

    def __init__(self, task: Task[B]) -> None:
        super().__init__()
        self.module, self.task = task.module, task
        self.metrics: dict[str, float] = {}

    def forward(self, batch: B) -> Tensor:
        loss, self.metrics = self.task.loss(batch)
        return loss


def to_device(batch: B, device: str) -> B:
    """A batch with its tensors on a device."""

    def moved(part: Any) -> Any:
        if isinstance(part, tuple):
            return type(part)(*map(moved, part))
        return part.to(device) if isinstance(part, Tensor) else part

    there: B = moved(batch)
    return there


def prefetch(make: Callable[[int], R], indices: range) -> Iterator[R]:
    """``make(index)`` of each index in order, made in threads ahead of their use."""
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[R]] = deque()
        for index in indices:
            ahead.append(pool.submit(make, index))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


@contextmanager
def deferred_interrupt() -> Iterator[threading.Event]:
    """Ctrl-C, SIGTERM and SIGHUP set an event, so that a step ends complete; a second one interrupts at once."""
    interrupted = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Run(Generic[B]):
    """One training run: the task, its optimizer, the averaged weights, and where it stands."""

    def __init__(self, task: Task[B], schedule: Schedule, directory: Path, origin: Origin | None = None) -> None:
        self.task, self.schedule, self.directory, self.origin = task, schedule, directory, origin
        self.optimizer = make_optimizer(task.groups(), schedule)
        self.average = MovingAverage(task.module, schedule.ema)
        self.loss = Loss(task)
        self.parallel_loss = parallel.parallel(self.loss)
        self.bf16 = schedule.bf16 and computes_bf16(task.device)
        self.step = 0
        self.checkpoint = Checkpoint(directory / "checkpoint.safetensors")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other trainings out of the run's directory, the first process for all.

        Raises
        ------
        UsageError
            Another one is running there.
        OutputError
            The directory cannot be written.
        """
        with ExitStack() as held:
            try:
                if parallel.rank() == 0:
                    held.enter_context(locked(self.directory / "lock"))
            except BlockingIOError as error:
                raise UsageError(
                    f"{self.directory}: in use by another training; choose another --runs directory"
                ) from error
            except OSError as error:
                raise OutputError(f"{self.directory}: {error.strerror}") from error
            yield

    def save(self) -> None:
        """Write a checkpoint, the first process for all."""
        if parallel.rank() > 0:
            return
        weights, average = self.task.module.state_dict(), self.average.tensors
        optimizer = optimizer_state(self.optimizer)
        self.checkpoint.save(State(self.step, weights, average, optimizer, self.task.scalars, self.origin))

    def resume(self) -> None:
        """Continue from the directory's checkpoint."""
        state = self.checkpoint.load()
        try:
            self.task.module.load_state_dict(state.weights)
            load_optimizer_state(self.optimizer, state.optimizer)
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(f"{self.checkpoint.path}: checkpoint is of another recipe") from error
        self.average.tensors = {name: tensor.to(self.task.device) for name, tensor in state.average.items()}
        self.step, self.origin = state.step, state.origin
        self.task.scalars.update(state.scalars)

    def train_step(self, batch: B) -> dict[str, float]:
        """One step of the optimizer and of the moving average."""
        rate = self.schedule.learning_rate * self.schedule.scale(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        with torch.autocast(self.task.device, torch.bfloat16, enabled=self.bf16):
            loss = self.parallel_loss(to_device(batch, self.task.device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm, value = nn.utils.clip_grad_norm_(self.task.module.parameters(), self.schedule.clip), float(loss.detach())
        self.check_finite(value, float(norm))
        self.optimizer.step()
        self.average.update(self.task.module, self.step)
        self.step += 1
        return self.loss.metrics | {"loss": value, "learning_rate": rate}

    def check_finite(self, *numbers: float) -> None:
        """Stop before weights are spoiled: raises InvalidInputError where loss or gradient is no number."""
        if parallel.mean(float(not all(map(math.isfinite, numbers))), self.task.device) > 0:
            raise InvalidInputError(
                f"step {self.step + 1}: loss or gradient is not finite; the last checkpoint is kept: resume with "
                "a lower schedule.learning_rate"
            )

    def validate(self) -> dict[str, float]:
        """The task's metrics, computed with the averaged weights."""
        module = self.task.module
        with self.average.applied(module), torch.no_grad():
            module.eval()
            metrics = self.task.validate() if parallel.rank() == 0 else {}
        parallel.share(self.task.scalars)
        module.train()
        return metrics

    def train(self, minutes: float | None, console: Console) -> bool:
        """Train to the end of the schedule, or for so many minutes; True when the schedule is done.

        Every validation, and the last step before a stop, appends one JSON object to ``log.jsonl``. Ctrl-C ends the
        step under way, leaves a checkpoint from which the run resumes exactly, and then interrupts.
        """
        started = time.monotonic()
        self.task.module.train()
        rank, count = parallel.rank(), parallel.count()
        console.quiet |= rank > 0
        if self.schedule.bf16 and not self.bf16:
            console.print("bf16 is not supported by this CPU; training in float32")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with deferred_interrupt() as interrupted, Progress(*columns, console=console) as progress:
            bar = progress.add_task("training", total=self.schedule.steps, completed=self.step)
            mine = range(self.step * count + rank, self.schedule.steps * count, count)
            for batch in prefetch(self.task.batch, mine):
                metrics = self.train_step(batch)
                progress.update(bar, completed=self.step, description=f"loss {metrics['loss']:.4f}")
                last = self.step == self.schedule.steps
                due = last or self.step % self.schedule.validate_every == 0
                if due:
                    metrics |= self.validate()
                late = minutes is not None and time.monotonic() - started > 60 * minutes
                stop = parallel.mean(float(late or interrupted.is_set()), self.task.device) > 0
                if due or stop:
                    self.log(metrics | {"seconds": time.monotonic() - started}, console)
                if last or stop or self.step % self.schedule.checkpoint_every == 0:
                    self.save()
                if stop:
                    break
        if interrupted.is_set():
            raise KeyboardInterrupt
        return self.step == self.schedule.steps

    def log(self, metrics: dict[str, float], console: Console) -> None:
        """One line for programs in ``log.jsonl``, one for people on standard error; the first process for all."""
        if parallel.rank() > 0:
            return
        line = {"step": self.step} | {name: float(f"{value:.6g}") for name, value in metrics.items()}
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with (self.directory / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise OutputError(f"{self.directory}: log cannot be written ({error.strerror})") from error
        console.print("  ".join(f"{name} {value:g}" for name, value in line.items()), highlight=False)
