"""Model cards: JSON that anybody may have written, checked before anything else reads it (docs/reference/cards.md)."""

from __future__ import annotations

import functools
import json
import math
import operator
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Annotated, Any, Literal

from dcu.geometry import CROP
from dcu.labels import SETS, Label, label_set
from dcu.schema import Between, Count, Matching, Name, OneOf, Share, build

SCHEMA = 2
"""Of the cards that this version writes. Version 1, of dcu 0.1, had no key of that name: :mod:`dcu.old_cards`."""
COUNTERPARTS = ("rgb-classifier", "rgb-segmenter", "resnet")
"""Networks on images, for comparison only."""
MOST_BYTES = 2**23
"""Of a card; one of 50,000 custom classes has 5 MB."""
MOST_DEPTH = 32
"""Of JSON inside JSON."""
MOST_COLORS = 256
"""Classes of a segmenter: indices of a palette."""
DIGITS = 5
"""Of fractions on cards."""

Kind = Literal["codec", "classifier", "segmenter", "rgb-classifier", "rgb-segmenter", "resnet"]
Input = Literal["latent", "decoded", "original"]
"""What networks are trained on."""
Digest = Annotated[str, Matching("[0-9a-f]{64}", "64 hexadecimal digits")]
Size = Annotated[float, Between(0, 2**53)]
Rate = Annotated[float, Between(1e-6, 1e3)]
"""Bits per pixel."""
MOST_POINTS = 64
"""Operating points of a codec."""
Signed = Annotated[float, Between(-(2**53), 2**53)]


@dataclass(frozen=True)
class CodecMacs:
    """MACs per pixel of each part of a codec."""

    analysis: Count
    synthesis: Count
    context: Count


@dataclass(frozen=True)
class Rates:
    """Mean rate of whole files at each operating point of a codec, over ``count`` images of a data set.

    ``of_estimate``: that rate in proportion to what histograms of the symbols estimate.
    """

    dataset: str
    count: Count
    bpp: Annotated[tuple[Rate, ...], Between(1, MOST_POINTS)]
    of_estimate: Annotated[tuple[Rate, ...], Between(1, MOST_POINTS)]

    def __post_init__(self) -> None:
        if len(self.bpp) != len(self.of_estimate):
            raise ValueError("bpp and of_estimate differ in length")


@dataclass(frozen=True)
class Difference:
    """How much better a codec is than another format at equal bits: PSNR in dB, MS-SSIM."""

    psnr: Signed | None = None
    ms_ssim: Signed | None = None


@dataclass(frozen=True)
class Result:
    """What was measured on a data set of ``count`` images; ``*_se`` is a standard error.

    ``machines``: of streams for machines. Means over files: ``bytes``, ``bpp``, ``psnr`` in dB, ``ms_ssim``. Fractions
    of 1: ``top1``, ``top5``; ``agreement`` of the predicted label with that of the RGB network on the original;
    ``miou``, ``pixel_accuracy``, ``iou`` of each class, ``by_distance``: mIoU at so many pixels from a boundary.
    ``ece``: expected calibration error at ``temperature``. ``against``: other formats at equal bits. ``macs``: of a
    classifier and the entropy decoding of a 224x224 image.
    """

    dataset: str
    count: Count
    date: str | None = None
    quality: Annotated[int, Between(0, MOST_POINTS - 1)] | None = None
    machines: bool = False
    engine: str | None = None
    bytes: Size | None = None
    bpp: Size | None = None
    bpp_se: Size | None = None
    psnr: Signed | None = None
    psnr_se: Size | None = None
    ms_ssim: Signed | None = None
    ms_ssim_se: Size | None = None
    top1: Share | None = None
    top1_se: Share | None = None
    top5: Share | None = None
    top5_se: Share | None = None
    agreement: Share | None = None
    agreement_se: Share | None = None
    ece: Share | None = None
    temperature: Size | None = None
    macs: Count | None = None
    miou: Share | None = None
    miou_se: Share | None = None
    pixel_accuracy: Share | None = None
    iou: dict[str, Share | None] = field(default_factory=dict)
    by_distance: dict[str, Share | None] = field(default_factory=dict)
    against: dict[str, Difference] = field(default_factory=dict)

    def replaces(self, other: Result) -> bool:
        """Whether it measures anew what another states: the same data set, engine, operating point and kind."""

        def key(result: Result) -> tuple[object, ...]:
            return result.dataset, result.engine, result.quality, result.machines, result.agreement is None

        return key(self) == key(other)


@dataclass(frozen=True)
class BdRate:
    """Mean difference of rate in percent of a codec against another format at equal PSNR and at equal MS-SSIM."""

    dataset: str
    count: Count
    against: str
    psnr: Signed | None = None
    ms_ssim: Signed | None = None
    machines: bool = False

    def replaces(self, other: BdRate) -> bool:
        """Whether it measures anew what another states."""
        return (self.dataset, self.against, self.machines) == (other.dataset, other.against, other.machines)


@dataclass(frozen=True)
class Baseline:
    """The RGB network on other files of the same images, see :class:`dcu.evaluate.pipeline.Pipeline`."""

    input: Literal["decoded", "format", "original"]
    side: Count
    bytes: Size
    bpp: Size
    top1: Share
    top1_se: Share
    top5: Share
    top5_se: Share
    macs: Count
    source: str = ""
    tuned: bool = False


@dataclass(frozen=True)
class Baselines:
    """Baselines of about as many bytes as a classifier's bitstreams.

    ``quality``: the operating point of these, of codecs of many; ``machines``: they are streams for machines.
    """

    dataset: str
    count: Count
    rows: Annotated[tuple[Baseline, ...], Between(1, 2**10)]
    quality: Annotated[int, Between(0, MOST_POINTS - 1)] | None = None
    machines: bool = False

    def replaces(self, other: Baselines) -> bool:
        """Whether it measures anew what another states: beside the same bitstreams."""
        return (self.dataset, self.quality, self.machines) == (other.dataset, other.quality, other.machines)


@dataclass(frozen=True)
class Sample:
    """Images of a data set."""

    dataset: str
    count: Count


@dataclass(frozen=True)
class Origin:
    """Initial weights: of a model (``name``), or of a run after so many ``steps``; in a mean its ``share``."""

    sha256: Digest
    name: Name | None = None
    steps: Count | None = None
    share: Share | None = None


@dataclass(frozen=True)
class Training:
    """How weights came to be.

    Parameters
    ----------
    recipe : str
        The recipe's name.
    settings : dict
        Its values; for people, and to recognize a run.
    images : dict
        How many images of each data set.
    start : tuple of Origin
        The initial weights: checkpoints or a model.
    mean_of : tuple of Origin
        The models whose weights were averaged.
    test_images : dict
        Of these, the data sets that consist, wholly or in part, of validation images of ILSVRC2012 or of the NIPS 2017
        adversarial competition.
    validation_duplicates : dict
        How many photographs of a data set are also in validation sets of docs/data.md.
    """

    recipe: str = ""
    settings: dict[str, object] = field(default_factory=dict)
    seed: Count | None = None
    steps: Count = 0
    start: tuple[Origin, ...] = ()
    mean_of: tuple[Origin, ...] = ()
    rgb_share: Share = 0.0
    teacher: str = ""
    minutes: Size | None = None
    images: dict[str, Count] = field(default_factory=dict)
    test_images: dict[str, Count] = field(default_factory=dict)
    validation_duplicates: dict[str, Count] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Images of all data sets."""
        return sum(self.images.values())


def largest(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Of each data set the largest number of images."""
    return dict(functools.reduce(operator.or_, map(Counter, counts)))


@dataclass(frozen=True)
class Card:
    """A model card.

    ``machines``: a codec makes streams for machines, too, whose rates are ``machine_rates``. ``stride_in``: the
    convolution of a ResNet's bottlenecks that reduces the resolution.
    ``license`` is that of the weights; empty where none is stated, as on the cards of newly trained models.
    """

    kind: Kind
    fingerprint: Digest
    name: Name | None = None
    codec: Name | None = None
    rate: Rate | None = None
    rates: Rates | None = None
    machine_rates: Rates | None = None
    machines: bool = False
    input: Input = "latent"
    network: Literal["efficientnet", "resnet"] = "efficientnet"
    stride_in: Literal["3x3", "1x1"] = "3x3"
    labels: Annotated[str, OneOf(SETS)] | tuple[Label, ...] = ()
    void: Annotated[int, Between(0, 255)] = 255
    temperature: Annotated[float, Between(1e-3, 1e3)] = 1.0
    calibration: Sample | None = None
    int8: bool = True
    license: str = ""
    parameters: Count = 0
    bytes: Count = 0
    sha256: Digest | None = None
    macs: Count = 0
    macs_per_pixel: CodecMacs | None = None
    training: Training | None = None
    results: tuple[Result, ...] = ()
    bd_rates: tuple[BdRate, ...] = ()
    baselines: tuple[Baselines, ...] = ()

    def __post_init__(self) -> None:
        if self.kind in ("classifier", "segmenter", "rgb-segmenter", "resnet") and not self.labels:
            raise ValueError("labels are missing")
        if self.kind.endswith("segmenter") and len(self.classes) > MOST_COLORS:
            raise ValueError(f"more than {MOST_COLORS} labels")
        if self.kind == "segmenter" and not all(label.color for label in self.classes):
            raise ValueError("labels without color")

    @property
    def points(self) -> int:
        """Operating points of a codec, as far as the card states them."""
        return len(self.rates.bpp) if self.rates else MOST_POINTS if self.kind == "codec" and self.rate is None else 1

    def result_beside(self, stated: Baselines) -> Result | None:
        """The network's own result, in PyTorch, on the bitstreams that baselines compare with; None if not measured."""
        wanted = (stated.dataset, stated.quality, stated.machines, "pytorch")
        found = (each for each in self.results if (each.dataset, each.quality, each.machines, each.engine) == wanted)
        return next((each for each in found if each.top1 is not None), None)

    def path_macs(self, result: Result, codec: Card) -> int:
        """MACs from the bitstream of a 224x224 image to its label; a result states those at an operating point."""
        context = codec.macs_per_pixel.context if codec.macs_per_pixel else 0
        return result.macs or self.macs + context * CROP**2

    @property
    def classes(self) -> tuple[Label, ...]:
        """The labels, those of a label set by its name."""
        return label_set(self.labels) if isinstance(self.labels, str) else self.labels


def parse(text: bytes) -> Card:
    """The card of a file, of version 0.1 too; raises ValueError."""
    from dcu import old_cards  # imports this module

    raw = parse_json(text)
    if not isinstance(raw, dict):
        raise ValueError("not an object")
    if "schema" not in raw:
        return old_cards.parse(raw)
    schema = raw.pop("schema")
    if schema != SCHEMA or isinstance(schema, bool):
        newer = type(schema) is int and schema > SCHEMA
        raise ValueError("written by a newer version of dcu" if newer else "unknown schema")
    raw.pop("preview", None)  # of codecs that were trained before codec-2 was released
    return build(Card, raw)


def parse_json(text: bytes) -> Any:
    """Strict JSON: UTF-8, no key twice, finite numbers, at most ``MOST_DEPTH`` deep; raises ValueError."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("duplicate key")
        return found

    def finite(number: str) -> float:
        value = float(number)
        if not math.isfinite(value):
            raise ValueError(f"{number} is not finite")
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


def plain(value: object) -> Any:
    """A value of a card as JSON has it: dataclasses as objects, without fields that have their default."""
    if is_dataclass(value):
        return {f.name: plain(own) for f in fields(value) if (own := getattr(value, f.name)) != default_of(f)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def default_of(declared: Field[Any]) -> Any:
    """The default of a dataclass's field; MISSING where it has none."""
    return declared.default if declared.default_factory is MISSING else declared.default_factory()


def facts(card: Card) -> dict[str, object]:
    """All that a card states, as its file has it."""
    first = {name: value for name in ("name", "kind", "license") if (value := getattr(card, name))}
    return {"schema": SCHEMA, **first, **plain(card)}


def written(card: Card) -> bytes:
    """A card's file, readable by people; bytes of names that are no text are written as JSON escapes them."""
    text = json.dumps(facts(card), indent=1, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8", "backslashreplace")


def share_error(share: float, count: int) -> float:
    """The standard error of a fraction of ``count`` images: sqrt(p (1 - p) / n)."""
    return round(math.sqrt(share * (1 - share) / count), DIGITS) if count else 0.0


def held_out(images: dict[str, int]) -> str:
    """The name, in results, of the held-out part of a training's images."""
    return f"{', '.join(images)} (held out)"
