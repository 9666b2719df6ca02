"""``dcu embed``."""

from __future__ import annotations

import io

import typer

from dcu.cli import files, options, reading
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
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> int:
    """Compute a 1280-dimensional embedding per image: one .npy file per bitstream, or JSON Lines."""
    if json and output is not None:
        raise UsageError("--json and -o exclude each other")
    seen = options.chosen_view(view, views)
    found = files.sources(inputs, files.BIN, "bitstreams (.bin)")
    places = [] if json else files.targets(inputs, found, output, ".npy")
    chosen_device = options.start(threads, device)
    import numpy as np

    failures = files.Failures()
    shown = files.progress(found, "embedding", quiet)
    answered = reading.answers(
        shown, network, chosen_device, "pytorch", seen, lambda c, images: list(c.embed(images)), failures
    )
    place_of = dict(zip(found, places, strict=False))
    for source, classifier, features in answered:
        if json:
            numbers = [round(number, 5) for number in features.tolist()]
            facts = {
                "input": source.name,
                "embedding": numbers,
                "network": classifier.name,
                "codec": classifier.codec.name,
            }
            files.print_json(facts)
            continue
        with failures.of(source.name):
            if source not in place_of:
                raise UsageError("holds several streams: only the first was embedded; --json prints all")
            buffer = io.BytesIO()
            np.save(buffer, features.numpy(), allow_pickle=False)
            files.put(place_of.pop(source), buffer.getvalue(), force)
    return failures.exit_code
