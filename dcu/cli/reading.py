"""Bitstreams through a network: read once, batched, answered in the order of the inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from dcu.cli import files
from dcu.errors import InvalidInputError

if TYPE_CHECKING:
    from dcu.bitstream import Stream
    from dcu.tasks.classify import Classifier, Views

T = TypeVar("T")
MAX_STREAMS = 32
POSITIONS = 2**18
"""Latent positions that are in memory at once, or one image's."""


def answers(
    found: Iterable[files.Source],
    network: str | None,
    device: str,
    engine: str,
    view: str,
    ask: Callable[[Classifier, Sequence[Views]], Sequence[T]],
    failures: files.Failures,
) -> Iterator[tuple[files.Source, Classifier, T]]:
    """(source, network, answer) of every stream; the network is the named one, or that of the stream's codec.

    ``view``, of `dcu.tasks.classify.VIEWS`, is what the network sees; ``ask`` answers a batch of images.
    """
    from dcu.bitstream import latent_size
    from dcu.tasks.classify import Classifier, classifier_for

    named = Classifier.load(network, device, engine) if network else None

    def read() -> Iterator[tuple[files.Source, Classifier, Stream]]:
        for source, stream in files.streams(found, failures):
            with failures.of(source.name):
                classifier = named or classifier_for(stream.codec, device, engine)
                classifier.codec.check(stream)
                yield source, classifier, stream

    def positions(entry: tuple[files.Source, Classifier, Stream]) -> int:
        layer = entry[2].layers[0]
        return math.prod(latent_size(layer.width, layer.height))

    for batch in files.batched(read(), MAX_STREAMS, positions, POSITIONS):
        given: dict[int, T] = {}
        for classifier in dict.fromkeys(entry[1] for entry in batch):
            members = [index for index, entry in enumerate(batch) if entry[1] is classifier]
            seen = views_of_streams(
                classifier, {index: (batch[index][0], batch[index][2]) for index in members}, view, failures
            )
            if seen:
                given |= dict(zip(seen, ask(classifier, list(seen.values())), strict=True))
        for index, (source, classifier, _) in enumerate(batch):
            if index in given:
                yield source, classifier, given[index]


def views_of_streams(
    classifier: Classifier, streams: dict[int, tuple[files.Source, Stream]], view: str, failures: files.Failures
) -> dict[int, Views]:
    """What the network sees of streams, by their key: of all together, or one by one where that fails."""
    with suppress(InvalidInputError, MemoryError, RuntimeError):
        return dict(zip(streams, classifier.look([stream for _, stream in streams.values()], view), strict=True))
    seen: dict[int, Views] = {}
    for key, (source, stream) in streams.items():
        with failures.of(source.name):
            (seen[key],) = classifier.look([stream], view)
    return seen
