"""``dcu compress``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from dcu.cli import console, files, options, places, plan
from dcu.cli.report import Report
from dcu.errors import UsageError

if TYPE_CHECKING:
    from dcu.codec import Codec
    from dcu.image import ImageArray

    Writer = Callable[[ImageArray, bytes], tuple[Codec, bytes]]
    """What compresses an image with its metadata, and says by which codec."""

VARIABLE = "codec-2"
"""The codec of many operating points that --quality implies."""
app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Goal:
    """What the files are to be: of quality, rate and targets at most one."""

    codec: str | None
    quality: int | None
    rate: float | None
    target_bytes: int | None
    target_psnr: float | None
    fit: bool
    metadata: bool

    def check(self) -> None:
        """Refuse goals that exclude each other; raises UsageError."""
        chosen = {
            "--quality": self.quality,
            "--rate": self.rate,
            "--target-bytes": self.target_bytes,
            "--target-psnr": self.target_psnr,
        }
        named = [name for name, value in chosen.items() if value is not None]
        if len(named) > 1:
            raise UsageError(f"{named[0]} and {named[1]} exclude each other")
        if self.fit and self.target_bytes is None:
            raise UsageError("--fit needs --target-bytes")

    def writer(self, device: str) -> Writer:
        """What compresses images to this goal; raises UsageError, UnavailableError."""
        from dcu.codec import DEFAULT, Codec, compress_to, compress_within, of_every_rate, of_rate

        variable = self.quality is not None or self.fit
        if self.codec or variable:
            codec = Codec.load(self.codec or VARIABLE, device)
            if codec.points > 1:
                return self.variable_writer(codec)
            self.check_fixed()
        elif self.metadata:
            raise UsageError("--metadata needs --codec codec-2 or --quality")
        elif self.target_bytes is not None:
            within = partial(compress_within, of_every_rate(device), most=self.target_bytes)
            return lambda image, _: within(image)
        elif self.target_psnr is not None:
            reaching = partial(compress_to, of_every_rate(device), least=self.target_psnr)
            return lambda image, _: reaching(image)
        else:
            codec = Codec.load(DEFAULT, device) if self.rate is None else of_rate(self.rate, device)
        return lambda image, _: (codec, codec.compress(image))

    def variable_writer(self, codec: Codec) -> Writer:
        """The same with a codec of many operating points."""
        try:
            quality = codec.point_of_rate(self.rate) if self.rate is not None else self.quality
            if self.target_bytes is None and self.target_psnr is None:
                quality = codec.point(quality)
        except ValueError as error:
            raise UsageError(str(error)) from error
        compress = partial(
            codec.compress,
            quality=quality,
            target_bytes=self.target_bytes,
            target_psnr=self.target_psnr,
            fit=self.fit,
        )
        return lambda image, metadata: (codec, compress(image, metadata=metadata))

    def check_fixed(self) -> None:
        """Refuse what a codec of one rate cannot be asked for; raises UsageError."""
        asked = {
            "--quality": self.quality is not None,
            "--rate": self.rate is not None,
            "--target-bytes": self.target_bytes is not None,
            "--target-psnr": self.target_psnr is not None,
            "--metadata": self.metadata,
        }
        for option, given in asked.items():
            if given:
                what = "keeps no metadata" if option == "--metadata" else "has one rate"
                raise UsageError(f"{option} and --codec {self.codec} exclude each other: it {what}")


@app.command()
def compress(
    inputs: options.Inputs,
    output: options.Output = None,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="BPP",
            help="Target rate in bits per pixel: 0.0983, 0.330 or 0.635; with --codec codec-2, any.",
            show_default="0.0983",
        ),
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Codec by name or path.", autocompletion=options.installed("codec")),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(metavar="Q", min=0, max=63, help="Operating point of codec-2, 0 (smallest files) to 63."),
    ] = None,
    target_bytes: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Use the highest rate whose file has at most N bytes.")
    ] = None,
    target_psnr: Annotated[
        float | None, typer.Option(metavar="DB", help="Use the lowest rate that reaches this PSNR in dB.")
    ] = None,
    fit: Annotated[
        bool, typer.Option("--fit", help="With --target-bytes: reduce images that are too large even at quality 0.")
    ] = False,
    thumbnail_only: Annotated[
        bool, typer.Option("--thumbnail-only", help="Compress the image reduced to 256 pixels on its short side.")
    ] = False,
    keep_metadata: Annotated[
        bool, typer.Option("--metadata", help="Keep when and where the photograph was taken; with codec-2 only.")
    ] = False,
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

    goal = Goal(codec, quality, rate, target_bytes, target_psnr, fit, keep_metadata)
    goal.check()
    parse_color(background)
    found = files.sources(inputs, SUFFIXES, "images")
    target = places.choose(found, output, ".bin", keep_extension)
    places.check(found, target, keepable=True)
    if dry_run:
        return plan.show(found, target, json=json)
    if not target.piped:
        console.outlive_stdout()
    report = Report(found, json, quiet, prints=json or target.piped, json_to_stderr=target.piped)
    write = goal.writer(options.start(threads, device))
    from dcu import metadata
    from dcu.codec import thumbnail_of

    total, pixels, started = 0, 0, time.monotonic()
    for source in console.progress(found.sources, "compressing", quiet):
        with report.of(source.name):
            before, place = time.monotonic(), target.of(source)
            content = source.image()
            image = read_image(content, background)
            if thumbnail_only:
                image = thumbnail_of(image)
            used, data = write(image, metadata.of_file(content) if keep_metadata else b"")
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
                if used.points > 1:
                    line |= {"quality": used.quality(data)}
                console.print_json(line, error=place is None)
    if not pixels or target.piped:
        return report.finish()
    facts = f"{total} bytes, {8 * total / pixels:.4f} bpp"
    if len(found.sources) > 1:
        facts += f", {report.done / (time.monotonic() - started):.1f} images per second"
    if not (found.directories or quiet or json):
        console.note(facts)
    return report.finish(facts)
