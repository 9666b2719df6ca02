"""``dcu compress``: pictures to bitstreams."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from dcu.cli import files, options
from dcu.errors import UsageError

app = typer.Typer(add_completion=False)


@app.command()
def compress(
    inputs: options.Inputs,
    output: options.Output = None,
    rate: Annotated[float | None, typer.Option(help="Operating point by its name: bits a pixel.")] = None,
    codec: Annotated[str | None, typer.Option(help="Codec by name or path.")] = None,
    background: Annotated[str, typer.Option(help="Colour behind transparent pictures.")] = "white",
    json: options.Json = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> int:
    """Pictures to bitstreams."""
    from dcu.image import SUFFIXES, parse_colour, read_picture

    if rate is not None and codec is not None:
        raise UsageError("--rate and --codec name the codec twice")
    parse_colour(background)
    found = files.sources(inputs, SUFFIXES, "pictures")
    places = files.targets(inputs, found, output, ".bin")
    chosen_device = options.start(threads, device)
    from dcu.codec import DEFAULT, Codec, of_rate

    loaded = Codec.load(codec or DEFAULT, chosen_device) if rate is None else of_rate(rate, chosen_device)
    failures = files.Failures()
    count, total, pixels, started = 0, 0, 0, time.monotonic()
    for source, place in files.progress(list(zip(found, places, strict=True)), "compressing", quiet):
        with failures.of(source.name):
            before = time.monotonic()
            picture = read_picture(source.read(), background)
            data = loaded.compress(picture)
            files.put(place, data, force)
            area = picture.shape[0] * picture.shape[1]
            count, total, pixels = count + 1, total + len(data), pixels + area
            if json:
                line = {
                    "input": source.name,
                    "output": "-" if place is None else str(place),
                    "bytes": len(data),
                    "bpp": round(8 * len(data) / area, 6),
                    "seconds": round(time.monotonic() - before, 4),
                }
                files.print_json(line, error=place is None)
    if not (quiet or json or not pixels or places == [None]):
        speed = count / (time.monotonic() - started)
        note = f"{total} bytes, {8 * total / pixels:.4f} bpp"
        typer.echo(f"{count} pictures, {note}, {speed:.1f} a second" if len(found) > 1 else note, err=True)
    return failures.exit_code
