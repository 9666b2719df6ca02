"""Accuracy of each pipeline: measured on labeled images, or quoted from a card."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from dcu import store
from dcu.bench.points import OperatingPoint
from dcu.cards import Baseline, Result
from dcu.codec import codec_of
from dcu.data import Item
from dcu.evaluate.classifier import Comparison, compare
from dcu.evaluate.pipeline import Pipeline
from dcu.geometry import CROP
from dcu.tasks.classify import Classifier

T = TypeVar("T")
STREETS = "camvid-val"
"""The data set of which segmenters' metrics are quoted, where they have any."""


@dataclass(frozen=True)
class Metrics:
    """What is known of a pipeline: of labels bytes, bpp, top-1, top-5 and MACs, of segmentation maps mIoU."""

    bytes: float | None = None
    bpp: float | None = None
    top1: float | None = None
    top5: float | None = None
    macs: int | None = None
    miou: float | None = None
    source: str | None = None  # where it is from


@dataclass(frozen=True)
class Accuracy:
    """Metrics of each pipeline at an operating point, and where those of labels are from."""

    point: OperatingPoint
    metrics: dict[Pipeline, Metrics] = field(default_factory=dict)
    source: str | None = None

    @property
    def sides(self) -> dict[str, int]:
        """To which side each format reduces images, by its name."""
        return {each.source: each.side for each in self.metrics if each.input == "format"}

    def of(self, pipeline: Pipeline) -> Metrics:
        """What is known of a pipeline."""
        return self.metrics.get(pipeline, Metrics())

    def curve(self, pipeline: Pipeline) -> str:
        """The curve that a pipeline is on: a codec of many operating points has one of its own."""
        own = pipeline.input == "decoded" and self.point.quality is not None
        return pipeline.name if own else pipeline.curve


def accuracy_of(point: OperatingPoint, metrics: dict[Pipeline, Metrics], source: str | None) -> Accuracy:
    """What is known of labels, and of segmenters what their cards say."""
    if network := store.default_network("segmenter", point.model.fingerprint):
        here = [each for each in network.card.results if (each.quality, each.machines) == (point.quality, False)]
        stated = max(here, key=lambda each: each.dataset == STREETS, default=None)
        if stated:
            quote = f"quoted from the card: {stated.dataset}, {stated.count} images"
            metrics = metrics | {Pipeline("latent", network.name): Metrics(miou=stated.miou, source=quote)}
    return Accuracy(point, metrics, source)


def measured(
    point: OperatingPoint,
    dataset: str,
    items: Sequence[Item],
    show: Callable[[Sequence[Item]], Iterable[Item]],
    formats: Sequence[str],
    device: str,
    seconds: float | None = None,
) -> Accuracy:
    """Every way on the same labeled images, all in PyTorch; in so many seconds on as many of them, drawn at random."""
    network = store.default_network("classifier", point.model.fingerprint)
    codec = codec_of(point.model.identity, device, "float32")
    classifiers = [Classifier(network, codec, device, engine="pytorch")] if network else []
    if seconds is not None:
        items = [items[index] for index in np.random.default_rng(0).permutation(len(items))]
    shown = within(show(items), seconds)
    rows = compare(codec, classifiers, items, shown, formats, quality=point.quality)
    source = f"measured on {dataset}, {rows[0].count} of {len(items)} images"
    return accuracy_of(point, {row.pipeline: metrics_of(row, row.macs, source) for row in rows}, source)


def within(items: Iterable[T], seconds: float | None) -> Iterator[T]:
    """The items until so many seconds have passed, one at least; all where no number is given."""
    started = time.monotonic()
    for item in items:
        yield item
        if seconds is not None and time.monotonic() - started > seconds:
            return


def quoted(point: OperatingPoint) -> Accuracy:
    """What ``dcu eval --record`` wrote on the cards; nothing of labels where ``dcu eval baselines`` did not."""
    codec = point.model
    network = store.default_network("classifier", codec.fingerprint)
    wanted = (point.quality, False)
    stated = network and next((b for b in network.card.baselines if (b.quality, b.machines) == wanted), None)
    if not network or not stated:
        return accuracy_of(point, {}, None)
    source = f"quoted from the card: {stated.dataset}, {stated.count} images"
    metrics = {
        Pipeline(row.input, row.source, row.side, row.tuned): metrics_of(row, row.macs, source) for row in stated.rows
    }
    if result := network.card.result_beside(stated):
        own = metrics_of(result, network.card.path_macs(result, codec.card), source)
        metrics = {Pipeline("latent", network.name): own} | metrics
    return accuracy_of(point, metrics, source)


def metrics_of(row: Comparison | Baseline | Result, macs: int, source: str) -> Metrics:
    """Bytes and accuracy of labels."""
    size = row.bpp * CROP**2 / 8 if row.bytes is None and row.bpp is not None else row.bytes  # cards of 0.1 lack bytes
    return Metrics(size, row.bpp, row.top1, row.top5, macs, source=source)
