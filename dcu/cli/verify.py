"""``dcu verify``."""

from __future__ import annotations

import typer

from dcu import store
from dcu.cli import files, options

app = typer.Typer(add_completion=False)


@app.command()
def verify(inputs: options.Inputs, quiet: options.Quiet = False) -> int:
    """Check structure and checksum of bitstreams, and that their codec is installed."""
    found = files.sources(inputs, files.BIN, "bitstreams (.bin)")
    failures = files.Failures()
    for source, stream in files.streams(found, failures):
        with failures.of(source.name):
            model = store.codec_for(stream)
            if not quiet:
                typer.echo(f"{source.name}: valid, {stream.size} bytes, {model.name}")
    return failures.exit_code
