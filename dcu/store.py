"""Models on disk: a directory NAME/ with card.json and weights.safetensors; their fingerprints.

A name is looked up in $DCU_MODELS, in the user's data directory, then among the models that dcu ships; what contains a
separator is a path.
"""

from __future__ import annotations

import contextlib
import datetime
import difflib
import functools
import hashlib
import itertools
import logging
import math
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dcu import cards, paths, weights
from dcu.cards import Card, Difference, Result
from dcu.errors import InvalidInputError, OutputError, UnavailableError
from dcu.io import read_regular, waiting, write_atomic

if TYPE_CHECKING:  # cards are read without torch
    from torch import Tensor

    from dcu.bitstream import Stream

log = logging.getLogger(__name__)
CARD, WEIGHTS = "card.json", "weights.safetensors"
ID_BYTES = 4
DEFAULTS = {"codec": "codec-2", "classifier": "classifier-2", "segmenter": "segmenter-2"}
"""The models that are used where none is named, by kind."""
TENSOR_NAMES = {"backbone": "trunk", "adapter": "front", "centers": "centres"}
"""Parts of tensors' names in memory, and what files of weights and checkpoints call them."""
places_of_codecs: dict[tuple[object, ...], Path] = {}
"""Where the codecs of earlier bitstreams were found, by their identity and the search path: where to look first."""


@dataclass(frozen=True)
class Model:
    """One model: its directory and what its card says."""

    directory: Path
    card: Card

    @property
    def name(self) -> str:
        """The name by which it is looked up."""
        return self.directory.name

    @property
    def kind(self) -> str:
        """Codec, classifier or segmenter, or one of ``cards.COUNTERPARTS``."""
        return self.card.kind

    @property
    def fingerprint(self) -> str:
        """Of the codec that it is, or whose latents it reads: 64 hexadecimal digits."""
        return self.card.fingerprint

    @property
    def identity(self) -> bytes:
        """The four bytes that name that codec in a stream."""
        return bytes.fromhex(self.fingerprint)[:ID_BYTES]

    @property
    def sha256(self) -> str:
        """Of its weights; raises UnavailableError where its card states none."""
        if self.card.sha256 is None:
            raise UnavailableError(f"{self.name}: its card has no SHA-256 of the weights")
        return self.card.sha256

    def weights(self) -> dict[str, Tensor]:
        """The tensors.

        Raises
        ------
        UnavailableError
            The file is missing, is not the one that the card was written for, or holds what is no model's.
        """
        return to_module_names(weights.read(self.directory / WEIGHTS, self.card.sha256))


def to_file_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the names that files give them, from those of the modules."""
    return {".".join(TENSOR_NAMES.get(part, part) for part in name.split(".")): t for name, t in tensors.items()}


def to_module_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The reverse of :func:`to_file_names`."""
    names = {stored: name for name, stored in TENSOR_NAMES.items()}
    return {".".join(names.get(part, part) for part in name.split(".")): t for name, t in tensors.items()}


def read_model(directory: Path) -> Model:
    """The model in a directory.

    Raises
    ------
    UnavailableError
        No card there, or an invalid one.
    """
    path = directory / CARD
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # the latter of names with NUL
        raise UnavailableError(f"{directory}: no model found") from error
    found = checked(directory, status.st_mtime_ns, status.st_size, status.st_ino)
    if isinstance(found, str):
        raise UnavailableError(f"{path}: invalid model card ({found})")
    return found


@functools.lru_cache(maxsize=512)  # verify and info look up the codec of every bitstream
def checked(directory: Path, *_version: int) -> Model | str:
    """The model in a directory, its card checked; or what is wrong with that."""
    try:
        return Model(directory, cards.parse(read_regular(directory / CARD, cards.MOST_BYTES)))
    except OSError as error:
        return error.strerror or "cannot be read"
    except ValueError as error:
        return str(error)


def directories() -> Iterator[Path]:
    """Every directory with a card on the search path, those too that another one of the same name hides."""
    seen: set[str] = set()
    for place in paths.search_path():
        with contextlib.suppress(OSError), os.scandir(place) as entries:
            names = sorted(entry.name for entry in entries)
            for path in (os.path.join(place, name) for name in names):
                if path not in seen and os.path.lexists(os.path.join(path, CARD)):
                    seen.add(path)
                    yield Path(path)


def installed() -> Iterator[Model]:
    """Every installed model; invalid cards are passed over (``dcu models`` reports them)."""
    for directory in directories():
        with contextlib.suppress(UnavailableError):
            yield read_model(directory)


def installed_codecs() -> list[Model]:
    """The installed codecs: those of one rate by rising rate, then those of many.

    Raises
    ------
    UnavailableError
        There is none.
    """
    codecs = [model for model in first_of_each_name(installed()) if model.kind == "codec"]
    if not codecs:
        raise UnavailableError("no codec is installed")
    return sorted(codecs, key=lambda model: (model.card.rate or math.inf, model.name))


def first_of_each_name(models: Iterable[Model]) -> list[Model]:
    """Models that no other of their name hides."""
    found: dict[str, Model] = {}
    for model in models:
        found.setdefault(model.name, model)
    return list(found.values())


def is_path(name: str | Path) -> bool:
    """Whether a model is named by its place: by what contains a separator."""
    return isinstance(name, Path) or any(separator in name for separator in (os.sep, os.altsep) if separator)


def find(name: str | Path | None, *kinds: str) -> Model:
    """A model by name or path, of one of some kinds; None for the default of the first.

    A name is never one of the current directory.

    Raises
    ------
    UnavailableError
        There is none, or it is of another kind.
    """
    if name is None:
        name = DEFAULTS[kinds[0]]
    if is_path(name):
        model = read_model(Path(os.path.abspath(name)))
    else:
        there = [path for path in directories() if path.name == name]
        if not there:
            is_there = name and os.path.isfile(os.path.join(name, CARD))
            near = difflib.get_close_matches(str(name), [path.name for path in directories()], 1, 0.8)
            hint = f"; ./{name} is a path" if is_there else f"; did you mean {near[0]}?" if near else ""
            raise UnavailableError(f"{name}: model not installed{hint}")
        model = read_model(there[0])
    log.debug("%s: %s", name, model.directory)
    if kinds and model.kind not in kinds:
        raise UnavailableError(f"{name}: is a {model.kind}, not a {kinds[0]}")
    return model


def find_codec(identity: bytes) -> Model:
    """The codec whose fingerprint begins with four bytes.

    Raises
    ------
    UnavailableError
        It is not installed.
    """
    key: tuple[object, ...] = (identity, *paths.search_path())
    candidates = itertools.chain([place] if (place := places_of_codecs.get(key)) else [], directories())
    for directory in candidates:
        with contextlib.suppress(UnavailableError):
            model = read_model(directory)
            if model.kind == "codec" and model.identity == identity:
                places_of_codecs[key] = directory
                return model
    hint = "set DCU_MODELS to the directory that contains it"
    raise UnavailableError(f"no codec with the fingerprint {identity.hex()} is installed; {hint}")


def codec_for(stream: Stream) -> Model:
    """The installed codec that made a stream, from the cards alone.

    Raises
    ------
    UnavailableError, InvalidInputError
        It is not installed; it has no such operating point.
    """
    model = find_codec(stream.codec)
    if stream.operating_point >= model.card.points:
        raise InvalidInputError(f"{model.name} has no operating point {stream.operating_point}")
    if stream.header.machines and not model.card.machines:
        raise InvalidInputError(f"{model.name} makes no streams for machines")
    return model


def networks(kind: str, codec_fingerprint: str) -> list[Model]:
    """Every installed network of a kind that reads the latents of a codec; of two with one name, the first."""
    found = (model for model in installed() if model.kind == kind and model.fingerprint == codec_fingerprint)
    return first_of_each_name(found)


def find_network(kind: str, codec_fingerprint: str) -> Model:
    """The network of a kind that reads the latents of a codec: the one named as the codec is, else the first.

    So one's own classes, fitted to the same codec, answer only where they are asked for by name.

    Raises
    ------
    UnavailableError
        There is none.
    """
    model = default_network(kind, codec_fingerprint)
    if model is None:
        codecs = {other.card.codec: None for other in installed() if other.kind == kind and other.card.codec}
        there = f"; available for {', '.join(sorted(codecs))}" if codecs else ""
        name = find_codec(bytes.fromhex(codec_fingerprint)[:ID_BYTES]).name
        raise UnavailableError(f"no {kind} for {name} is installed{there}")
    return model


def default_network(kind: str, codec_fingerprint: str) -> Model | None:
    """The same, or None where there is none."""
    models = [model for model in networks(kind, codec_fingerprint) if model.card.network != "resnet"]
    named = [model for model in models if model.name == str(model.card.codec).replace("codec", kind, 1)]
    return next(iter(named or models), None)


def default_networks(kind: str) -> list[Model]:
    """The network of a kind for each installed codec that has one."""
    found = [default_network(kind, codec.fingerprint) for codec in installed_codecs()]
    return [model for model in found if model]


def fingerprint(levels: list[int], centers: Tensor, context: dict[str, Tensor]) -> str:
    """SHA-256 over all that a decoder of symbols and latent needs, little endian, as hexadecimal digits.

    C as uint16, L of each channel as uint8, the centers of each channel as float32, then each integer tensor of the
    context model (`dcu.entropy.integer_tensors`) in the order of their names: number of dimensions as uint8, each of
    them as uint32, the values as int32.

    Raises
    ------
    ValueError
        A tensor of the context model that is not of type int32: its values would be rounded.
    """
    digest = hashlib.sha256(struct.pack("<H", len(levels)) + bytes(levels))
    for count, row in zip(levels, centers.float(), strict=True):
        digest.update(row[:count].numpy().astype("<f4").tobytes())
    return with_context(digest, context)


def variable_rate_fingerprint(ungain: Tensor, context: dict[str, Tensor]) -> str:
    """The same for a codec of many operating points.

    C as uint16, a zero byte, the quantization steps (64 * kinds, C) as float32, then the integer tensors.

    Raises
    ------
    ValueError
        As :func:`fingerprint`.
    """
    digest = hashlib.sha256(struct.pack("<HB", ungain.shape[1], 0))
    digest.update(ungain.float().numpy().astype("<f4").tobytes())
    return with_context(digest, context)


def with_context(digest: hashlib._Hash, context: dict[str, Tensor]) -> str:
    """A digest's hexadecimal digits after the integer tensors of a context model were added."""
    for name, tensor in sorted(context.items()):
        if str(tensor.dtype) != "torch.int32":
            raise ValueError(f"context.{name} is of type {tensor.dtype}, not int32")
        digest.update(struct.pack(f"<B{tensor.ndim}I", tensor.ndim, *tensor.shape))
        digest.update(tensor.numpy().astype("<i4").tobytes())
    return digest.hexdigest()


def write_model(directory: Path, card: Card, tensors: dict[str, Tensor]) -> Model:
    """Write weights and card; the card gets the directory's name, and number, size and SHA-256 of the weights.

    Raises
    ------
    OutputError
        The directory cannot be written.
    """
    from safetensors.torch import save

    data = save({name: tensor.contiguous() for name, tensor in to_file_names(tensors).items()})
    card = replace(
        card,
        name=directory.name,
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        text = cards.written(card)
        write_atomic(directory / WEIGHTS, data)
        write_atomic(directory / CARD, text)
    except OSError as error:
        raise OutputError(f"{directory}: {error.strerror}") from error
    return Model(directory, card)


def amend(model: Model, change: Callable[[Card], Card]) -> Model:
    """Change the card of a model's weights, as it is now: others may have written it since it was read.

    Raises
    ------
    OutputError
        It cannot be written; the model has other weights by now.
    """
    try:
        with waiting(model.directory):
            now = read_model(model.directory)
            if now.card.sha256 != model.card.sha256:
                raise OutputError(f"{model.directory}: the model was replaced meanwhile; nothing is recorded")
            card = change(now.card)
            write_atomic(model.directory / CARD, cards.written(card))
    except OSError as error:
        raise OutputError(f"{model.directory}: {error.strerror}") from error
    return Model(model.directory, card)


def record(model: Model, result: Result) -> Model:
    """State a result on a model's card, with today's date, in the place of earlier ones that it replaces.

    What was compared with other formats on as many images stays for those that are not compared again.
    """

    def change(card: Card) -> Card:
        compared: dict[str, Difference] = {}
        for other in card.results:
            if result.replaces(other) and other.count == result.count:
                compared |= other.against
        dated = replace(result, date=datetime.date.today().isoformat(), against=compared | result.against)
        return replace(card, results=(*(other for other in card.results if not result.replaces(other)), dated))

    return amend(model, change)
