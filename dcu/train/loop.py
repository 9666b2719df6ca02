"""The one training loop: schedule, moving average, checkpoints, log, progress.

What is trained is a :class:`Task`; data order and augmentation are functions of (seed, step), so that a resumed
run continues exactly as if it had never stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from dcu.errors import InvalidInputError, OutputError, UsageError
from dcu.io import locked
from dcu.train import parallel
from dcu.train.checkpoint import Checkpoint, load_optimizer_state, optimizer_state
from dcu.train.optimizers import make_optimizer
from dcu.train.recipe import Schedule

R = TypeVar("R")


class Task(Protocol):
    """What the loop trains."""

    scalars: dict[str, float]
    """State beside the weights that a resumed run needs."""
    device: str
    """Where its weights are: "cpu" or "cuda"."""

    @property
    def module(self) -> nn.Module:
        """All that has weights."""

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups of the optimizer; ``scale`` multiplies the learning rate."""

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """The data of a step, on the CPU; runs in a thread ahead of time."""

    def loss(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch on the task's device, and what is to be logged."""

    def validate(self) -> dict[str, float]:
        """Figures of the averaged weights on held-out images; may steer ``scalars``."""


class Loss(nn.Module):
    """A task's loss as a module, which is what DistributedDataParallel wraps."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.module, self.task = task.module, task
        self.metrics: dict[str, float] = {}

    def forward(self, *batch: Tensor) -> Tensor:
        loss, self.metrics = self.task.loss(batch)
        return loss


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


def computes_bf16(device: str) -> bool:
    """Whether a device computes in bf16: CUDA, and CPUs on which oneDNN does (AVX-512 or better on x86).

    Elsewhere PyTorch does without oneDNN, and a step takes twenty times as long as in float32 (docs/training.md).
    """
    if device != "cpu":
        return True
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


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


class Run:
    """One training run: the task, its optimizer, the averaged weights, and where it stands."""

    def __init__(self, task: Task, schedule: Schedule, directory: Path) -> None:
        self.task, self.schedule, self.directory = task, schedule, directory
        self.optimizer = make_optimizer(task.groups(), schedule)
        self.average = {n: t.detach().clone() for n, t in task.module.state_dict().items()}
        self.loss = Loss(task)
        self.parallel_loss = parallel.parallel(self.loss)
        self.bf16 = schedule.bf16 and computes_bf16(task.device)
        self.step = 0
        self.started_from: dict[str, Any] | None = None
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
                raise UsageError(f"{self.directory}: another training is running there; name other --runs") from error
            except OSError as error:
                raise OutputError(f"{self.directory}: {error.strerror}") from error
            yield

    def save(self) -> None:
        """Write a checkpoint, the first process for all."""
        if parallel.rank() > 0:
            return
        tensors = {f"weights.{n}": t for n, t in self.task.module.state_dict().items()}
        tensors |= {f"average.{n}": t for n, t in self.average.items()}
        state, packed = optimizer_state(self.optimizer)
        scalars = {"step": self.step, "start": self.started_from, "task": self.task.scalars, "optimizer": packed}
        self.checkpoint.save(tensors | state, scalars)

    def resume(self) -> None:
        """Continue from the directory's checkpoint."""
        tensors, scalars = self.checkpoint.load()

        def part(prefix: str) -> dict[str, Tensor]:
            return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

        try:
            self.task.module.load_state_dict(part("weights."))
            load_optimizer_state(self.optimizer, tensors, scalars["optimizer"])
        except (RuntimeError, KeyError, ValueError) as error:
            raise InvalidInputError(f"{self.checkpoint.path}: of another recipe") from error
        self.average = {name: tensor.to(self.task.device) for name, tensor in part("average.").items()}
        self.step, self.started_from = int(scalars["step"]), scalars.get("start")
        self.task.scalars.update(scalars["task"])

    def start(self, path: Path) -> None:
        """Begin with the averaged weights and the scalars of another run's checkpoint.

        A joint run begins with a codec's (its reader begins anew), then maybe its reader with a classifier's; a
        classifier's with the reader of a joint run.

        Raises
        ------
        MissingInputError, InvalidInputError
            No checkpoint, or not one of the same architecture.
        """
        tensors, scalars = Checkpoint(path).load()
        found = {n.removeprefix("average."): t for n, t in tensors.items() if n.startswith("average.")}
        wanted = self.task.module.state_dict()
        alike = not set(wanted).isdisjoint(found)  # else one of them is a joint run's, and a reader is all they share
        if not alike:
            inner = {n.removeprefix("reader."): t for n, t in found.items() if n.startswith("reader.")}
            found = inner or {f"reader.{n}": t for n, t in found.items()}
            wanted = {n: t for n, t in wanted.items() if n.startswith("reader.")} or wanted
        common = {n: t for n, t in found.items() if n in wanted and wanted[n].shape == t.shape}
        rest = (set(wanted) | set(found)) - set(common)
        if not common or not all(alike and n.startswith("reader.") for n in rest):
            raise InvalidInputError(f"{path}: of another architecture")
        self.task.module.load_state_dict(common, strict=False)
        self.task.scalars.update({n: v for n, v in scalars["task"].items() if n in self.task.scalars})
        origin = {"steps": int(scalars["step"]), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        self.started_from = self.started_from | {"reader": origin} if self.started_from else origin
        self.average = {n: t.detach().clone() for n, t in self.task.module.state_dict().items()}

    def train_step(self, batch: tuple[Tensor, ...]) -> dict[str, float]:
        """One step of the optimizer and of the moving average."""
        rate = self.schedule.learning_rate * self.schedule.scale(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        with torch.autocast(self.task.device, torch.bfloat16, enabled=self.bf16):
            loss = self.parallel_loss(*(tensor.to(self.task.device) for tensor in batch))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.task.module.parameters(), self.schedule.clip)
        self.optimizer.step()
        decay = min(self.schedule.ema, (1 + self.step) / (10 + self.step))
        for name, tensor in self.task.module.state_dict().items():
            if tensor.is_floating_point():
                self.average[name].lerp_(tensor, 1 - decay)
            else:
                self.average[name].copy_(tensor)
        self.step += 1
        return self.loss.metrics | {"loss": float(loss.detach()), "learning_rate": rate}

    def validate(self) -> dict[str, float]:
        """The task's metrics, computed with the averaged weights."""
        module = self.task.module
        weights = {n: t.detach().clone() for n, t in module.state_dict().items()}
        module.load_state_dict(self.average)
        module.eval()
        with torch.no_grad():
            metrics = self.task.validate() if parallel.rank() == 0 else {}
        parallel.share(self.task.scalars)
        module.load_state_dict(weights)
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
            console.print("bf16: not computed by this CPU; training in float32")
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
