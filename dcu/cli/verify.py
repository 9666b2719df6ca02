"""``dcu verify``."""

from __future__ import annotations

import typer

from dcu import store
from dcu.cli import files, options
from dcu.cli.console import print_json, progress, say
from dcu.cli.report import Report

app = typer.Typer(add_completion=False)


@app.command()
def verify(inputs: options.Inputs, json: options.Json = False, quiet: options.Quiet = False) -> int:
    """Check the integrity of bitstreams.

    Checks structure and checksum, and that the codec is installed.

    Example: dcu verify bins/ --quiet
    """
    found = files.sources(inputs, files.BIN, "bitstreams (.bin)")
    report = Report(found, json, quiet, prints=json or not quiet)
    for source, read in files.streams(progress(found.sources, "verifying", quiet)):
        with report.of(source.name):
            stream = files.intact(read)
            model = store.codec_for(stream)
            if json:
                print_json({"input": source.name, "bytes": stream.size, "codec": model.name})
            elif not quiet:
                say(f"{source.name}: valid, {stream.size} bytes, {model.name}")
    return report.finish()
