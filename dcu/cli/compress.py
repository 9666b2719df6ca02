"""``dcu compress``."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from dcu.cli import console, files, options, places, plan
from dcu.cli.report import Report
from dcu.errors import UsageError

if TYPE_CHECKING:
    from dcu.image import ImageArray

app = typer.Typer(add_completion=False)


@app.command()
def compress(
    inputs: options.Inputs,
    output: options.Output = None,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="BPP",
            help="Target rate in bits per pixel: the rate of an installed codec, 0.0983, 0.330 or 0.635.",
            show_default="0.0983",
        ),
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Codec by name or path.", autocompletion=options.installed("codec")),
    ] = None,
    target_bytes: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Use the highest rate whose file has at most N bytes.")
    ] = None,
    target_psnr: Annotated[
        float | None, typer.Option(metavar="DB", help="Use the lowest rate that reaches this PSNR in dB.")
    ] = None,
    background: Annotated[str, typer.Option(metavar="COLOR", help="Background color of transparent images.")] = "white",
    keep_extension: options.KeepExtension = False,
    json: options.Json = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> int:
    """Compress images to bitstreams.

    Example: dcu compress photos/ -o bins/ --rate 0.330
    """
    from dcu.image import SUFFIXES, parse_color, read_image

    wishes = {"--rate": rate, "--codec": codec, "--target-bytes": target_bytes, "--target-psnr": target_psnr}
    chosen = [name for name, value in wishes.items() if value is not None]
    if len(chosen) > 1:
        raise UsageError(f"{chosen[0]} and {chosen[1]} exclude each other")
    parse_color(background)
    found = files.sources(inputs, SUFFIXES, "images")
    target = places.choose(found, output, ".bin", keep_extension)
    places.check(found, target, keepable=True)
    if dry_run:
        return plan.show(found, target, json=json)
    if not target.piped:
        console.outlive_stdout()
    report = Report(found, json, quiet, prints=json or target.piped, json_to_stderr=target.piped)
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
    total, pixels, started = 0, 0, time.monotonic()
    for source in console.progress(found.sources, "compressing", quiet):
        with report.of(source.name):
            before, place = time.monotonic(), target.of(source)
            image = read_image(source.image(), background)
            used, data = write(image)
            files.put(place, data, force)
            area = image.shape[0] * image.shape[1]
            total, pixels = total + len(data), pixels + area
            if json:
                line = {
                    "input": source.name,
                    "output": "-" if place is None else str(place),
                    "codec": used.name,
                    "bytes": len(data),
                    "bpp": round(8 * len(data) / area, 6),
                    "seconds": round(time.monotonic() - before, 4),
                }
                console.print_json(line, error=place is None)
    if not pixels or target.piped:
        return report.finish()
    facts = f"{total} bytes, {8 * total / pixels:.4f} bpp"
    if len(found.sources) > 1:
        facts += f", {report.done / (time.monotonic() - started):.1f} images per second"
    if not (found.directories or quiet or json):
        console.note(facts)
    return report.finish(facts)
