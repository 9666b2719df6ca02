"""Several processes that train one model, each on its own part of every batch.

``torchrun --nproc-per-node N -m dcu train ...`` starts them; PyTorch's DistributedDataParallel averages their
gradients. Alone, all of this does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from dcu.train.loop import Task


@contextmanager
def processes(device: str) -> Iterator[None]:
    """Join the processes that torchrun started, if it did: over NCCL on GPUs, over Gloo on CPUs."""
    if "LOCAL_RANK" not in os.environ:
        yield
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def together() -> bool:
    """Whether there are several processes."""
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    """Which of the processes this is; the first, 0, writes files and speaks."""
    return distributed.get_rank() if together() else 0


def count() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if together() else 1


def mean(value: float, device: str) -> float:
    """The mean of a number over the processes."""
    if not together():
        return value
    total = torch.tensor(value, dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    return float(total) / count()


def share(scalars: dict[str, float]) -> None:
    """Give all processes the numbers of the first."""
    if together():
        box = [scalars]
        distributed.broadcast_object_list(box, src=0)
        scalars.update(box[0])


class Loss(nn.Module):
    """A task's loss as a module, which is what DistributedDataParallel wraps."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.module, self.task = task.module, task
        self.metrics: dict[str, float] = {}

    def forward(self, *batch: Tensor) -> Tensor:
        loss, self.metrics = self.task.loss(batch)
        return loss


def parallel(loss: Loss) -> nn.Module:
    """The loss, its gradients averaged over the processes."""
    return DistributedDataParallel(loss) if together() else loss
