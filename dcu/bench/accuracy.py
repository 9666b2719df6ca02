"""How often each way is right: measured on labelled images, or quoted from a card."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dcu import store
from dcu.codec import codec_of
from dcu.data import Item
from dcu.evaluate.baselines import FORMATS
from dcu.evaluate.classifier import compare
from dcu.tasks.classify import Classifier

STREETS = "camvid-val"
"""The data set of which segmenters' metrics are quoted, where they have any."""
RIVAL = re.compile(f"RGB on ({'|'.join(FORMATS)}) ")


@dataclass(frozen=True)
class Accuracy:
    """Figures by the name of the way, to what each format reduced the image, and where those of labels are from."""

    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    sides: dict[str, int] = field(default_factory=dict)
    source: str | None = None


def accuracy_of(codec: store.Model, rows: Sequence[dict[str, Any]], source: str | None) -> Accuracy:
    """What rows of :func:`dcu.evaluate.classifier.compare` say, and of segmenters their cards."""
    metrics = {
        row["name"]: {key: row[key] for key in ("bytes", "bpp", "top1", "top5", "macs")} | {"source": source}
        for row in rows
    }
    if network := store.default_network("segmenter", codec.fingerprint):
        stated = max(network.facts.figures, key=lambda each: each.dataset == STREETS, default=None)
        if stated:
            told = f"quoted from the card: {stated.dataset}, {stated.count} images"
            metrics[network.name] = {"miou": stated.miou, "source": told}
    sides = {found[1]: int(row["side"]) for row in rows if (found := RIVAL.match(row["name"]))}
    return Accuracy(metrics, sides, source)


def measured(
    codec: store.Model,
    dataset: str,
    items: Sequence[Item],
    show: Callable[[Sequence[Item]], Iterable[Item]],
    formats: Sequence[str],
    device: str,
) -> Accuracy:
    """Every way on the same labelled images, all in PyTorch."""
    network = store.find_network("classifier", codec.fingerprint)
    loaded = codec_of(codec.identity, device)
    rows = compare(Classifier(network, loaded, device, engine="pytorch"), items, show(items), formats)
    return accuracy_of(codec, rows, f"measured on {dataset}, {len(items)} images")


def quoted(codec: store.Model) -> Accuracy:
    """What ``dcu eval --record`` wrote on the cards; nothing of labels where ``--rivals`` did not."""
    stated = store.find_network("classifier", codec.fingerprint).card.get("rivals")
    if not stated:
        return accuracy_of(codec, [], None)
    rows = stated["rows"]
    return accuracy_of(codec, rows, f"quoted from the card: {stated['dataset']}, {rows[0]['count']} images")
