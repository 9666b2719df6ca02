"""``dcu decode``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dcu.cli import files, options
from dcu.errors import UsageError

app = typer.Typer(add_completion=False)


@app.command()
def decode(
    inputs: options.Inputs,
    output: options.Output = None,
    format: Annotated[
        str, typer.Option(help="Extension of files in a directory, and format on standard output.")
    ] = "png",
    force: options.Force = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> int:
    """Decode bitstreams to images, in the format of the file extension."""
    from dcu.image import encoder

    suffix = f".{format.removeprefix('.')}"
    if not suffix[1:].isalnum():
        raise UsageError(f"--format: {format} is not a file extension")
    found = files.sources(inputs, files.BIN, "bitstreams (.bin)")
    places = files.targets(inputs, found, output, suffix)
    encoders = [encoder(place if place is not None else Path(f"image{suffix}")) for place in places]
    chosen_device = options.start(threads, device)
    from dcu.codec import codec_of

    failures = files.Failures()
    jobs = list(zip(found, places, encoders, strict=True))
    for source, place, encode in files.progress(jobs, "decoding", quiet):
        several = list(files.streams([source], failures))
        with failures.of(source.name):
            for _, stream in several[:1]:
                codec = codec_of(stream.codec, chosen_device)
                codec.check(stream)
                files.put(place, encode(codec.decode(stream)), force)
            if len(several) > 1:
                raise UsageError(f"holds {len(several)} streams: only the first was decoded")
    return failures.exit_code
