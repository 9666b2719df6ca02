"""Damaged inputs of every kind, from a printed seed: each is read, or refused with one of dcu's own errors.

``make fuzz`` runs the cases of each kind that `kinds` says. ``python -m tests.fuzz --minutes 30`` goes on with
further ones for so long; ``--only KIND --seed N --first I`` begins with one case again. Every other exception fails, a
damaged stream that is accepted, more than ``LIMIT`` seconds for a case, ``MEMORY`` more bytes, and a crash.
"""

from __future__ import annotations

import argparse
import copy
import faulthandler
import hashlib
import io
import json
import logging
import mmap
import os
import re
import resource
import secrets
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dcu import bitstream, store, weights
from dcu.bitstream import Header
from dcu.codec import Codec
from dcu.data import Item, Pair, items, pairs
from dcu.errors import DcuError
from dcu.image import read_image
from dcu.tasks.classify import Classifier
from dcu.tasks.segment import Segmenter
from dcu.train.adapter import ClassifierTraining
from dcu.train.codec import CodecTraining
from dcu.train.joint import JointTraining
from dcu.train.recipe import find_recipe, with_base
from dcu.train.resnet import ResNetTraining
from dcu.train.segmenter import SegmenterTraining
from dcu.train.variable_rate import VariableRateTraining

from . import conftest
from .conftest import smooth_image
from .hostile_cards import HUGE, nested
from .image_files import saved
from .test_logistic_coder import CHANNELS, CODER, symbols_of

LIMIT = 10
"""Seconds of the processor that a case may take."""
MEMORY = 2**30
"""Bytes that all cases may take beyond what the process has mapped before."""
PIXELS = 2**21
"""Of an image, the limit that is set: a header alone may ask for so many."""
RECIPES = Path(__file__).parent.parent / "configs"
TRAININGS: dict[str, type[Any]] = {
    "reader": JointTraining,
    "codec": CodecTraining,
    "variable_rate": VariableRateTraining,
    "classifier": ClassifierTraining,
    "resnet": ResNetTraining,
    "segmenter": SegmenterTraining,
}
TEXTS = ("", "..", "/x", "0" * 64)
VALUES: tuple[Any, ...] = (None, True, 0, -1, 1.5, 1e300, HUGE, *TEXTS, [], [[]], {}, [{}], {"a": [1]})
"""What is put in the place of a value of JSON."""

Rng = np.random.Generator
Read = Callable[[bytes], object]


@dataclass(frozen=True)
class Kind:
    """Inputs of one kind: how many cases, what makes a case of random numbers, what reads it."""

    name: str
    cases: int
    make: Callable[[Rng], bytes]
    read: Read


def pick(rng: Rng, values: Sequence[Any]) -> Any:
    """One of the values."""
    return values[int(rng.integers(len(values)))]


def damaged(rng: Rng, data: bytes, other: bytes = b"") -> bytes:
    """Bytes with one to four changes: bits, bytes and parts altered, removed, repeated, or taken from ``other``."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(out) + 1))
        if rng.random() < 0.5:  # headers are short
            at = min(at, int(rng.integers(64)))
        size = int(rng.integers(1, 5)) if rng.random() < 0.7 else int(rng.integers(1, len(out) + 2))
        match int(rng.integers(7)):
            case 0 if at < len(out):
                out[at] ^= 1 << int(rng.integers(8))
            case 1 if at < len(out):
                out[at] = pick(rng, (0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                out[at : at + size] = rng.bytes(min(size, len(out[at:])))
            case 3:
                del out[at : at + size]
            case 4:
                out[at:at] = rng.bytes(min(size, 64))
            case 5:
                out[at:at] = out[at : at + size]
            case 6:
                out[at : at + size] = other[at : at + size]
    return bytes(out)


def damaged_file(rng: Rng, corpus: Sequence[bytes]) -> bytes:
    """One file of a corpus, damaged, maybe with parts of another."""
    return damaged(rng, pick(rng, corpus), pick(rng, corpus))


def with_checksum(body: bytes) -> bytes:
    """A bitstream whose checksum is right."""
    return body + zlib.crc32(body).to_bytes(bitstream.CHECKSUM_BYTES, "little")


class Streams:
    """Bitstreams of both versions: small ones, one of several tiles, one with a thumbnail layer; what reads them."""

    def __init__(self, models: Path) -> None:
        self.codec = Codec.load(models / "codec-0.0983")
        self.classifier = Classifier.load(models / "classifier-0.0983", engine="pytorch")
        self.segmenter = Segmenter.load(models / "segmenter-0.0983")
        sizes = ((1, 1), (9, 7), (40, 52), (64, 64))
        self.corpus = [self.codec.compress(smooth_image(*size, seed=n)) for n, size in enumerate(sizes)]
        self.corpus += [self.version_2(*size, n) for n, size in enumerate(sizes)]
        self.large = [self.codec.compress(smooth_image(*size)) for size in ((8, 2100), (1024, 1040))]
        self.originals = {*self.corpus, *self.large}

    def version_2(self, height: int, width: int, seed: int) -> bytes:
        """A bitstream of version 2, with metadata where ``seed`` is odd."""
        q = seed * 17 % 64
        payload = CODER.encode(symbols_of(seed, *bitstream.latent_size(width, height)), q)
        header = Header(
            b"\1\2\3\4", q, 2, machines=seed % 3 == 0, gray=seed % 5 == 0, metadata=b"made by a test" * (seed % 2)
        )
        return bitstream.write(header, width, height, [[payload]])

    def damaged(self, rng: Rng) -> bytes:
        """A damaged bitstream whose checksum is as it was."""
        return damaged_file(rng, self.large if rng.random() < 0.1 else self.corpus)

    def with_payload(self, rng: Rng) -> bytes:
        """A bitstream that is damaged before its checksum: its payload alone, or anything."""
        data = pick(rng, self.large if rng.random() < 0.02 else self.corpus)
        head = bitstream.read_head(memoryview(data))
        body = data[: -bitstream.CHECKSUM_BYTES]
        if rng.random() < 0.3:
            return with_checksum(damaged(rng, body))
        start = head.header_bytes + head.metadata_bytes
        payload = damaged(rng, body[start:])
        if len(head.payload_bytes) == 1 and len(payload) < bitstream.most_bytes(*head.sizes[0]):
            stream = bitstream.read(data)
            if len(stream.full.tiles) == 1:
                return bitstream.write(stream.header, stream.full.width, stream.full.height, [[payload]])
        return with_checksum(body[:start] + payload[: len(body) - start].ljust(len(body) - start, b"\0"))

    def read(self, data: bytes) -> None:
        """Read a stream by itself and from a file; what is accepted must be whole."""
        try:
            self.codec.read(data)
        finally:
            stream = bitstream.read_from(io.BytesIO(data))
            if stream is not None and data[: stream.size] not in self.originals:
                raise AssertionError("a damaged stream was accepted")

    def answer(self, data: bytes) -> None:
        """Decode, classify and segment a stream; of version 2, decode its symbols."""
        stream = bitstream.read(data)
        if stream.header.version == 2:
            for layer in stream.layers:
                self.decode_version_2(layer, stream.operating_point)
            return
        assert self.codec.decode(data).shape == (stream.full.height, stream.full.width, 3)
        self.classifier(data)
        self.segmenter(data)

    def decode_version_2(self, layer: bitstream.Layer, q: int) -> None:
        """Decode the symbols of a layer."""
        places = bitstream.tile_grid(layer.width, layer.height)
        for (rows, columns), tile in zip(places, layer.tiles, strict=True):
            shape = rows.stop - rows.start, columns.stop - columns.start
            assert CODER.decode([tile], *shape, q).shape == (1, CHANNELS, *shape)


def in_file(path: Path, read: Callable[[Path], object]) -> Read:
    """What reads bytes by way of a file."""

    def reader(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return reader


def image_corpus() -> list[bytes]:
    """Small images in the formats that Pillow writes, in several modes, with EXIF data and a profile."""
    picture = Image.fromarray(smooth_image(20, 26))
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb: list[tuple[str, dict[str, Any]]] = [
        *((name, {}) for name in ("BMP", "DDS", "GIF", "ICO", "JPEG2000", "PCX", "PPM", "QOI", "SGI", "TGA", "WEBP")),
        *(("TIFF", {"compression": name}) for name in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")),
        ("PNG", {"exif": exif}),
        ("JPEG", {"exif": exif, "progressive": True}),
        ("JPEG", {"icc_profile": b"\0" * 128 + b"acsp"}),
        ("AVIF", {"exif": exif}),
        ("WEBP", {"exif": exif, "lossless": True}),
    ]
    modes = [(mode, name) for name in ("PNG", "TIFF", "GIF") for mode in ("1", "L", "P", "LA", "RGBA")]
    modes += [("I;16", "PNG"), ("I;16", "TIFF"), ("F", "TIFF"), ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("L", "JPEG")]
    return [saved(picture, name, **options) for name, options in rgb] + [
        saved(picture.convert("L").convert(mode) if mode == "I;16" else picture.convert(mode), name)
        for mode, name in modes
        if (mode, name) != ("LA", "GIF")
    ]


def label_map_corpus() -> list[bytes]:
    """Label maps in the formats that are accepted."""
    numbers = (smooth_image(20, 26)[..., 0] // 64).astype(np.uint8)
    indexed = Image.fromarray(numbers)
    indexed.putpalette(bytes(range(12)))
    return [saved(image, name) for name in ("BMP", "GIF", "PNG", "TIFF") for image in (indexed, numbers)] + [
        saved(numbers, "PPM")
    ]


def read_label_map(path: Path) -> None:
    """Read a label map as the evaluation does."""
    item = Item("maps", "labels/a.png", path, 0, path.stat().st_size)
    Pair(item, item).classes()


def tar_corpus() -> list[bytes]:
    """Tars of a set of classes and of pairs, in the three formats of headers."""
    image, label = saved(smooth_image(8, 9), "PNG"), saved(smooth_image(8, 9)[..., 0], "PNG")
    names = ("cat/a.png", "dog/b.png", "images/c.png", "labels/c.png", "é" * 60 + "/d.png")
    found = []
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=format) as archive:
            for name in names:
                data, info = label if name.startswith("labels") else image, tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        found.append(out.getvalue())
    return found


def read_tar(path: Path) -> None:
    """Read all images of a tar, then its pairs."""
    try:
        for item in items(path):
            item.image()
    finally:
        for pair in pairs(path):
            pair.classes()


def altered_json(rng: Rng, text: bytes) -> bytes:
    """JSON with one to three of its values replaced, removed, or put elsewhere."""
    root = json.loads(text)
    for _ in range(int(rng.integers(1, 4))):
        owner: Any = root
        while True:
            keys = list(owner) if isinstance(owner, dict) else list(range(len(owner)))
            if not keys:
                break
            key = pick(rng, keys)
            if isinstance(owner[key], dict | list) and rng.random() < 0.7:
                owner = owner[key]
                continue
            match int(rng.integers(3)):
                case 0:
                    owner[key] = copy.deepcopy(pick(rng, VALUES))  # else a later change is one of VALUES
                case 1:
                    del owner[key]
                case 2:
                    owner[key] = copy.deepcopy(owner[pick(rng, keys)])
            break
    return json.dumps(root).encode()


class Models:
    """Cards and weights of the tiny models, damaged, and what loads them."""

    def __init__(self, models: Path, scratch: Path) -> None:
        self.scratch = scratch
        self.models = sorted(path.parent for path in models.glob("*/card.json"))
        self.cards = [(path / store.CARD).read_bytes() for path in self.models]
        self.weights = [(path / store.WEIGHTS).read_bytes() for path in self.models]

    def card(self, rng: Rng) -> bytes:
        """A card: its bytes damaged, or its values."""
        if rng.random() < 0.05:
            return bytes(pick(rng, self.cards))[:-2] + f', "more": {nested(int(rng.integers(1, 2000)))}}}'.encode()
        if rng.random() < 0.4:
            return damaged_file(rng, self.cards)
        return altered_json(rng, pick(rng, self.cards))

    def changed_weights(self, rng: Rng) -> bytes:
        """A file of weights: its bytes damaged, or the values of its header."""
        data = pick(rng, self.weights)
        if rng.random() < 0.5:
            return damaged_file(rng, self.weights)
        size = int.from_bytes(data[:8], "little")
        header = altered_json(rng, data[8 : 8 + size])
        return len(header).to_bytes(8, "little") + header + bytes(data[8 + size :])

    def read_card(self, data: bytes) -> None:
        """Load the model of a card, with the weights that belong to it."""
        store.checked.cache_clear()
        (self.scratch / store.CARD).write_bytes(data)
        model = store.read_model(self.scratch)
        kinds = [path.name.partition("-")[0] for path in self.models]
        own = self.weights[kinds.index(model.kind.removeprefix("rgb-"))]
        (self.scratch / store.WEIGHTS).write_bytes(own)
        load(model)

    def read_weights(self, data: bytes) -> None:
        """Load each model with these weights, as its card states their SHA-256."""
        (self.scratch / store.WEIGHTS).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        weights.read(self.scratch / store.WEIGHTS, digest)
        for path, card in zip(self.models, self.cards, strict=True):
            store.checked.cache_clear()
            (self.scratch / store.CARD).write_text(json.dumps(json.loads(card) | {"sha256": digest}))
            try:
                load(store.read_model(self.scratch))
            except DcuError:
                if path == self.models[-1]:
                    raise


def load(model: store.Model) -> object:
    """The codec or network of a model."""
    if model.kind == "codec":
        return Codec.from_model(model)
    if model.kind == "classifier":
        return Classifier.load(model.directory, engine="pytorch")
    return Segmenter.load(model.directory)


def recipe(rng: Rng, corpus: Sequence[bytes]) -> bytes:
    """A recipe: its bytes damaged, or a value replaced."""
    data = bytes(pick(rng, corpus))
    if rng.random() < 0.4:
        return damaged_file(rng, corpus)
    lines = data.splitlines()
    given = [number for number, line in enumerate(lines) if b" = " in line]
    number = pick(rng, given)
    value = pick(rng, ("-1", "0", "1.5", "true", "nan", "9" * 400, '""', '".."', "[]", "[1]", "{}", "[{}]", "1e300"))
    lines[number] = lines[number].partition(b" = ")[0] + f" = {value}".encode()
    return b"\n".join(lines)


def read_recipe(path: Path) -> None:
    """Read a recipe as the command for its sections does, of several rates that of the first."""
    rates = with_base(path).get("rate")
    if isinstance(rates, dict) and rates and re.fullmatch(r"[\w.]+", rate := next(iter(rates))):
        path = path.with_name(f"{path.stem}-{rate}.toml")
    found = find_recipe(str(path))
    kinds = [training for section, training in TRAININGS.items() if found.has(section)]
    found.sections(kinds[0] if kinds else CodecTraining)


def kinds(scratch: Path) -> list[Kind]:
    """All kinds of inputs, with models in a directory, where files are written too."""
    models = scratch / "models"
    codec = conftest.write_codec(models / "codec-0.0983")
    conftest.write_classifier(models / "classifier-0.0983", codec.fingerprint)
    conftest.write_segmenter(models / "segmenter-0.0983", codec.fingerprint)
    os.environ |= {"DCU_MODELS": str(models), "DCU_MAX_PIXELS": str(PIXELS)}
    (altered := scratch / "altered").mkdir()
    streams, files = Streams(models), Models(models, altered)
    recipes = [path.read_bytes() for path in sorted(RECIPES.glob("*.toml")) if path.stem != "mixtures"]
    file = scratch / "file"
    return [
        Kind("streams", 20_000, streams.damaged, streams.read),
        Kind("payloads", 2_000, streams.with_payload, streams.answer),
        Kind("label maps", 500, partial(damaged_file, corpus=label_map_corpus()), in_file(file, read_label_map)),
        Kind("images", 2_000, partial(damaged_file, corpus=image_corpus()), read_image),
        Kind("tars", 500, partial(damaged_file, corpus=tar_corpus()), in_file(file, read_tar)),
        Kind("cards", 500, files.card, files.read_card),
        Kind("weights", 500, files.changed_weights, files.read_weights),
        Kind("recipes", 500, partial(recipe, corpus=recipes), in_file(scratch / "recipe.toml", read_recipe)),
    ]


def case(kind: Kind, seed: int, number: int) -> bytes:
    """One case, from its kind, seed and number."""
    return kind.make(np.random.default_rng((seed, zlib.crc32(kind.name.encode()), number)))


class Found(Exception):  # noqa: N818
    """What is wrong with how a case is answered."""


def accepted(kind: Kind, data: bytes) -> bool:
    """Whether a case is read, or refused as it should be; raises Found where it is neither."""
    started = time.process_time()
    try:
        kind.read(data)
        whole = True
    except DcuError as error:
        whole = False
        if "\n" in str(error):
            raise Found(f"more than one line: {error}") from error
    except Exception as error:
        raise Found(traceback.format_exc()) from error
    if (took := time.process_time() - started) > LIMIT:
        raise Found(f"{took:.1f} s")
    return whole


def run(kind: Kind, seed: int, numbers: range, until: float, position: mmap.mmap) -> None:
    """Run cases of a kind, until a time of the clock at the latest; leave with the first that is answered wrongly."""
    started, outcomes = time.monotonic(), Counter[bool]()
    for number in numbers:
        if time.monotonic() > until:
            break
        position[:] = f"{kind.name}, case {number}".encode().ljust(len(position))
        data = case(kind, seed, number)
        try:
            outcomes[accepted(kind, data)] += 1
        except Found as error:
            path = Path(tempfile.gettempdir()) / f"dcu-fuzz-{kind.name.replace(' ', '-')}-{seed}-{number}"
            path.write_bytes(data)
            sys.exit(f"{kind.name}, seed {seed}, case {number}, kept in {path}:\n{error}")
    counts = f"{outcomes.total()} cases, {outcomes[True]} read, {outcomes[False]} refused"
    print(f"{kind.name}: {counts}, {time.monotonic() - started:.1f} s", flush=True)


def fuzz(seed: int, only: str | None, first: int, minutes: float | None, position: mmap.mmap) -> None:
    """Run all kinds: their cases once, or again and again for so many minutes."""
    faulthandler.enable()
    warnings.simplefilter("ignore")
    logging.disable()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="dcu-fuzz-") as directory:
        chosen = [kind for kind in kinds(Path(directory)) if only in (None, kind.name)]
        if not chosen:
            sys.exit(f"--only: no kind is called {only}")
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
        until = time.monotonic() + (float("inf") if minutes is None else 60 * minutes)
        while True:
            for kind in chosen:
                run(kind, seed, range(first, first + kind.cases), until, position)
            if minutes is None or time.monotonic() > until:
                return
            first += max(kind.cases for kind in chosen)


def main() -> None:
    """Run in a process of its own, so that a crash is reported with its case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9))
    parser.add_argument("--minutes", type=float, help="go on for so long")
    parser.add_argument("--only", metavar="KIND", help="inputs of one kind")
    parser.add_argument("--first", type=int, default=0, metavar="I", help="number of the first case")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    position = mmap.mmap(-1, 80)
    child = os.fork()
    if child == 0:
        fuzz(given.seed, given.only, given.first, given.minutes, position)
        return
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        print(f"killed by signal {-code}: {position[:].decode().strip()}, seed {given.seed}")
    sys.exit(code and 1)


if __name__ == "__main__":
    main()
