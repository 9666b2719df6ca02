"""Networks on a GPU: what several threads ask for at the same time is computed together."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dcu.errors import out_of_memory

MOST_POSITIONS = 32 * 28 * 28
"""Latent positions that go through a network together: bounds memory."""
Network = Callable[..., Tensor]
"""Tensors (B, ...), on any device, to an answer (B, ...)."""


@dataclass
class Request:
    """One image's inputs, each (1, ...), and the answer to come."""

    inputs: tuple[Tensor, ...]
    answer: Future[Tensor] = field(default_factory=Future)

    @property
    def shape(self) -> tuple[torch.Size, ...]:
        """Requests of equal shapes can be computed together."""
        return tuple(x.shape for x in self.inputs)


class Batched:
    """Answers of a network that computes batches well, to single images from any number of threads.

    A thread that finds the network free computes all requests of its image's shape that wait, at most ``most``
    positions of the last two dimensions together. A batch for which memory is short is halved, and so are later ones.

    Parameters
    ----------
    run : Network
        The network, for a batch.
    most : int
        Positions that a batch may have; a single image may have more.
    """

    def __init__(self, run: Network, most: int = MOST_POSITIONS) -> None:
        self.run, self.most = run, most
        self.waiting: list[Request] = []
        self.guard, self.turn = threading.Lock(), threading.Lock()

    def __call__(self, batch: Tensor) -> Tensor:
        """The answers (B, ...) to images (B, C, h, w)."""
        return torch.cat(self.each(batch.split(1)))

    def alone(self, *inputs: Tensor) -> Tensor:
        """The answer (1, ...) to the inputs (1, ...) of one image."""
        (answer,) = self.answers([Request(inputs)])
        return answer

    def each(self, images: Sequence[Tensor]) -> list[Tensor]:
        """The answer (1, ...) to each image (1, C, h, w) of any size."""
        return self.answers([Request((image,)) for image in images])

    def answers(self, requests: Sequence[Request]) -> list[Tensor]:
        """The answers to requests, together with what other threads ask for."""
        with self.guard:
            self.waiting += requests
        for request in requests:
            while not request.answer.done():
                with self.turn:
                    if not request.answer.done():
                        self.compute(self.taken(request.shape))
        return [request.answer.result() for request in requests]

    def taken(self, shape: tuple[torch.Size, ...]) -> list[Request]:
        """The oldest requests of a shape, as many as are computed together; they wait no longer."""
        count = max(1, self.most // math.prod(shape[0][2:]))
        with self.guard:
            batch = [request for request in self.waiting if request.shape == shape][:count]
            taken = set(map(id, batch))
            self.waiting = [request for request in self.waiting if id(request) not in taken]
        return batch

    def compute(self, batch: list[Request]) -> None:
        """Answer a batch; one that fails is computed in halves, so that an error is that of its own image."""
        try:
            parts = zip(*(request.inputs for request in batch), strict=True)
            answers = self.run(*(torch.cat(part) for part in parts)).split(1)
        except Exception as error:
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
                return
            half = len(batch) // 2
            if out_of_memory(error):
                self.most = half * math.prod(batch[0].shape[0][2:])
            del error
            self.compute(batch[:half])
            self.compute(batch[half:])
            return
        for request, answer in zip(batch, answers, strict=True):
            request.answer.set_result(answer)
