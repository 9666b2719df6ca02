"""Data sets of latents for PyTorch, read from bitstreams: nothing is decoded to pixels.

::

    bitstreams in directories ─► Bitstreams ─────────► DataLoader ─► collate ─► latents (B, C, h, w), labels (B,), keys
    bitstreams in shards ──────► IterableBitstreams ──┘

Example::

    from torch.utils.data import DataLoader
    from dcu.torch import Bitstreams, collate

    data = Bitstreams("train/")
    for latents, labels, keys in DataLoader(data, 32, shuffle=True, num_workers=4, collate_fn=collate):
        ...
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, TypeVar

import torch
from torch import Tensor, distributed
from torch.utils.data import Dataset, IterableDataset, default_collate, get_worker_info

from dcu import bitstream, remote, shards
from dcu.codec import codec_of
from dcu.errors import InvalidInputError, MissingInputError, named
from dcu.walk import BITSTREAMS, LeftOut, checked_walk

__all__ = ["Bitstreams", "IterableBitstreams", "Sample", "collate"]

log = logging.getLogger(__name__)
NO_LABEL = -1
"""The label of a bitstream that has none."""
Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Transform = Callable[[Tensor], Any]
T = TypeVar("T")


class Sample(NamedTuple):
    """One bitstream: latent (C, h, w) float32 or what ``transform`` makes of it, label (-1: none), key."""

    latent: Any
    label: int
    key: str


class Bitstreams(Dataset[Sample]):
    """The bitstreams below directories (``.dcu``, ``.bin``), sorted by name; the class is the directory that holds one.

    The latent is the one that dcu's networks see, that of the thumbnail layer where there is one, decoded by the
    installed codec that the bitstream names. The key is the path below its directory, without extension.

    Parameters
    ----------
    paths : str, path, or sequence of them
        Directories, or bitstreams (without label).
    labels : mapping of str to int, optional
        The label of each class. By default the classes in alphabetical order are 0, 1, ...; bitstreams that are in no
        subdirectory have -1.
    transform : callable, optional
        Applied to each latent (C, h, w) float32.

    Attributes
    ----------
    classes : list of str
        Names of the classes, by label.
    class_to_idx : dict of str to int
        Label of each class.
    targets : list of int
        Label of each bitstream.

    Raises
    ------
    MissingInputError
        No such file or directory, or no bitstreams in it. Of an item: it cannot be read.
    ValueError
        ``labels`` lacks a class.
    InvalidInputError
        Of an item: damaged; the message begins with its path.
    UnavailableError
        Of an item: its codec is not installed.
    """

    def __init__(
        self, paths: Paths, *, labels: Mapping[str, int] | None = None, transform: Transform | None = None
    ) -> None:
        found = [(path, key) for name in names_of(paths) for path, key in below(Path(name))]
        self.paths = [str(path) for path, _ in found]
        self.keys = [key.as_posix() for _, key in found]
        owners = [key.parent.name for _, key in found]
        names = sorted(set(owners) - {""})
        self.class_to_idx = dict(labels) if labels is not None else {name: n for n, name in enumerate(names)}
        self.classes = sorted(self.class_to_idx, key=self.class_to_idx.__getitem__)
        if unknown := set(names) - self.class_to_idx.keys():
            raise ValueError(f"labels lacks the class {min(unknown)!r}")
        self.targets = [self.class_to_idx[owner] if owner else NO_LABEL for owner in owners]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        path = self.paths[index]
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise MissingInputError(f"{path}: {error.strerror}") from error
        return Sample(latent_of(data, path, self.transform), self.targets[index], self.keys[index])


class IterableBitstreams(IterableDataset[Sample]):
    """The bitstreams of WebDataset shards (``.tar``): members ``.dcu`` or ``.bin``, the label in the sidecar ``.cls``.

    Each shard is read by one worker of one rank: shards go to the ranks in turn, and those of a rank to its workers in
    turn. No sample is lost or repeated. So ranks have as many samples as their shards hold, and some nothing to read
    where there are fewer shards than readers: training steps that wait for all ranks need shards of one size whose
    number is a multiple of the number of ranks, or ``torch.distributed.algorithms.Join``. The rank is that of
    ``torch.distributed`` where it is initialized, else that of the environment (``RANK``, ``WORLD_SIZE``).

    Parameters
    ----------
    paths : str, path, or sequence of them
        Shards, directories of shards, patterns (``{000..099}``, ``*``), URLs.
    labels : mapping of str to int, optional
        The label of each class that ``.cls`` names; by default ``.cls`` holds the label. Without ``.cls`` it is
        -1.
    transform : callable, optional
        Applied to each latent (C, h, w) float32.
    shuffle : int
        Samples of a buffer from which the next is drawn at random; the order of the shards is random, too. 0: no
        shuffling.
    seed : int
        Of the random order, together with the epoch (:meth:`set_epoch`).
    skip_damaged : bool
        Log a warning in place of InvalidInputError, and go on with the next sample, or after damage of the tar itself
        with the next shard.

    Raises
    ------
    MissingInputError
        No shards in a directory. While iterating: a shard cannot be read.
    InvalidInputError
        While iterating: a shard or a bitstream is damaged, or a label is none; the message begins with shard and key.
    UnavailableError
        While iterating: a codec is not installed.
    """

    def __init__(
        self,
        paths: Paths,
        *,
        labels: Mapping[str, int] | None = None,
        transform: Transform | None = None,
        shuffle: int = 0,
        seed: int = 0,
        skip_damaged: bool = False,
    ) -> None:
        self.shards = [shard for name in names_of(paths) for shard in shards_of(name)]
        self.labels = None if labels is None else dict(labels)
        self.transform, self.shuffle, self.seed, self.skip_damaged = transform, shuffle, seed, skip_damaged
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers that persist see it
        self.rank: tuple[int, int] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the random order of an epoch, as of ``torch.utils.data.DistributedSampler``; call it before each."""
        self.epoch.fill_(epoch)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"rank": rank() or self.rank}  # a process that is spawned may not know it

    def __iter__(self) -> Iterator[Sample]:
        names, seed = list(self.shards), f"{self.seed} {int(self.epoch)}"
        if self.shuffle:
            random.Random(seed).shuffle(names)  # of all ranks alike
        number, count = reader(*(rank() or self.rank or (0, 1)))
        samples = (sample for name in names[number::count] for sample in self.samples(name))
        return shuffled(samples, self.shuffle, random.Random(f"{seed} {number}")) if self.shuffle else samples

    def samples(self, shard: str) -> Iterator[Sample]:
        """The samples of one shard in order; raises as iterating does."""
        with remote.opened(shard) if remote.is_url(shard) else opened(shard) as file:
            found = shards.samples(file, shard)
            while True:
                try:
                    sample = next(found, None)
                    if sample is None:
                        return
                    yield from self.of_sample(sample, shard)
                except InvalidInputError as error:
                    if not self.skip_damaged:
                        raise
                    log.warning("%s; skipped", error)

    def of_sample(self, sample: shards.Sample, shard: str) -> Iterator[Sample]:
        """The bitstreams of a sample, mostly one; raises InvalidInputError, UnavailableError."""
        name = f"{shard}/{sample.key}"
        names = {sample.name(extension): data for extension, data in sample.members.items()}
        found = [data for name, data in names.items() if PurePosixPath(name).suffix.lower() in BITSTREAMS]
        if sample.error or not found:
            raise InvalidInputError(f"{name}: {sample.error or 'holds no bitstream'}")
        label = self.label(sample.members.get("cls"), name)
        for data in found:
            yield Sample(latent_of(data, name, self.transform), label, sample.key)

    def label(self, content: bytes | None, name: str) -> int:
        """The label in the sidecar of a sample of this name; raises InvalidInputError."""
        if content is None:
            return NO_LABEL
        text = content.decode("utf-8", "replace").strip()
        try:
            return int(text) if self.labels is None else self.labels[text]
        except (ValueError, KeyError) as error:
            wanted = "an integer: give labels=" if self.labels is None else "in labels"
            raise InvalidInputError(f"{name}: the class {text[:80]!r} is not {wanted}") from error


def collate(samples: Sequence[tuple[Any, int, str]]) -> tuple[Any, Tensor, list[str]]:
    """A batch: latents (B, C, h, w) float32, labels (B,) int64, keys.

    Raises
    ------
    ValueError
        The latents are not of one shape: those of images of different sizes, or of codecs of different channels.
    """
    latents, labels, keys = zip(*samples, strict=True)
    shapes = sorted({tuple(latent.shape) for latent in latents if isinstance(latent, Tensor)})
    if len(shapes) > 1:
        raise ValueError(
            f"latents of {shapes[0]} and {shapes[-1]} do not fit into one batch: give them one shape by transform="
            " (torchvision.transforms.CenterCrop, for example), or use batch_size=None"
        )
    return default_collate(list(latents)), torch.tensor(labels), list(keys)


def latent_of(data: bytes, name: str, transform: Transform | None) -> Any:
    """The transformed latent of a bitstream; errors begin with its name."""
    with named(name):
        stream = bitstream.read(data)
        latent = codec_of(stream.codec).latent(data)
    latent = latent[0].clone()  # a tensor made for inference alone takes no part in training
    return transform(latent) if transform else latent


def names_of(paths: Paths) -> list[str]:
    """One or several paths as names; ``file://`` URLs as paths."""
    given = [paths] if isinstance(paths, str | os.PathLike) else paths
    return [remote.local(os.fspath(path)) for path in given]


def below(top: Path) -> list[tuple[Path, Path]]:
    """The bitstreams of a directory, or one by itself, each with its key; raises MissingInputError."""
    if not os.path.isdir(top):
        if not os.path.exists(top):
            raise MissingInputError(f"{top}: no such file or directory")
        return [(top, Path(top.stem))]
    return [(path, path.relative_to(top).with_suffix("")) for path in held(top, BITSTREAMS, "bitstreams (.dcu, .bin)")]


def shards_of(name: str) -> list[str]:
    """The shards that a name stands for: of a directory, or as :func:`dcu.shards.matched` says."""
    if os.path.isdir(name):
        return [str(path) for path in held(Path(name), {shards.SUFFIX}, "shards (.tar)")]
    return shards.matched(name)


def held(top: Path, suffixes: Collection[str], kind: str) -> list[Path]:
    """The files of a directory with one of the extensions; raises MissingInputError where there are none."""
    left_out = LeftOut()
    found = checked_walk(top, suffixes, left_out)
    if not found:
        raise MissingInputError(", ".join([f"{top}: holds no {kind}", *left_out.described()]))
    return found


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """A file; raises MissingInputError."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "rb"))
        except OSError as error:
            raise MissingInputError(f"{path}: {error.strerror}") from error
        yield file


def rank() -> tuple[int, int] | None:
    """The rank of this process and the number of ranks; None where it knows of no others."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return None


def reader(rank: int, ranks: int) -> tuple[int, int]:
    """The number of this worker among those of all ranks, and how many there are."""
    worker = get_worker_info()
    return (rank + ranks * worker.id, ranks * worker.num_workers) if worker else (rank, ranks)


def shuffled(values: Iterable[T], size: int, rng: random.Random) -> Iterator[T]:
    """All values, each drawn at random from a buffer of so many."""
    buffer: list[T] = []
    for value in values:
        buffer.append(value)
        if len(buffer) >= size:
            yield taken(buffer, rng)
    while buffer:
        yield taken(buffer, rng)


def taken(buffer: list[T], rng: random.Random) -> T:
    """A value, removed from a buffer."""
    at = rng.randrange(len(buffer))
    buffer[at], buffer[-1] = buffer[-1], buffer[at]
    return buffer.pop()
