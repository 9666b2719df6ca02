"""``dcu verify``."""

from __future__ import annotations

import typer

from dcu import store
from dcu.cli import files, options
from dcu.cli.console import print_json, progress, say
from dcu.cli.report import Report
from dcu.cli.run import every_entry
from dcu.walk import BITSTREAMS

app = typer.Typer(add_completion=False)


@app.command()
def verify(inputs: options.Inputs = None, json: options.Json = False, quiet: options.Quiet = False) -> int:
    """Check the integrity of bitstreams.

    Checks structure and checksum, and that the codec is installed.

    Example: dcu verify bins/ --quiet
    """
    found = files.sources(inputs, BITSTREAMS, "bitstreams (.bin, .dcu)")
    report = Report(found, json, quiet, prints=json or not quiet)
    for entry in every_entry(progress(found.sources, "verifying", quiet), report):
        with report.of(entry.name):
            stream = entry.stream
            model = store.codec_for(stream)
            if json:
                print_json({"input": entry.name, "bytes": stream.size, "codec": model.name})
            elif not quiet:
                say(f"{entry.name}: valid, {stream.size} bytes, {model.name}")
    return report.finish()
