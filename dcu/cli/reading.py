"""Bitstreams through networks: which network reads a stream, and what is held in memory for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from dcu.cli.entries import Entry
from dcu.jobs import Pixels

if TYPE_CHECKING:
    from dcu.bitstream import Stream
    from dcu.codec import Codec
    from dcu.tasks.classify import Classifier


class Reads(Protocol):
    """A network that reads a codec's latents."""

    @property
    def codec(self) -> Codec:
        """The codec."""


A = TypeVar("A")
N = TypeVar("N", bound=Reads)


class Networks(Generic[N]):
    """The network for each stream: the named one, or that of the stream's codec. For any number of threads.

    Parameters
    ----------
    named : network, optional
        The one that reads all streams.
    of_codec : callable
        The network of a codec's four bytes; raises UnavailableError.
    """

    def __init__(self, named: N | None, of_codec: Callable[[bytes], N]) -> None:
        self.named, self.of_codec = named, of_codec
        self.lock, self.memory = threading.Lock(), Pixels()

    def answers(self, entries: Sequence[Entry], ask: Callable[[N, list[Stream]], Sequence[A]]) -> list[A]:
        """The answers to entries in order: of each network to all streams that it reads; raises their errors."""
        from dcu.image import block_pixels

        streams = [entry.stream for entry in entries]
        with self.lock:  # loading takes a while, and is done once
            networks = [self.named or self.of_codec(stream.codec) for stream in streams]
        for network, stream in zip(networks, streams, strict=True):
            network.codec.check(stream)
        given: dict[int, A] = {}
        with self.memory.held(sum(block_pixels(stream.full.width, stream.full.height) for stream in streams)):
            for network in {id(network): network for network in networks}.values():
                own = [index for index, other in enumerate(networks) if other is network]
                given |= dict(zip(own, ask(network, [streams[index] for index in own]), strict=True))
        return [given[index] for index in range(len(entries))]


def classifiers(network: str | None, device: str, engine: str) -> Networks[Classifier]:
    """The classifier of a name, or those of the streams' codecs, on an engine."""
    from dcu.tasks.classify import Classifier, classifier_for

    named = Classifier.load(network, device, engine) if network else None
    return Networks(named, lambda codec: classifier_for(codec, device, engine))
