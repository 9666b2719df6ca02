"""Model cards: JSON that anybody may have written, checked before anything else reads it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from dcu.schema import Between, Count, Matching, Name, Share

COUNTERPARTS = ("rgb-classifier", "rgb-segmenter")
"""Networks on decoded images, for comparison only."""
RENAMED = {"sees": "input"}
RENAMED_IN_LABELS = {"colour": "color"}
"""Keys of version 0.1, and what they are called now."""
MOST_BYTES = 2**23
"""Of a card; the largest of dcu's own has 70 kB, one of 50,000 custom classes 5 MB."""
MOST_DEPTH = 32
"""Of JSON inside JSON."""
MOST_COLORS = 256
"""Classes of a segmenter: indices of a palette."""

Input = Literal["latent", "decoded", "original"]
"""What networks are trained on."""
Digest = Annotated[str, Matching("[0-9a-f]{64}", "64 hexadecimal digits")]
Color = Annotated[str, Matching("#[0-9a-fA-F]{6}", "a color #rrggbb")]
Size = Annotated[float, Between(0, 2**53)]
Rate = Annotated[float, Between(1e-6, 1e3)]
"""Bits per pixel."""
MOST_POINTS = 64
"""Operating points of a codec, for each of which a card may state the mean rate."""


@dataclass(frozen=True)
class Label:
    """A class: its name, its WNID where it is ImageNet's, its color in segmentation maps."""

    label: str
    wnid: str | None = None
    color: Color | None = None


@dataclass(frozen=True)
class Metrics:
    """What was measured on a data set; None is for what does not exist."""

    dataset: str
    count: Count | None = None
    top1: Share | None = None
    top5: Share | None = None
    miou: Share | None = None
    agreement: Share | None = None
    against: dict[str, Any] | None = None


@dataclass(frozen=True)
class Row:
    """One way from file to label, as `dcu.evaluate.classifier.compare` measures it."""

    name: str
    side: Count
    count: Count
    bytes: Size
    bpp: Size
    top1: Share
    top5: Share
    macs: Count


@dataclass(frozen=True)
class Rivals:
    """A classifier beside other ways to a label."""

    dataset: str
    rows: Annotated[tuple[Row, ...], Between(1, 2**10)]


@dataclass(frozen=True)
class CodecMacs:
    """MACs per pixel of each part of a codec."""

    analysis: Count
    synthesis: Count
    context: Count


@dataclass(frozen=True)
class Card:
    """What dcu reads of a card; all else on it is for people.

    Of a codec of many operating points, ``rates`` are the mean bits per pixel of each, and ``coded_part`` is their mean
    share of what histograms estimate.
    """

    kind: Literal["codec", "classifier", "segmenter", "rgb-classifier", "rgb-segmenter"]
    fingerprint: Digest
    name: Name | None = None
    codec: Name | None = None
    sha256: Digest | None = None
    bytes: Count = 0
    parameters: Count = 0
    macs: Count = 0
    steps: Count = 0
    rate: Rate | None = None
    rates: Annotated[tuple[Rate, ...], Between(0, MOST_POINTS)] = ()
    coded_part: Annotated[tuple[Rate, ...], Between(0, MOST_POINTS)] = ()
    macs_per_pixel: CodecMacs | None = None
    temperature: Annotated[float, Between(1e-3, 1e3)] = 1.0
    int8: bool = True
    void: Annotated[int, Between(0, 255)] = 255
    input: Input = "latent"
    labels: tuple[Label, ...] = ()
    figures: tuple[Metrics, ...] = ()
    rivals: Rivals | None = None

    def __post_init__(self) -> None:
        if len(self.coded_part) not in (0, len(self.rates)):
            raise ValueError("coded_part is not of as many operating points as rates")
        if self.kind in ("classifier", "segmenter", "rgb-segmenter") and not self.labels:
            raise ValueError("labels are missing")
        if self.kind.endswith("segmenter") and len(self.labels) > MOST_COLORS:
            raise ValueError(f"more than {MOST_COLORS} labels")
        if self.kind == "segmenter" and not all(label.color for label in self.labels):
            raise ValueError("labels without color")


def parse(text: bytes) -> dict[str, Any]:
    """All that stands on a card, under today's keys; raises ValueError.

    What dcu reads of it is ``build(Card, parse(text), others=True)``.
    """
    raw = parse_json(text)
    if not isinstance(raw, dict):
        raise ValueError("not an object")
    return converted(raw)


def parse_json(text: bytes) -> Any:
    """Strict JSON: UTF-8, no key twice, finite numbers, at most ``MOST_DEPTH`` deep; raises ValueError."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key twice")
        return found

    def finite(number: str) -> float:
        value = float(number)
        if not math.isfinite(value):
            raise ValueError(f"{number}: not a finite number")
        return value

    if len(text) > MOST_BYTES:
        raise ValueError(f"larger than {MOST_BYTES} bytes")
    try:
        parsed = json.loads(text.decode("utf-8"), object_pairs_hook=unique, parse_float=finite, parse_constant=finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    layer = [parsed]
    for _ in range(MOST_DEPTH):
        layer = [part for value in layer for part in parts_of(value)]
        if not layer:
            return parsed
    raise ValueError("nested too deeply")


def parts_of(value: Any) -> Iterable[Any]:
    """What a list or an object holds."""
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def converted(card: dict[str, Any]) -> dict[str, Any]:
    """A card with the keys of version 0.1 replaced."""
    card = {RENAMED.get(key, key): value for key, value in card.items()}
    if isinstance(labels := card.get("labels"), list):
        card["labels"] = [with_new_keys(label) if isinstance(label, dict) else label for label in labels]
    return card


def with_new_keys(label: dict[str, Any]) -> dict[str, Any]:
    """A label with the keys of version 0.1 replaced."""
    return {RENAMED_IN_LABELS.get(key, key): value for key, value in label.items()}


def written(card: dict[str, Any]) -> bytes:
    """A card's file, readable by people; bytes of names that are no text are written as JSON escapes them."""
    text = json.dumps(without_infinities(card), indent=1, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8", "backslashreplace")


def without_infinities(value: Any) -> Any:
    """A value with null in the place of the floats that JSON does not know."""
    if isinstance(value, dict):
        return {key: without_infinities(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_infinities(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
