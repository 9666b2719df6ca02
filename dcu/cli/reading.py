"""Bitstreams through networks: which network reads a stream, and what is held in memory for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from dcu.cli.entries import Entry
from dcu.jobs import Pixels

if TYPE_CHECKING:
    from dcu.bitstream import Stream
    from dcu.codec import Codec


class Reads(Protocol):
    """A network that reads a codec's latents."""

    @property
    def codec(self) -> Codec:
        """The codec."""


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

    @contextmanager
    def reading(self, entry: Entry) -> Iterator[tuple[N, Stream]]:
        """The network and the stream of an entry, whose image has a place in memory meanwhile; raises their errors."""
        stream = entry.stream()
        with self.lock:  # loading takes a while, and is done once
            network = self.named or self.of_codec(stream.codec)
        network.codec.check(stream)
        with self.memory.held(stream.full.width * stream.full.height):
            yield network, stream
