"""The report: one self-contained page of tables, plots and images, without scripts."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dcu import pages, store
from dcu.bench import codecs as codec_table
from dcu.bench import plots
from dcu.bench.accuracy import Accuracy, quoted
from dcu.bench.codecs import CodecRow
from dcu.bench.crops import crops
from dcu.bench.gallery import gallery
from dcu.bench.points import OperatingPoint
from dcu.bench.table import Row, Table, columns, fastest, machine, percent
from dcu.codec import Codec
from dcu.data import Item, shown
from dcu.evaluate import curves
from dcu.evaluate.baselines import measure_setting, settings
from dcu.evaluate.codec import evaluate, measured_points
from dcu.image import ImageArray

SHOWN = 6
"""Images of a data set that the report shows."""


@dataclass(frozen=True)
class Section:
    """What was measured at an operating point, and what is known of accuracy there."""

    point: OperatingPoint
    codec: CodecRow
    rows: list[Row]
    known: Accuracy


@dataclass(frozen=True)
class Summary:
    """Pipelines to a label at the largest batch, each on its fastest engine; a sentence about the classifier."""

    name: str
    batch: int
    sentence: str
    rows: Table


def check_packages() -> None:
    """Raise UnavailableError where a package that the report needs is missing: before anything is measured."""
    curves.check_packages()
    pages.check_packages("bench")


def report_images(items: Sequence[Item]) -> dict[str, ImageArray]:
    """The report's images by their names."""
    return {item.name.removesuffix(".jpg"): item.image() for item in shown(items, SHOWN)}


def report(
    sections: Sequence[Section],
    images: dict[str, ImageArray],
    formats: Sequence[str],
    seconds: float | None = None,
    show: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> str:
    """The page, HTML; ``show`` wraps the settings of other formats, which take longest.

    In so many ``seconds`` formats are compared on as many of the images, one at least.
    """
    models = store.installed_codecs()
    benchmarked = [section.point.model for section in sections]
    codecs = list(map(Codec.from_model, {model.fingerprint: model for model in (*models, *benchmarked)}.values()))

    def measured(
        images: Iterable[ImageArray], show: Callable[[Sequence[Any]], Iterable[Any]]
    ) -> tuple[curves.Points, curves.Points]:
        ours = [evaluate(codec, images, quality) for codec in codecs for quality in measured_points(codec)]
        return ours, [measure_setting(name, value, scale, images) for name, value, scale in show(settings(formats))]

    if seconds is not None:
        started = time.monotonic()
        measured(list(images.values())[:1], iter)
        count = max(1, int(seconds / (time.monotonic() - started)))
        images = dict(list(images.items())[:count])
    ours, theirs = measured(images.values(), show)
    drawn = curves.of(ours, theirs)
    return pages.render(
        "dcu.bench",
        "report.html.j2",
        date=datetime.date.today().isoformat(),
        machine=machine(),
        summaries=[summary(section) for section in sections],
        sections=[
            {
                "name": section.point.name,
                "source": section.known.source,
                "tables": columns(section.rows),
                "plots": [plots.timing(section.rows, batch) for batch in sorted({row.batch for row in section.rows})],
            }
            for section in sections
        ],
        accuracy=plots.accuracy(known_of(sections, models)),
        rate_distortion=plots.rate_distortion(drawn, f"{len(images)} image{'s' if len(images) > 1 else ''}"),
        gains=curves.table(curves.gains(ours, drawn)),
        codecs=codec_table.columns([section.codec for section in sections]),
        crops=crops(images, [section.point for section in sections], formats[:1]),
        gallery=gallery(images, [section.point for section in sections], formats),
    )


def summary(section: Section) -> Summary:
    """The summary of a section."""
    batch = max(row.batch for row in section.rows)
    labels = [row for row in fastest(section.rows, batch).values() if row.answer == "label"]
    compared = [row for row in labels[1:] if row.relative and row.relative.macs == 1]  # no synthesis
    baseline = next((row for row in compared if row.speedup == 1), None)
    own, sentence = labels[0], ""
    if baseline:
        sentence = f"{own.name} is {own.speedup:.2f} times as fast as {baseline.name}"
        if own.top1 is not None and baseline.top1 is not None:
            sentence += f", with a top-1 accuracy of {percent(own.top1)} against {percent(baseline.top1)}"
    rows: Table = [
        {
            "pipeline": row.name,
            "top-1": percent(row.top1),
            "speed-up": row.speedup and f"{row.speedup:.2f}",
            "ms": f"{row.ms:.1f}",
            "bytes": round(row.bytes),
        }
        for row in labels
    ]
    return Summary(section.point.name, batch, sentence, rows)


def known_of(sections: Sequence[Section], models: Sequence[store.Model]) -> list[Accuracy]:
    """What is known of accuracy at every rate: where it was quoted, of the rates that were not timed too."""
    known = {section.point.name: section.known for section in sections}
    sources = {each.source for each in known.values()}
    for model in models:
        if model.name not in known and store.networks("classifier", model.fingerprint):
            other = quoted(OperatingPoint(model))
            if other.source in sources:
                known[model.name] = other
    return list(known.values())
