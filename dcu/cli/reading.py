"""Bitstreams through a network: read once, batched, answered in the order of the inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from dcu.cli import files

if TYPE_CHECKING:
    from dcu.tasks.classify import Classifier, Views

T = TypeVar("T")
BATCH = 32


def answers(
    found: Iterable[files.Source],
    network: str | None,
    device: str,
    view: str,
    ask: Callable[[Classifier, Sequence[Views]], Sequence[T]],
    failures: files.Failures,
) -> Iterator[tuple[files.Source, Classifier, T]]:
    """(source, network, answer) of every stream; the network is the named one, or that of the stream's codec.

    ``view``, of `dcu.tasks.classify.VIEWS`, is what the network sees; ``ask`` answers a batch of pictures.
    """
    from dcu.tasks.classify import Classifier, classifier_for

    named = Classifier.load(network, device) if network else None

    def seen() -> Iterator[tuple[files.Source, Classifier, Views]]:
        for source, stream in files.streams(found, failures):
            with failures.of(source.name):
                classifier = named or classifier_for(stream.codec, device)
                yield source, classifier, classifier.look(stream, view)

    for batch in files.batched(seen(), BATCH):
        given: dict[int, T] = {}
        for classifier in dict.fromkeys(entry[1] for entry in batch):
            members = [index for index, entry in enumerate(batch) if entry[1] is classifier]
            given |= dict(zip(members, ask(classifier, [batch[index][2] for index in members]), strict=True))
        for index, (source, classifier, _) in enumerate(batch):
            yield source, classifier, given[index]
