"""``dcu embed``."""

from __future__ import annotations

import io

import typer

from dcu.cli import console, files, options, places, plan, reading
from dcu.cli.report import Report
from dcu.errors import UsageError

app = typer.Typer(add_completion=False)


@app.command()
def embed(
    inputs: options.Inputs,
    output: options.Output = None,
    view: options.View = "center",
    views: options.Views = 1,
    network: options.Network = None,
    json: options.Json = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> int:
    """Compute embeddings from bitstreams, without decoding.

    An embedding is a vector of 1280 numbers per image. It is written as one .npy
    file per bitstream, or printed as JSON Lines.

    Example: dcu embed bins/ -o features/
    """
    if json and output is not None:
        raise UsageError("--json and -o cannot be combined")
    seen = options.chosen_view(view, views)
    found = files.sources(inputs, files.BIN, "bitstreams (.bin)")
    target = None if json else places.choose(found, output, ".npy")
    if target:
        places.check(found, target)
    if dry_run:
        return plan.show(found, target, json=json)
    report = Report(found, json, quiet, prints=target is None or target.piped)
    chosen_device = options.start(threads, device)
    import numpy as np

    shown = console.progress(found.sources, "embedding", quiet)
    streams = files.streams(shown, alone=target is not None and target.alone)
    answered = reading.answers(
        streams, network, chosen_device, "pytorch", seen, lambda c: lambda images: list(c.embed(images)), report
    )
    for source, classifier, features in answered:
        with report.of(source.name):
            if target is None:
                numbers = [round(number, 5) for number in features.tolist()]
                facts = {"input": source.name, "embedding": numbers, "network": classifier.name}
                console.print_json(facts | {"codec": classifier.codec.name})
                continue
            buffer = io.BytesIO()
            np.save(buffer, features.numpy(), allow_pickle=False)
            files.put(target.of(source), buffer.getvalue(), force)
    return report.finish()
