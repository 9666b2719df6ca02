"""``dcu compress``."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from dcu.cli import files, options
from dcu.errors import UsageError

if TYPE_CHECKING:
    from dcu.image import ImageArray

app = typer.Typer(add_completion=False)


@app.command()
def compress(
    inputs: options.Inputs,
    output: options.Output = None,
    rate: Annotated[
        float | None, typer.Option(help="Target rate in bits per pixel: the rate of an installed codec.")
    ] = None,
    codec: Annotated[str | None, typer.Option(help="Codec by name or path.")] = None,
    target_bytes: Annotated[
        int | None, typer.Option(min=1, help="Use the highest rate whose file has at most N bytes.")
    ] = None,
    target_psnr: Annotated[float | None, typer.Option(help="Use the lowest rate that reaches this PSNR in dB.")] = None,
    background: Annotated[str, typer.Option(help="Background color of transparent images.")] = "white",
    json: options.Json = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> int:
    """Compress images to bitstreams."""
    from dcu.image import SUFFIXES, parse_color, read_image

    wishes = {"--rate": rate, "--codec": codec, "--target-bytes": target_bytes, "--target-psnr": target_psnr}
    chosen = [name for name, value in wishes.items() if value is not None]
    if len(chosen) > 1:
        raise UsageError(f"{chosen[0]} and {chosen[1]} exclude each other")
    parse_color(background)
    found = files.sources(inputs, SUFFIXES, "images")
    places = files.targets(inputs, found, output, ".bin")
    chosen_device = options.start(threads, device)
    from dcu.codec import DEFAULT, Codec, compress_to, compress_within, of_every_rate, of_rate

    write: Callable[[ImageArray], tuple[Codec, bytes]]
    if target_bytes is not None:
        write = partial(compress_within, of_every_rate(chosen_device), most=target_bytes)
    elif target_psnr is not None:
        write = partial(compress_to, of_every_rate(chosen_device), least=target_psnr)
    else:
        named = Codec.load(codec or DEFAULT, chosen_device) if rate is None else of_rate(rate, chosen_device)
        write = lambda image: (named, named.compress(image))  # noqa: E731
    failures = files.Failures()
    count, total, pixels, started = 0, 0, 0, time.monotonic()
    for source, place in files.progress(list(zip(found, places, strict=True)), "compressing", quiet):
        with failures.of(source.name):
            before = time.monotonic()
            image = read_image(source.read(), background)
            used, data = write(image)
            files.put(place, data, force)
            area = image.shape[0] * image.shape[1]
            count, total, pixels = count + 1, total + len(data), pixels + area
            if json:
                line = {
                    "input": source.name,
                    "output": "-" if place is None else str(place),
                    "codec": used.name,
                    "bytes": len(data),
                    "bpp": round(8 * len(data) / area, 6),
                    "seconds": round(time.monotonic() - before, 4),
                }
                files.print_json(line, error=place is None)
    if not (quiet or json or not pixels or places == [None]):
        speed = count / (time.monotonic() - started)
        note = f"{total} bytes, {8 * total / pixels:.4f} bpp"
        typer.echo(f"{count} images, {note}, {speed:.1f} a second" if len(found) > 1 else note, err=True)
    return failures.exit_code
