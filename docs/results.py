"""What the cards of the released models state, as the CSV files of results/ (`make readme`).

Fractions are of 1; ``*_se`` is a standard error; an empty cell is what was not measured.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from dcu.cards import Baseline, Card, Difference, Result, parse
from dcu.evaluate.pipeline import Pipeline

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
Value = str | float | None
Row = dict[str, Value]
MEASURED = {
    "codec": ("quality", "machines", "bytes", "bpp", "bpp_se", "psnr", "psnr_se", "ms_ssim", "ms_ssim_se"),
    "classifier": (
        *("quality", "machines", "engine", "bytes", "bpp"),
        *("top1", "top1_se", "top5", "top5_se", "agreement", "agreement_se", "ece", "temperature"),
    ),
    "segmenter": ("quality", "machines", "bpp", "miou", "miou_se", "pixel_accuracy"),
}
"""Columns of each kind's results."""
PARTS = ("analysis", "synthesis", "context")
AGAINST = ("webp", "avif")
"""Formats that codecs are compared with at equal bits."""


def cards() -> list[Card]:
    """The cards of the released models, by kind and rate."""
    return [parse(path.read_bytes()) for path in sorted((ROOT / "models").glob("*/card.json"))]


def measured(cards: Sequence[Card], kind: str) -> Iterator[Row]:
    """One row per result of the models of a kind."""
    codecs = by_fingerprint(cards)
    for card, result in results(cards, kind):
        values = asdict(result)
        row: Row = {"name": card.name, "dataset": result.dataset, "count": result.count, "date": result.date}
        row |= {column: values[column] for column in MEASURED[kind]}
        if kind == "classifier":
            row |= {"macs": card.path_macs(result, codecs[card.fingerprint])}
        if kind == "codec":
            for name in AGAINST:
                beside = result.against.get(name, Difference())
                row |= {f"{name}_psnr": beside.psnr, f"{name}_ms_ssim": beside.ms_ssim}
        yield row


def results(cards: Sequence[Card], kind: str) -> Iterator[tuple[Card, Result]]:
    """The results of the models of a kind."""
    for card in cards:
        if card.kind == kind:
            for result in card.results:
                yield card, result


def classes(cards: Sequence[Card]) -> Iterator[Row]:
    """Intersection over union of each class."""
    for card, result in results(cards, "segmenter"):
        for label, iou in result.iou.items():
            row: Row = {"name": card.name, "dataset": result.dataset, "quality": result.quality}
            yield row | {"machines": result.machines, "count": result.count, "label": label, "iou": iou}


def baselines(cards: Sequence[Card]) -> Iterator[Row]:
    """Each classifier, and then the RGB network on other files of about as many bytes."""
    codecs = by_fingerprint(cards)
    for card in cards:
        for stated in card.baselines:
            about: Row = {"classifier": card.name, "quality": stated.quality, "machines": stated.machines}
            if result := card.result_beside(stated):
                own: Row = about | {"pipeline": card.name, "dataset": stated.dataset}
                yield own | accuracy(result.count, result, card.path_macs(result, codecs[card.fingerprint]))
            for row in stated.rows:
                pipeline = Pipeline(row.input, row.source, row.side, row.tuned)
                other: Row = about | {"pipeline": pipeline.name, "dataset": stated.dataset}
                yield other | accuracy(stated.count, row, row.macs)


def by_fingerprint(cards: Sequence[Card]) -> dict[str, Card]:
    """The codecs among cards."""
    return {card.fingerprint: card for card in cards if card.kind == "codec"}


def accuracy(count: int, reached: Result | Baseline, macs: int) -> Row:
    """What a pipeline from file to label reached."""
    row: Row = {"count": count, "bytes": reached.bytes, "bpp": reached.bpp}
    row |= {"top1": reached.top1, "top1_se": reached.top1_se, "top5": reached.top5, "top5_se": reached.top5_se}
    return row | {"macs": macs}


def models(cards: Sequence[Card]) -> Iterator[Row]:
    """Size, cost and training data of each model."""
    for card in cards:
        row: Row = {"name": card.name, "kind": card.kind, "bytes": card.bytes, "parameters": card.parameters}
        row |= {"macs": card.macs or None}
        row |= {f"{part}_macs_per_pixel": getattr(card.macs_per_pixel, part, None) for part in PARTS}
        if how := card.training:
            row |= {"training_images": how.count, "training_test_images": sum(how.test_images.values())}
            row |= {"training_validation_duplicates": sum(how.validation_duplicates.values())}
        yield row | {"license": card.license}


def tables(cards: Sequence[Card]) -> dict[str, list[Row]]:
    """The rows of each file of results/, by its name."""
    return {
        "models": list(models(cards)),
        "codecs": list(measured(cards, "codec")),
        "classifiers": list(measured(cards, "classifier")),
        "baselines": list(baselines(cards)),
        "segmenters": list(measured(cards, "segmenter")),
        "classes": list(classes(cards)),
    }


def as_csv(rows: Sequence[Row]) -> str:
    """Rows of the same columns as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write() -> None:
    """Write results/ anew."""
    RESULTS.mkdir(exist_ok=True)
    for name, rows in tables(cards()).items():
        (RESULTS / f"{name}.csv").write_text(as_csv(rows), "utf-8")


def read(name: str) -> list[dict[str, str]]:
    """The rows of a file of results/."""
    with (RESULTS / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
