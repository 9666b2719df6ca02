"""``dcu decode``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dcu.cli import console, files, options, places, plan
from dcu.cli.report import Report
from dcu.errors import UsageError

app = typer.Typer(add_completion=False)


@app.command()
def decode(
    inputs: options.Inputs,
    output: options.Output = None,
    format: Annotated[
        str, typer.Option(metavar="EXT", help="Format of files written to a directory or standard output.")
    ] = "png",
    thumbnail: Annotated[
        bool,
        typer.Option("--thumbnail", help="Decode only the thumbnail layer, which images of 1024 pixels or more have."),
    ] = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> int:
    """Decode bitstreams to images. The output extension selects the format.

    Example: dcu decode photo.bin -o photo.png
    """
    from dcu.image import encoder

    suffix = f".{format.removeprefix('.')}"
    if not suffix[1:].isalnum():
        raise UsageError(f"--format: {format} is not a file extension")
    found = files.sources(inputs, files.BIN, "bitstreams (.bin)")
    target = places.choose(found, output, suffix)
    places.check(found, target)
    encoder(target.file or Path(f"image{suffix}"))  # an unknown format is one error, before any work
    if dry_run:
        return plan.show(found, target)
    report = Report(found, False, quiet, prints=target.piped)
    chosen_device = options.start(threads, device)
    from dcu.codec import codec_of
    from dcu.metadata import exif_of

    for source, read in files.streams(console.progress(found.sources, "decoding", quiet), target.alone):
        with report.of(source.name):
            stream = files.intact(read)
            codec = codec_of(stream.codec, chosen_device)
            codec.check(stream)
            place = target.of(source)
            encode = encoder(place or Path(f"image{suffix}"), exif_of(stream.header.metadata))
            files.put(place, encode(codec.decode(stream, thumbnail=thumbnail)), force)
    return report.finish()
