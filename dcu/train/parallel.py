"""Several processes that train one model, each on its own part of every batch.

``torchrun --nproc-per-node N -m dcu train ...`` starts them; PyTorch's DistributedDataParallel averages their
gradients. Alone, all of this does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


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


def parallel(loss: nn.Module) -> nn.Module:
    """The loss, its gradients averaged over the processes."""
    return DistributedDataParallel(loss) if together() else loss
