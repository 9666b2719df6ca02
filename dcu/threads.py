"""Threads: images one by one, so that the result of each depends on nothing beside it; forks; waiting without a core.

A convolution or a matrix product may sum in another order where the batch or the number of threads is another. Hence
an image always goes through a network alone, and its result is that of one thread: of several images each has a
thread of its own; all threads share one image only where they were seen to give the same bytes.
"""

from __future__ import annotations

import functools
import math
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, ParamSpec, TypeVar

import torch
from torch import Tensor

from dcu.errors import UnavailableError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

LARGE = 2**14
"""Positions of an image from which on it is not computed beside others: bounds memory."""
SHAPES = 1000
"""Shapes for which is known whether all threads give the bytes of one."""


class Process:
    """What threads need to know of the process that they are in."""

    def __init__(self) -> None:
        self.pool: ThreadPoolExecutor | None = None
        self.size = 0
        self.lock = threading.Lock()
        self.forked = False
        self.calm = False

    def after_fork(self) -> None:
        """In the child: the threads are gone, those of OpenMP too, which does not know it and would wait for them."""
        self.__init__()  # type: ignore[misc]
        self.forked = self.calm = True


PROCESS = Process()
os.register_at_fork(after_in_child=PROCESS.after_fork)


def inference(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function one that computes: without gradients, in forked processes on one thread, waiting quietly."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if PROCESS.forked and torch.get_num_threads() > 1:
            torch.set_num_threads(1)
        if not PROCESS.calm:
            calm()
        with torch.inference_mode():
            return function(*args, **kwargs)

    return run


class LoadedOnce(Generic[P, R]):
    """functools.lru_cache, for which of several threads that want the same thing at once one computes it."""

    def __init__(self, function: Callable[P, R], maxsize: int = 4) -> None:
        self.cached, self.lock = functools.lru_cache(maxsize)(function), threading.RLock()
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.lock:
            return self.cached(*args, **kwargs)  # type: ignore[arg-type]

    def cache_clear(self) -> None:
        """Forget all."""
        self.cached.cache_clear()


def calm() -> None:
    """See to it that OpenMP's threads do not wait in a loop for long where other programs need the processors.

    Importing dcu before torch is enough: it sets the environment. Where torch came first, its OpenMP, GNU's, has read
    the environment; but its threads wait in a short loop while there are more of them than processors, and so a team
    that large is made here, and left asleep.
    """
    set_up = "OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ
    if set_up or sys.platform != "linux" or torch.get_num_threads() == 1:
        return
    PROCESS.calm = True
    before, ready = torch.get_num_threads(), threading.Event()

    def sleep() -> None:
        torch.set_num_threads(len(os.sched_getaffinity(0)) + 1)
        torch.zeros(2**20).add_(1)
        ready.set()
        threading.Event().wait()

    threading.Thread(target=sleep, name="dcu-calm", daemon=True).start()
    ready.wait()
    torch.set_num_threads(before)


def workers(count: int) -> ThreadPoolExecutor:
    """So many threads, on each of which PyTorch uses no other."""
    with PROCESS.lock:
        if PROCESS.pool is None or PROCESS.size != count:
            if PROCESS.pool is not None:
                PROCESS.pool.shutdown(wait=False)
            before = torch.get_num_threads()
            PROCESS.pool, PROCESS.size = ThreadPoolExecutor(count, "dcu"), count
            everyone = threading.Barrier(count)

            def begin(_: int) -> None:
                torch.get_num_threads()  # the first question sets what is the process's number until then
                torch.set_num_threads(1)
                everyone.wait()

            try:
                list(PROCESS.pool.map(begin, range(count)))
            except RuntimeError as error:  # the system allows no more
                everyone.abort()
                PROCESS.pool.shutdown(cancel_futures=True)
                PROCESS.pool = None
                raise UnavailableError(f"cannot start {count} threads: lower --jobs") from error
            torch.set_num_threads(before)  # of threads to come, for which any call sets it
        return PROCESS.pool


def each(function: Callable[[T], R], values: Sequence[T]) -> list[R]:
    """A function of each value, one value per thread, in order."""
    count = torch.get_num_threads()
    if count == 1:
        return [function(value) for value in values]
    return list(workers(count).map(torch.inference_mode()(function), values))


class Exact:
    """A network's answers (B, ...) to images (B, C, h, w), each as one thread gives it.

    Parameters
    ----------
    one : callable
        The answer (1, ...) to one image (1, C, h, w), on the calling thread alone where that has no others. It may take
        further tensors.
    all : callable
        The same on all threads.
    """

    def __init__(self, one: Callable[..., Tensor], all: Callable[..., Tensor]) -> None:
        self.one, self.all = one, all
        self.same: dict[tuple[int, ...], bool | None] = {}

    def __call__(self, batch: Tensor) -> Tensor:
        return torch.cat(self.each(batch.split(1)))

    def each(self, images: Sequence[Tensor]) -> list[Tensor]:
        """The answer (1, ...) to each image (1, C, h, w) of any size."""
        small = [image for image in images if math.prod(image.shape[2:]) <= LARGE]
        together = iter(each(self.one, small) if len(small) > 1 else map(self.alone, small))
        return [next(together) if math.prod(image.shape[2:]) <= LARGE else self.alone(image) for image in images]

    def alone(self, image: Tensor, *more: Tensor) -> Tensor:
        """The answer to one image; on all threads from the third of a shape on, if those gave the bytes of one."""
        count = torch.get_num_threads()
        if count == 1:
            return self.one(image, *more)
        shape = (count, *image.shape)
        if self.same.get(shape):
            return self.all(image, *more)
        (answer,) = each(lambda x: self.one(x, *more), [image])
        if shape not in self.same:
            if len(self.same) == SHAPES:
                self.same.clear()
            self.same[shape] = None
        elif self.same[shape] is None:
            self.same[shape] = torch.equal(answer, self.all(image, *more))
        return answer
