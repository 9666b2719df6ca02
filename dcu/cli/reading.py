"""Bitstreams through a network: read once, batched, answered in the order of the inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from dcu.cli import files
from dcu.cli.report import TROUBLE, Report

if TYPE_CHECKING:
    from dcu.bitstream import Stream
    from dcu.tasks.classify import Classifier, Views

T = TypeVar("T")
MAX_STREAMS = 32
POSITIONS = 2**18
"""Latent positions that are in memory at once, or one image's."""


@dataclass
class Question:
    """A stream and the network that is asked about it, or the error that came before."""

    source: files.Source
    stream: Stream | None = None
    classifier: Classifier | None = None
    error: Exception | None = None


def answers(
    streams: Iterable[tuple[files.Source, Stream | Exception]],
    network: str | None,
    device: str,
    engine: str,
    view: str,
    asking: Callable[[Classifier], Callable[[Sequence[Views]], Sequence[T]]],
    report: Report,
) -> Iterator[tuple[files.Source, Classifier, T]]:
    """(source, network, answer) of every stream; the network is the named one, or that of the stream's codec.

    ``view``, of `dcu.tasks.classify.VIEWS`, is what the network sees; ``asking`` gives what answers a batch of images,
    and raises errors that end the run. Errors of inputs are reported in their turn.
    """
    from dcu.tasks.classify import Classifier, classifier_for

    named = Classifier.load(network, device, engine) if network else None

    def question(source: files.Source, stream: Stream | Exception) -> Question:
        try:
            whole = files.intact(stream)
            classifier = named or classifier_for(whole.codec, device, engine)
            classifier.codec.check(whole)
        except TROUBLE as error:
            return Question(source, error=error)
        return Question(source, whole, classifier)

    asked = (question(source, stream) for source, stream in streams)
    for batch in files.batched(asked, MAX_STREAMS, positions, POSITIONS):
        given: dict[int, T] = {}
        for classifier in dict.fromkeys(each.classifier for each in batch if each.classifier):
            members = {index: each for index, each in enumerate(batch) if each.classifier is classifier}
            ask = asking(classifier)
            given |= answered(members, lambda part, c=classifier, a=ask: a(c.look(part, view)))  # type: ignore[misc]
        for index, each in enumerate(batch):
            if each.error:
                report.fail(each.source.name, each.error)
            elif each.classifier:
                yield each.source, each.classifier, given[index]


def positions(question: Question) -> int:
    """Positions of the latent that is read."""
    from dcu.bitstream import latent_size

    if question.stream is None:
        return 0
    layer = question.stream.layers[0]
    return math.prod(latent_size(layer.width, layer.height))


def answered(members: dict[int, Question], ask: Callable[[list[Stream]], Sequence[T]]) -> dict[int, T]:
    """The answers to questions, by their key: to all together, or one by one where that fails.

    A question that fails gets its error.
    """
    streams = {key: each.stream for key, each in members.items() if each.stream}
    with suppress(*TROUBLE):
        return dict(zip(streams, ask(list(streams.values())), strict=True))
    given: dict[int, T] = {}
    for key, stream in streams.items():
        try:
            (given[key],) = ask([stream])
        except TROUBLE as error:
            members[key].error = error
    return given
