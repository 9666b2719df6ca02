"""``dcu classify``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dcu.cli import cluster, files, options, run
from dcu.cli.classes import KnownClasses, known_classes
from dcu.cli.entries import Entry
from dcu.cli.outputs import Output, check_report
from dcu.cli.reading import classifiers
from dcu.cli.report import Report
from dcu.cli.run import Result, ending_the_run
from dcu.cli.table_outputs import tables_of
from dcu.walk import BITSTREAMS

if TYPE_CHECKING:
    from dcu.bitstream import Stream
    from dcu.tasks.classify import Classifier, Predictions

LABELS = {"label": "string", "index": "int", "probability": "float", "predictions": "predictions"}
"""Columns of tables of labels; the first three are those of the most probable prediction."""

app = typer.Typer(add_completion=False)


@app.command()
def classify(
    inputs: options.Inputs = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="Write a table, .jsonl or .parquet; of shards, DIR takes one .parquet per shard.",
        ),
    ] = None,
    top: Annotated[int, typer.Option(metavar="K", min=1, help="Number of classes to print.")] = 5,
    classes: Annotated[
        Path | None,
        typer.Option("--classes", metavar="FILE", help="Predict only the classes listed in FILE, one per line."),
    ] = None,
    prior: Annotated[
        Path | None,
        typer.Option("--prior", metavar="FILE", help="File of class priors, one label,weight per line."),
    ] = None,
    min_probability: Annotated[
        float,
        typer.Option(metavar="P", min=0, max=1, help="Omit classes less probable than P; may leave none."),
    ] = 0.0,
    view: options.View = "center",
    views: options.Views = 1,
    network: options.Network = None,
    engine: options.EngineName = "auto",
    files_from: options.FilesFrom = None,
    skip_existing: options.SkipExisting = False,
    report_file: options.ReportFile = None,
    retry: options.Retry = None,
    json: options.Json = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
    jobs: options.Jobs = None,
    threads: options.OldThreads = None,
    device: options.Device = "auto",
    executor: options.Executor = "local",
    address: options.Address = None,
    workers: options.Workers = None,
    gpus_per_worker: options.Gpus = None,
) -> int:
    """Classify images from their bitstreams, without decoding.

    Example: dcu classify photo.dcu --top 3
    """
    seen = options.chosen_view(view, views)
    known = known_classes(classes, prior)
    found = files.sources(inputs, BITSTREAMS, "bitstreams (.bin, .dcu)", files_from)
    question = Question(seen, top, known, min_probability)
    targets: list[Output] = []
    if output is not None:
        made_by = f"dcu classify {options.stated_network('classifier', network)} {question.described()}"
        made_by += f" engine={engine}" if engine != "auto" else ""
        targets.append(tables_of(found, output, LABELS, made_by, force, skip_existing or retry is not None))
    check_report(report_file, found, targets, files_from)
    report = Report(found, json, quiet, prints=json or not targets, path=report_file, retried=retry)
    ray = cluster.chosen(
        executor, address, workers, gpus_per_worker, found, targets, cluster.networks("classifier", network)
    )
    jobs, device = options.begin(jobs, threads, device, remotely=ray is not None)
    work = partial(Labeler, network, engine, question, bool(targets))
    settings = run.Settings("classifying", jobs, device, BITSTREAMS, quiet, skip_existing, force, options.CHUNK)
    run.Run(found, targets, work, report, settings, ray)()
    return report.finish()


@dataclass(frozen=True)
class Question:
    """What is asked of a classifier."""

    view: str
    top: int
    known: KnownClasses
    min_probability: float

    def described(self) -> str:
        """The question as tables state it."""
        return f"view={self.view} top={self.top} min_probability={self.min_probability:g}{self.known.described()}"

    def __call__(self, classifier: Classifier, streams: list[Stream]) -> list[Predictions]:
        """The predictions for bitstreams."""
        weights = ending_the_run(self.known.weights, classifier)
        return classifier.predict(classifier.look(streams, self.view), self.top, weights, self.min_probability)


class Labeler:
    """Bitstreams to predictions, for a table where ``in_table``."""

    def __init__(self, network: str | None, engine: str, question: Question, in_table: bool, device: str) -> None:
        self.networks, self.question, self.in_table = classifiers(network, device, engine), question, in_table

    def __call__(self, entries: Sequence[Entry]) -> list[Result]:
        """The predictions for entries."""
        answers = zip(entries, self.networks.answers(entries, self.question), strict=True)
        return [result(entry.name, answer, self.in_table) for entry, answer in answers]


def result(name: str, answer: Predictions, in_table: bool) -> Result:
    """One answer, for programs, for people and for a table."""
    predictions = [
        {"label": p.label, "wnid": p.wnid, "index": p.index, "probability": round(p.probability, 6)}
        for p in answer.predictions
    ]
    made_by = {"network": answer.network, "codec": answer.codec}
    facts = {"input": name, "predictions": predictions, "max_probability": round(answer.max_probability, 6)} | made_by
    recorded = {"codec": answer.codec}
    if not in_table:
        lines = [f"  {100 * p.probability:5.1f} %  {p.label}" for p in answer.predictions]
        none = f"  no label: the most probable class has {100 * answer.max_probability:.1f} %"
        return Result([], facts, [name, *(lines or [none])], recorded)
    best = predictions[0] if predictions else {"label": None, "index": None, "probability": None}
    row = {column: best[column] for column in ("label", "index", "probability")}
    all_of_them = [{column: p[column] for column in row} for p in predictions]
    return Result([made_by | row | {"predictions": all_of_them}], facts, [], recorded)
