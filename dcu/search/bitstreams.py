"""The bitstreams that rows of an index were made from, as far as they are still there, and their images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from dcu import bitstream, remote, shards
from dcu.codec import codec_of
from dcu.errors import DcuError, InvalidInputError
from dcu.image import ImageArray
from dcu.search.index import Hit


def images(hits: Sequence[Hit]) -> dict[str, ImageArray]:
    """The decoded images of hits by input, the thumbnail layer's where there is one; without those that are gone.

    Files are opened by their inputs, shards by their names, both relative to the current directory; URLs are not.
    """
    streams = {hit.input: stream for hit in hits if not hit.shard and (stream := of_file(hit.input))}
    members: dict[str, dict[str, str]] = defaultdict(dict)
    for hit in hits:
        if hit.shard:
            members[hit.shard][hit.input.removeprefix(f"{hit.shard}/")] = hit.input
    for shard, names in members.items():
        streams |= of_shard(shard, names)
    found = {name: decoded(stream) for name, stream in streams.items()}
    return {name: image for name, image in found.items() if image is not None}


def of_file(name: str) -> bitstream.Stream | None:
    """The bitstream of a file."""
    if remote.is_url(name):
        return None
    try:
        with Path(name).open("rb") as file:
            return bitstream.read_from(file)
    except (OSError, ValueError, InvalidInputError):
        return None


def of_shard(shard: str, names: dict[str, str]) -> dict[str, bitstream.Stream]:
    """The bitstreams of members of a shard, which is read up to the last of them."""
    found: dict[str, bitstream.Stream] = {}
    if remote.is_url(shard):
        return found
    try:
        with Path(shard).open("rb") as file:
            for member, data in shards.members(file, shard):
                if member in names and isinstance(data, bytes):
                    found[names[member]] = bitstream.read(data)
                if len(found) == len(names):
                    break
    except (OSError, ValueError, InvalidInputError):
        pass
    return found


def decoded(stream: bitstream.Stream) -> ImageArray | None:
    """The image of a bitstream, or None where it is not one of an installed codec."""
    try:
        return codec_of(stream.codec).decode(stream, thumbnail=True)
    except DcuError:
        return None
