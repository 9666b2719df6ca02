"""Accuracy of each pipeline: measured on labeled images, or quoted from a card."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from dcu import store
from dcu.codec import codec_of
from dcu.data import Item
from dcu.evaluate.classifier import compare
from dcu.evaluate.pipeline import Pipeline
from dcu.tasks.classify import Classifier

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
    """Metrics of each pipeline, and where those of labels are from."""

    metrics: dict[Pipeline, Metrics] = field(default_factory=dict)
    source: str | None = None

    @property
    def sides(self) -> dict[str, int]:
        """To which side each format reduces images, by its name."""
        return {each.source: each.side for each in self.metrics if each.input == "format"}

    def of(self, pipeline: Pipeline) -> dict[str, Any]:
        """What is known of a pipeline, by name."""
        known = asdict(self.metrics.get(pipeline, Metrics()))
        return {name: value for name, value in known.items() if value is not None}


def accuracy_of(codec: store.Model, rows: Sequence[dict[str, Any]], source: str | None) -> Accuracy:
    """What rows of :func:`dcu.evaluate.classifier.compare` say, and of segmenters their cards."""
    metrics = {
        Pipeline.parse(row["name"]): Metrics(
            **{key: row[key] for key in ("bytes", "bpp", "top1", "top5", "macs")}, source=source
        )
        for row in rows
    }
    if network := store.default_network("segmenter", codec.fingerprint):
        stated = max(network.facts.figures, key=lambda each: each.dataset == STREETS, default=None)
        if stated:
            quote = f"quoted from the card: {stated.dataset}, {stated.count} images"
            metrics[Pipeline("latent", network.name)] = Metrics(miou=stated.miou, source=quote)
    return Accuracy(metrics, source)


def measured(
    codec: store.Model,
    dataset: str,
    items: Sequence[Item],
    show: Callable[[Sequence[Item]], Iterable[Item]],
    formats: Sequence[str],
    device: str,
    seconds: float | None = None,
) -> Accuracy:
    """Every way on the same labelled images, all in PyTorch; in so many seconds on as many of them, drawn at random."""
    network = store.find_network("classifier", codec.fingerprint)
    loaded = codec_of(codec.identity, device)
    if seconds is not None:
        items = [items[index] for index in np.random.default_rng(0).permutation(len(items))]
    shown = within(show(items), seconds)
    rows = compare(Classifier(network, loaded, device, engine="pytorch"), items, shown, formats)
    return accuracy_of(codec, rows, f"measured on {dataset}, {rows[0]['count']} of {len(items)} images")


def within(items: Iterable[Item], seconds: float | None) -> Iterator[Item]:
    """The items until so many seconds have passed, one at least; all where no number is given."""
    started = time.monotonic()
    for item in items:
        yield item
        if seconds is not None and time.monotonic() - started > seconds:
            return


def quoted(codec: store.Model) -> Accuracy:
    """What ``dcu eval --record`` wrote on the cards; nothing of labels where ``--baselines`` did not."""
    stated = store.find_network("classifier", codec.fingerprint).card.get("rivals")
    if not stated:
        return accuracy_of(codec, [], None)
    rows = stated["rows"]
    return accuracy_of(codec, rows, f"quoted from the card: {stated['dataset']}, {rows[0]['count']} images")
