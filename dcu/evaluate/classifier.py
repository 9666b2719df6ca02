"""Top-1 and top-5 on real files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle, islice

import numpy as np
import torch
from torch.nn import functional as F

from dcu import store
from dcu.bitstream import Stream
from dcu.cards import DIGITS, Baseline, Baselines, share_error
from dcu.codec import Codec
from dcu.data import Item
from dcu.errors import InvalidInputError, UsageError
from dcu.evaluate.baselines import FORMATS, PNG, at_side
from dcu.evaluate.cost import codec_cost, macs, path_cost
from dcu.evaluate.pipeline import Pipeline
from dcu.geometry import CROP, quality_of
from dcu.image import ImageArray, standard_crop
from dcu.labels import IMAGENET, Label, indices_by_key, label_set
from dcu.tasks.classify import Classifier
from dcu.tasks.rgb import RgbClassifier

BATCH = 32
BINS = 15
SIDES = (224, 176, 128, 112, 96, 80, 64, 48, 32)
"""Sizes to which a baseline may reduce an image."""


def class_numbers(classifier: Classifier, items: Sequence[Item]) -> list[int]:
    """The class of each item by the directory that holds it: a WNID, or a label of the network's.

    Raises
    ------
    InvalidInputError
        A directory that is no class of the network.
    """
    return numbers_among(classifier.labels, classifier.name, items)


def numbers_among(labels: Sequence[Label], name: str, items: Sequence[Item]) -> list[int]:
    """The same among the labels of a network of that name."""
    numbers = {label.label: index for index, label in enumerate(labels)} | indices_by_key(labels)
    if missing := {item.label for item in items} - set(numbers):
        if "" in missing:
            raise InvalidInputError("images must be in directories named by their class")
        raise InvalidInputError(f"'{min(missing)}': directory is not a class of {name}, by WNID (n02123045) or label")
    return [numbers[item.label] for item in items]


def standard_view(image: ImageArray) -> torch.Tensor:
    """What the field's protocol shows of an image: (1, 224, 224, 3) uint8."""
    return torch.from_numpy(standard_crop(image).copy())[None]


def check_imagenet(classifier: Classifier) -> None:
    """Raise UsageError where a network does not tell the classes of the RGB network."""
    if classifier.model.card.labels != IMAGENET:
        raise UsageError(f"{classifier.name}: has custom classes; the RGB network predicts the 1000 ImageNet classes")


def rgb_numbers(classifier: Classifier, items: Iterable[Item]) -> list[int]:
    """The RGB network's first answer to each image, by the field's protocol; of any images, labeled or not.

    Raises
    ------
    UsageError, UnavailableError
        A network of other classes; no RGB network.
    """
    check_imagenet(classifier)
    rgb = RgbClassifier(classifier.device)
    return [int(rgb(standard_view(item.image()).to(rgb.device)).logits.argmax()) for item in items]


@dataclass(frozen=True)
class Outputs:
    """Outputs of a classifier on a data set: logits (n, classes), true classes (n,), mean bytes and bpp of files."""

    logits: torch.Tensor
    numbers: torch.Tensor
    bytes: float
    bpp: float


def stream_of(codec: Codec, item: Item, native: bool, point: int | None = None) -> Stream:
    """An item's bitstream as it is, or an image's: of its center 224 of short side 256, or with ``native`` of all.

    ``point``: an operating point of the networks; by default the codec's own for people.

    Raises
    ------
    InvalidInputError, UnavailableError
        A broken image or bitstream; a bitstream of another codec; each with the item's name.
    """
    if not item.is_bitstream:
        image = item.image()
        shown = image if native else standard_crop(image)
        if point is None:
            return codec.read(codec.compress(shown))
        quality, machines = quality_of(point)
        return codec.read(codec.compress(shown, quality=quality, machines=machines))
    with item.named():
        return codec.read(item.read())


def run_dataset(
    classifier: Classifier,
    numbers: Sequence[int],
    progress: Iterable[Item],
    native: bool,
    points: Sequence[int] = (),
) -> Outputs:
    """The field's protocol: center 224 of short side 256, compressed to a whole file, read back, classified.

    ``numbers`` are the right classes of the items that ``progress`` gives. With ``native`` an image is compressed as
    it is; bitstreams always are what they are. ``points`` are operating points of the networks, image by image in turn;
    by default the codec's own.
    """
    size, bpp, logits = 0, 0.0, []
    remaining, turn = iter(progress), cycle(points or (None,))
    while batch := list(islice(remaining, BATCH)):
        streams = [stream_of(classifier.codec, item, native, point) for item, point in zip(batch, turn, strict=False)]
        size += sum(stream.size for stream in streams)
        bpp += sum(8 * stream.size / (stream.full.width * stream.full.height) for stream in streams)
        logits.append(classifier.through(classifier.logits, classifier.look(streams)))
    return Outputs(torch.cat(logits), torch.tensor(numbers), size / len(numbers), bpp / len(numbers))


def ranks(scores: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """(n,) places of the right classes ``numbers`` (n,) among ``scores`` (n, classes); 0 is first.

    What ties with the right class, or is no number, is placed before it: a prediction is correct only where its score
    is the highest alone.
    """
    right = scores.gather(1, numbers[:, None])
    return (~(scores < right)).sum(1) - 1


@dataclass(frozen=True)
class ClassifierMetrics:
    """Metrics on ``count`` files.

    ``top1``, ``top5`` as fractions of 1, see :func:`ranks`, with their standard errors; ``ece``, see
    :func:`calibration_error`; means of ``bytes`` and ``bpp``.
    """

    count: int
    top1: float
    top1_se: float
    top5: float
    top5_se: float
    ece: float
    bytes: float
    bpp: float


def evaluate(outputs: Outputs, temperature: float) -> ClassifierMetrics:
    """Metrics of a data set."""
    places = ranks(outputs.logits, outputs.numbers)
    confidence = torch.softmax(outputs.logits / temperature, 1).amax(1)
    return ClassifierMetrics(
        count=len(places),
        **share("top1", float((places < 1).float().mean()), len(places)),
        **share("top5", float((places < 5).float().mean()), len(places)),
        ece=round(calibration_error(confidence, places < 1), 4),
        bytes=round(outputs.bytes, 1),
        bpp=round(outputs.bpp, 5),
    )


def share(name: str, value: float, count: int) -> dict[str, float]:
    """A fraction of ``count`` images and its standard error, by names."""
    return {name: round(value, DIGITS), f"{name}_se": share_error(value, count)}


def calibration_error(confidence: torch.Tensor, right: torch.Tensor) -> float:
    """Expected calibration error of 15 equal bins: mean of |accuracy - confidence|, weighted by images per bin.

    Guo et al., ICML 2017 (arXiv 1706.04599). ``confidence`` (n,) in [0, 1], ``right`` (n,) bool.
    """
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    excess = torch.zeros(BINS).index_add_(0, bins, right.float() - confidence)
    return float(excess.abs().sum()) / len(confidence)


def best_temperature(outputs: Outputs) -> float:
    """The temperature at which a data set's right classes are most probable (Guo et al.), within 1 %.

    Of n images one more counts as any class: where all n are right, the next one may still be wrong.
    """
    ladder, smoothing = 1.01 ** torch.arange(-160, 161), 1 / (len(outputs.numbers) + 1)
    losses = [float(F.cross_entropy(outputs.logits / t, outputs.numbers, label_smoothing=smoothing)) for t in ladder]
    return round(float(ladder[int(np.argmin(losses))]), 3)


@dataclass(frozen=True)
class Comparison:
    """What a pipeline reached: means over ``count`` files, fractions of 1 and their standard errors, median ms."""

    pipeline: Pipeline
    count: int
    bytes: float
    bpp: float
    top1: float
    top1_se: float
    top5: float
    top5_se: float
    macs: int
    ms: float

    def row(self) -> dict[str, object]:
        """The same for a table."""
        values = asdict(self)
        del values["pipeline"]
        return {"name": self.pipeline.name, "side": self.pipeline.side} | values

    def baseline(self) -> Baseline:
        """The same for a card, of pipelines with the RGB network."""
        own = {key: value for key, value in vars(self).items() if key not in ("pipeline", "count", "ms")}
        return Baseline(**vars(self.pipeline), **own)


@dataclass
class Contender:
    """A pipeline, and what it has reached."""

    pipeline: Pipeline
    macs: int
    label: Callable[[bytes], torch.Tensor]  # a file to its scores, (classes,)
    sizes: list[int] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)  # of the right class, as :func:`ranks` says
    milliseconds: list[float] = field(default_factory=list)

    def enter(self, data: bytes, number: int) -> None:
        """Classify a file of class ``number``."""
        started = time.perf_counter()
        scores = self.label(data)
        self.milliseconds.append(1e3 * (time.perf_counter() - started))
        self.sizes.append(len(data))
        self.ranks.append(int(ranks(scores[None], torch.tensor([number]))))

    def result(self) -> Comparison:
        """The metrics; the time is a median after a few files of warming up."""
        ranks, size = np.array(self.ranks), float(np.mean(self.sizes))
        return Comparison(
            self.pipeline,
            count=len(ranks),
            bytes=round(size, 1),
            bpp=round(8 * size / CROP**2, 4),
            **share("top1", float((ranks < 1).mean()), len(ranks)),
            **share("top5", float((ranks < 5).mean()), len(ranks)),
            macs=self.macs,
            ms=round(float(np.median(self.milliseconds[len(ranks) // 10 :])), 1),
        )


def pick(contenders: Sequence[Contender], most: int) -> Contender:
    """The one that names most within so many bytes over all images; else the one of fewest bytes."""
    within = [contender for contender in contenders if sum(contender.sizes) <= most]
    if within:
        return max(within, key=lambda contender: contender.ranks.count(0))
    return min(contenders, key=lambda contender: sum(contender.sizes))


def merged(before: Sequence[Baselines], now: Baselines) -> tuple[Baselines, ...]:
    """Baselines beside the others of a card, with those measured earlier on the same images of further formats."""
    others = [each for each in before if not now.replaces(each)]
    measured = {row.source for row in now.rows if row.input == "format"}
    kept = [
        row
        for each in before
        if now.replaces(each) and each.count == now.count
        for row in each.rows
        if row.input == "format" and row.source not in measured
    ]
    return (*others, replace(now, rows=(*now.rows[:-1], *kept, now.rows[-1])))


def compare(
    codec: Codec,
    classifiers: Sequence[Classifier],
    items: Sequence[Item],
    progress: Iterable[Item],
    formats: Sequence[str],
    tuned: store.Model | None = None,
    quality: int | None = None,
    machines: bool = False,
) -> list[Comparison]:
    """Networks on latents, and the RGB network on other files of the same images and as many bytes each.

    ``classifiers`` read the codec's latents; a codec may have none. ``quality`` is its operating point; ``machines``:
    of streams for machines.

    Every format may reduce the image first to one of ``SIDES``, enlarged again (bicubic) before the network: what a
    clever user would do. Of the sides that take no more bytes than dcu on the whole, the one that names most is shown;
    where none does, the smallest. ``progress`` gives the items, or the first of them.

    Returns
    -------
    list of Comparison
        Of each of the ``classifiers``, the RGB network on dcu's decoded images (and ``tuned``, one that was fine-tuned
        on such images), on each format, and on the original (PNG): ``macs`` are those of the networks, entropy
        decoding's and the synthesis included; ``ms`` from file to label, one at a time.

    Raises
    ------
    UsageError, UnavailableError
        A network of other classes; no RGB network.
    """
    if classifiers:
        numbers = class_numbers(classifiers[0], items)
    else:
        numbers = numbers_among(label_set(IMAGENET), "the RGB network", items)
    for classifier in classifiers:
        check_imagenet(classifier)
    rgb = RgbClassifier(codec.device)
    cost = macs(rgb.network, torch.zeros(1, 3, CROP, CROP))
    per_pixel = codec_cost(codec, quality, machines)

    def look(image: ImageArray, network: RgbClassifier = rgb) -> torch.Tensor:
        return network(torch.from_numpy(image.copy())[None].to(rgb.device)).logits[0].cpu()

    def by_format(name: str) -> Callable[[bytes], torch.Tensor]:
        return lambda data: look(FORMATS[name].decode(data, CROP, CROP))

    def latent(classifier: Classifier) -> Contender:
        def label(data: bytes) -> torch.Tensor:
            return classifier.probabilities(classifier.look([codec.read(data)]))[0]

        return Contender(Pipeline("latent", classifier.name), path_cost(classifier, quality, machines), label)

    rebuilt = (per_pixel.context + per_pixel.synthesis) * CROP**2 + cost
    decoded = Contender(Pipeline("decoded", codec.name), rebuilt, lambda data: look(codec.decode(data)))
    ours = [*map(latent, classifiers), decoded]
    if tuned is not None:
        weights = RgbClassifier(codec.device, tuned.weights())
        pipeline = Pipeline("decoded", codec.name, tuned=True)
        ours.append(Contender(pipeline, rebuilt, lambda data: look(codec.decode(data), weights)))
    original = Contender(Pipeline("original"), cost, lambda data: look(PNG.decode(data, CROP, CROP)))
    theirs = {
        (name, side): Contender(Pipeline("format", name, side), cost, by_format(name))
        for name in formats
        for side in SIDES
    }
    for item, number in zip(progress, numbers, strict=False):  # progress may end early
        image = standard_crop(item.image())
        data = codec.compress(image, quality=quality, machines=machines)
        for contender in ours:
            contender.enter(data, number)
        original.enter(PNG.encode(image, 1, 1.0), number)
        for (name, side), contender in theirs.items():
            contender.enter(FORMATS[name].fit(at_side(image, side), len(data)), number)
    best = [pick([theirs[name, side] for side in SIDES], sum(decoded.sizes)) for name in formats]
    return [contender.result() for contender in (*ours, *best, original)]
