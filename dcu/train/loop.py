"""The one training loop: schedule, moving average, checkpoints, log, progress.

What is trained is a :class:`Task`; data order and augmentation are functions of (seed, step), so that a resumed
run continues exactly as if it had never stopped.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import threading
import time
import tomllib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar, get_type_hints

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dcu.errors import BrokenInputError, MissingInputError, OutputError, UsageError
from dcu.train import parallel

R = TypeVar("R")


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: cosine decay of the learning rate after a linear warm-up."""

    steps: int
    learning_rate: float
    seed: int = 0
    warmup: int = 200
    final: float = 0.02  # of the learning rate
    ema: float = 0.999
    clip: float = 1.0
    bf16: bool = False  # where :func:`computes_bf16`
    validate_every: int = 500
    checkpoint_every: int = 500

    def scale(self, step: int) -> float:
        """The factor on the learning rate at a step."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


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
        """Parameter groups for Adam; ``scale`` multiplies the learning rate."""

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """The data of a step, on the CPU; runs in a thread ahead of time."""

    def loss(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch on the task's device, and what is to be logged."""

    def validate(self) -> dict[str, float]:
        """Figures of the averaged weights on held-out pictures; may steer ``scalars``."""


def read_recipe(path: Path, **sections: type[Any]) -> dict[str, Any]:
    """A TOML recipe as one dataclass a section.

    Raises
    ------
    MissingInputError, UsageError
        No such file; broken TOML; a section or a name that does not exist, or lacks.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MissingInputError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error
    if extra := set(tables) - set(sections):
        raise UsageError(f"{path}: no section is called [{min(extra)}]")
    return {name: build(cls, tables.get(name, {}), f"{path} [{name}]") for name, cls in sections.items()}


def build(cls: type[R], table: Any, where: str) -> R:
    """A dataclass from a TOML table, with nested dataclasses in tuples."""
    if not isinstance(table, dict):
        raise UsageError(f"{where}: not a table")
    types = get_type_hints(cls)
    names = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    if extra := set(table) - names:
        raise UsageError(f"{where}: nothing is called {min(extra)}")
    values = {}
    for name, value in table.items():
        inner = getattr(types[name], "__args__", (types[name],))[0]
        if isinstance(value, list):
            nested = isinstance(inner, type) and is_dataclass(inner)
            value = tuple(build(inner, v, f"{where}.{name}") if nested else v for v in value)
        elif types[name] is float and type(value) is int:
            value = float(value)
        elif isinstance(types[name], type) and type(value) is not types[name]:
            raise UsageError(f"{where}: {name} = {value!r} is not of type {types[name].__name__}")
        values[name] = value
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where}: {error}") from error


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
    """Ctrl-C sets an event, so that a step ends whole; a second Ctrl-C interrupts at once."""
    interrupted = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


class Checkpoint:
    """Weights, their average, Adam's moments and the scalars, in one safetensors file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
        """Write beside the place and rename: never half a checkpoint; raises OutputError."""
        part = self.path.with_suffix(".part")
        contiguous = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_file(contiguous, part, metadata={"scalars": json.dumps(scalars)})
            os.replace(part, self.path)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise OutputError(f"{self.path}: checkpoint cannot be written ({error})") from error

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What was saved.

        Raises
        ------
        MissingInputError, BrokenInputError
            No such file, or not a checkpoint.
        """
        if not self.path.exists():
            raise MissingInputError(f"{self.path}: no checkpoint to resume from")
        try:
            with safe_open(self.path, "pt") as file:
                scalars = json.loads(file.metadata()["scalars"])
                return {name: file.get_tensor(name) for name in file.keys()}, scalars  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise BrokenInputError(f"{self.path}: not a checkpoint") from error


class Run:
    """One training run: the task, its optimizer, the averaged weights, and where it stands."""

    def __init__(self, task: Task, schedule: Schedule, folder: Path) -> None:
        self.task, self.schedule, self.folder = task, schedule, folder
        self.optimizer = torch.optim.Adam(task.groups(), lr=schedule.learning_rate, betas=(0.9, 0.99))
        self.average = {n: t.detach().clone() for n, t in task.module.state_dict().items()}
        self.loss = parallel.Loss(task)
        self.parallel_loss = parallel.parallel(self.loss)
        self.bf16 = schedule.bf16 and computes_bf16(task.device)
        self.step = 0
        self.started_from: dict[str, Any] | None = None
        self.checkpoint = Checkpoint(folder / "checkpoint.safetensors")

    def save(self) -> None:
        """Write a checkpoint, the first process for all."""
        if parallel.rank() > 0:
            return
        tensors = {f"weights.{n}": t for n, t in self.task.module.state_dict().items()}
        tensors |= {f"average.{n}": t for n, t in self.average.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{n}": t for n, t in state.items()}
        self.checkpoint.save(tensors, {"step": self.step, "start": self.started_from, "task": self.task.scalars})

    def resume(self) -> None:
        """Continue from the folder's checkpoint."""
        tensors, scalars = self.checkpoint.load()

        def part(prefix: str) -> dict[str, Tensor]:
            return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

        try:
            self.task.module.load_state_dict(part("weights."))
        except RuntimeError as error:
            raise BrokenInputError(f"{self.checkpoint.path}: of another recipe") from error
        self.average = {name: tensor.to(self.task.device) for name, tensor in part("average.").items()}
        state = self.optimizer.state_dict()
        for name, tensor in part("adam.").items():
            index, key = name.split(".", 1)
            state["state"].setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict(state)
        self.step, self.started_from = int(scalars["step"]), scalars.get("start")
        self.task.scalars.update(scalars["task"])

    def start(self, path: Path) -> None:
        """Begin with the averaged weights and the scalars of another run's checkpoint.

        A joint run begins with a codec's (its reader begins anew), then maybe its reader with a classifier's; a
        classifier's with the reader of a joint run.

        Raises
        ------
        MissingInputError, BrokenInputError
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
            raise BrokenInputError(f"{path}: of another architecture")
        self.task.module.load_state_dict(common, strict=False)
        self.task.scalars.update({n: v for n, v in scalars["task"].items() if n in self.task.scalars})
        origin = {"steps": int(scalars["step"]), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        self.started_from = self.started_from | {"reader": origin} if self.started_from else origin
        self.average = {n: t.detach().clone() for n, t in self.task.module.state_dict().items()}

    def train_step(self, batch: tuple[Tensor, ...]) -> dict[str, float]:
        """One step of Adam and of the moving average."""
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
        return self.loss.figures | {"loss": float(loss.detach()), "learning_rate": rate}

    def validate(self) -> dict[str, float]:
        """The task's figures, computed with the averaged weights."""
        module = self.task.module
        weights = {n: t.detach().clone() for n, t in module.state_dict().items()}
        module.load_state_dict(self.average)
        module.eval()
        with torch.no_grad():
            figures = self.task.validate() if parallel.rank() == 0 else {}
        parallel.share(self.task.scalars)
        module.load_state_dict(weights)
        module.train()
        return figures

    def train(self, minutes: float | None, console: Console) -> bool:
        """Train to the end of the schedule, or for so many minutes; True when the schedule is done.

        Every validation appends one JSON object to ``log.jsonl``. Ctrl-C ends the step under way, leaves a checkpoint
        from which the run resumes exactly, and then interrupts.
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
                figures = self.train_step(batch)
                progress.update(bar, completed=self.step, description=f"loss {figures['loss']:.4f}")
                last = self.step == self.schedule.steps
                if last or self.step % self.schedule.validate_every == 0:
                    figures |= self.validate()
                    self.log(figures | {"seconds": time.monotonic() - started}, console)
                late = minutes is not None and time.monotonic() - started > 60 * minutes
                stop = parallel.mean(float(late or interrupted.is_set()), self.task.device) > 0
                if last or stop or self.step % self.schedule.checkpoint_every == 0:
                    self.save()
                if stop:
                    break
        if interrupted.is_set():
            raise KeyboardInterrupt
        return self.step == self.schedule.steps

    def log(self, figures: dict[str, float], console: Console) -> None:
        """One line for programs in ``log.jsonl``, one for people on standard error; the first process for all."""
        if parallel.rank() > 0:
            return
        line = {"step": self.step} | {name: float(f"{value:.6g}") for name, value in figures.items()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise OutputError(f"{self.folder}: log cannot be written ({error.strerror})") from error
        console.print("  ".join(f"{name} {value:g}" for name, value in line.items()), highlight=False)
