"""``dcu embed``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dcu import tables
from dcu.cli import cluster, files, options, places, plan, run
from dcu.cli.entries import Entry
from dcu.cli.outputs import Output, check_report
from dcu.cli.reading import classifiers
from dcu.cli.report import Report
from dcu.cli.run import Result
from dcu.cli.table_outputs import tables_of
from dcu.errors import UsageError
from dcu.walk import BITSTREAMS

if TYPE_CHECKING:
    from torch import Tensor

    from dcu.bitstream import Stream
    from dcu.tasks.classify import Classifier

app = typer.Typer(add_completion=False)


@app.command()
def embed(
    inputs: options.Inputs = None,
    output: options.Output = None,
    view: options.View = "center",
    views: options.Views = 1,
    network: options.Network = None,
    files_from: options.FilesFrom = None,
    skip_existing: options.SkipExisting = False,
    report_file: options.ReportFile = None,
    retry: options.Retry = None,
    json: options.Json = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    jobs: options.Jobs = None,
    threads: options.OldThreads = None,
    device: options.Device = "auto",
    executor: options.Executor = "local",
    address: options.Address = None,
    workers: options.Workers = None,
    gpus_per_worker: options.Gpus = None,
) -> int:
    """Compute embeddings from bitstreams, without decoding.

    An embedding is a vector of 1280 numbers per image. Embeddings are written to
    one table (.parquet or .jsonl), to one .npy file per bitstream, or printed as
    JSON Lines; those of shards to one .parquet per shard.

    Example: dcu embed bins/ -o features.parquet
    """
    if json and output is not None:
        raise UsageError("--json and -o cannot be combined")
    seen = options.chosen_view(view, views)
    found = files.sources(inputs, BITSTREAMS, "bitstreams (.bin, .dcu)", files_from)
    target = (
        None
        if json
        else output_of(
            found,
            output,
            f"dcu embed {options.stated_network('classifier', network)} view={seen}",
            force,
            skip_existing or retry is not None,
        )
    )
    targets = [target] if target else []
    check_report(report_file, found, targets, files_from)
    if dry_run:
        return plan.show(found, target.places if target else None, json=json, retry=retry)
    report = Report(
        found, json, quiet, prints=json or any(each.piped for each in targets), path=report_file, retried=retry
    )
    ray = cluster.chosen(
        executor, address, workers, gpus_per_worker, found, targets, cluster.networks("classifier", network)
    )
    jobs, device = options.begin(jobs, threads, device, remotely=ray is not None)
    work = partial(Embedder, network, seen, target is None)
    settings = run.Settings("embedding", jobs, device, BITSTREAMS, quiet, skip_existing, force, options.CHUNK)
    run.Run(found, targets, work, report, settings, ray)()
    return report.finish()


class Embedder:
    """Bitstreams to embeddings, for standard output where ``printed``."""

    def __init__(self, network: str | None, view: str, printed: bool, device: str) -> None:
        self.networks, self.view, self.printed = classifiers(network, device, "pytorch"), view, printed

    def ask(self, classifier: Classifier, streams: list[Stream]) -> list[tuple[Classifier, Tensor]]:
        """The embeddings of bitstreams, each with what made it."""
        return [(classifier, features) for features in classifier.embed(classifier.look(streams, self.view))]

    def __call__(self, entries: Sequence[Entry]) -> list[Result]:
        """The embeddings of entries."""
        answers = zip(entries, self.networks.answers(entries, self.ask), strict=True)
        return [result(entry, classifier, features, self.printed) for entry, (classifier, features) in answers]


def result(entry: Entry, classifier: Classifier, features: Tensor, printed: bool) -> Result:
    """One embedding, to be printed, or for a table or a file."""
    made_by = {"network": classifier.name, "codec": classifier.codec.name}
    if printed:
        numbers = [round(number, 5) for number in features.tolist()]
        return Result([], {"input": entry.name, "embedding": numbers} | made_by)
    row = made_by | {"label": entry.label, "embedding": features.numpy()}
    return Result([row], recorded={"codec": classifier.codec.name})


def output_of(found: files.Inputs, output: str | None, made_by: str, force: bool, extend: bool) -> Output:
    """A table, a table for each shard, or a .npy file for each bitstream."""
    if output is not None and (Path(output).suffix.lower() in tables.SUFFIXES or found.shards_only):
        return tables_of(found, output, tables.EMBEDDINGS, made_by, force, extend)
    target = places.choose(found, output, ".npy")
    places.check(found, target)
    if any(source.shard for source in found.sources):
        raise UsageError("name a table with -o: there are shards and files")
    return Output(target, made_by, force, npy)


def npy(content: dict[str, Any]) -> bytes:
    """The .npy file of an embedding."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, content["embedding"], allow_pickle=False)
    return buffer.getvalue()
