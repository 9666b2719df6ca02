"""``dcu compress``."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dcu import store
from dcu.bitstream import CHECKSUM_BYTES, read_head
from dcu.cli import cluster, console, files, options, places, plan, run
from dcu.cli.bounded import pixels_of
from dcu.cli.entries import Entry
from dcu.cli.outputs import Output, check_report
from dcu.cli.report import Report
from dcu.cli.run import Result
from dcu.errors import InvalidInputError, UsageError
from dcu.jobs import Pixels

if TYPE_CHECKING:
    from dcu.codec import Codec
    from dcu.image import ImageArray

    Writer = Callable[[ImageArray, bytes], bytes]
    """What compresses an image with its metadata."""

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
    made_for: str

    @property
    def machines(self) -> bool:
        """Whether streams for machines are wanted."""
        return self.made_for == "machines"

    def __reduce__(self) -> tuple[type[Goal], tuple[object, ...]]:
        """Without what was looked up: another machine has its own models."""
        return Goal, tuple(getattr(self, field.name) for field in fields(self))

    def check(self) -> None:
        """Refuse goals that cannot be combined; raises UsageError."""
        chosen = {
            "--quality": self.quality,
            "--rate": self.rate,
            "--target-bytes": self.target_bytes,
            "--target-psnr": self.target_psnr,
        }
        named = [name for name, value in chosen.items() if value is not None]
        if len(named) > 1:
            raise UsageError(f"{named[0]} and {named[1]} cannot be combined")
        if self.fit and self.target_bytes is None:
            raise UsageError("--fit needs --target-bytes")

    @functools.cached_property
    def model(self) -> store.Model:
        """The codec; raises UsageError, UnavailableError."""
        found = store.find(self.codec, "codec")
        options.for_machines(self.made_for, [found])
        return found

    @functools.cached_property
    def point(self) -> int | None:
        """The operating point of all files; None where each has its own, or the codec only one; raises UsageError."""
        from dcu.rate_control import RATE, nearest

        rates = self.model.card.machine_rates if self.machines else self.model.card.rates
        if self.quality is not None or self.target_bytes is not None or self.target_psnr is not None or rates is None:
            return self.quality
        try:
            return nearest(rates.bpp, RATE if self.rate is None else self.rate)
        except ValueError as error:
            raise UsageError(str(error)) from error

    def writer(self, codec: Codec) -> Writer:
        """What compresses images to this goal with the codec; raises UsageError."""
        if codec.points > 1:
            return self.variable_writer(codec)
        self.check_fixed()
        return lambda image, _: codec.compress(image)

    def recognize(self, head: bytes, size: int | None) -> str | None:
        """Why a file that exists is no bitstream of this goal, by its first bytes and its size, if it is known.

        None where it may be.
        """
        try:
            found = read_head(memoryview(head))
        except InvalidInputError:
            return "exists already and is not a bitstream; --force overwrites it"
        differs, header = None, found.header
        if size is not None and size != found.end + CHECKSUM_BYTES:
            differs = "damaged"
        elif self.target_bytes is not None and size is not None and size > self.target_bytes:
            differs = f"of {size} bytes, more than {self.target_bytes}"
        elif header.codec != self.model.identity:
            differs = "made by another codec"
        elif header.machines != self.machines:
            differs = f"made for {'machines' if header.machines else 'people'}"
        elif self.point is not None and header.operating_point != self.point:
            differs = f"of quality {header.operating_point}, not {self.point}"
        return f"exists already, {differs}; --force overwrites it" if differs else None

    def described(self) -> str:
        """The goal as shards state it."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "codec"}
        chosen = [
            f"{name}={value}"
            for name, value in values.items()
            if value is not None and value is not False and value != "people"
        ]
        return " ".join(["dcu compress", self.model.identity.hex(), *chosen])

    def variable_writer(self, codec: Codec) -> Writer:
        """The same with a codec of many operating points."""
        quality = self.point
        try:
            if self.target_bytes is None and self.target_psnr is None:
                quality = codec.point(quality, self.machines)
        except ValueError as error:
            raise UsageError(str(error)) from error
        compress = partial(
            codec.compress,
            quality=quality,
            target_bytes=self.target_bytes,
            target_psnr=self.target_psnr,
            fit=self.fit,
            machines=self.machines,
        )

        def write(image: ImageArray, metadata: bytes) -> bytes:
            try:
                return compress(image, metadata=metadata)
            except UsageError as error:
                if self.target_bytes is None or self.fit:
                    raise
                raise UsageError(f"{error}; --fit reduces the image") from error

        return write

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
                raise UsageError(f"{option} and --codec {self.model.name} cannot be combined: it {what}")


@app.command()
def compress(
    inputs: options.Inputs = None,
    output: options.Output = None,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="BPP",
            help="Target mean rate in bits per pixel, 0.04 to 1.3.",
            show_default="0.0983",
        ),
    ] = None,
    codec: Annotated[str | None, options.model("--codec", "codec")] = None,
    quality: Annotated[
        int | None,
        typer.Option(metavar="Q", min=0, max=63, help="Operating point, 0 (smallest files) to 63."),
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
    made_for: options.MadeFor = "people",
    thumbnail_only: Annotated[
        bool, typer.Option("--thumbnail-only", help="Compress the image reduced to 256 pixels on its short side.")
    ] = False,
    keep_metadata: Annotated[
        bool, typer.Option("--metadata", help="Keep when and where the photograph was taken.")
    ] = False,
    background: Annotated[str, typer.Option(metavar="COLOR", help="Background color of transparent images.")] = "white",
    extension: Annotated[
        Literal[".bin", ".dcu"], typer.Option("--extension", help="Of bitstreams in a directory or a shard.")
    ] = ".bin",
    keep_extension: options.KeepExtension = False,
    files_from: options.FilesFrom = None,
    skip_existing: options.SkipExisting = False,
    report_file: options.ReportFile = None,
    retry: options.Retry = None,
    json: options.Json = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    jobs: options.Jobs = None,
    threads: options.OldThreads = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    executor: options.Executor = "local",
    address: options.Address = None,
    workers: options.Workers = None,
    gpus_per_worker: options.Gpus = None,
) -> int:
    """Compress images to bitstreams.

    Example: dcu compress photos/ -o bins/ --rate 0.33
    """
    from dcu.image import SUFFIXES, parse_color

    goal = Goal(codec, quality, rate, target_bytes, target_psnr, fit, keep_metadata, made_for)
    goal.check()
    parse_color(background)
    found = files.sources(inputs, SUFFIXES, "images", files_from)
    target = places.choose(found, output, extension, keep_extension)
    places.check(found, target, keepable=True)
    made_by = f"{goal.described()} background={background}{' thumbnail' if thumbnail_only else ''}"
    made_by += f" extension={extension}" if extension != ".bin" else ""
    made_by += f" precision={precision}" if precision != "auto" else ""
    made_by += " keep_extension" if keep_extension else ""
    outputs = [Output(target, made_by, force, recognize=goal.recognize)]
    check_report(report_file, found, outputs, files_from)
    piped = target.piped
    report = Report(found, json, quiet, json or piped, json_to_stderr=piped, path=report_file, retried=retry)
    if dry_run:
        return plan.show(found, target, json=json, retry=retry)
    models = [(goal.codec or goal.model.name, goal.model)]
    ray = cluster.chosen(executor, address, workers, gpus_per_worker, found, outputs, models)
    jobs, device = options.begin(jobs, threads, device, remotely=ray is not None)
    work = partial(Compressor, goal, precision, background, thumbnail_only, keep_metadata)
    settings = run.Settings("compressing", jobs, device, SUFFIXES, quiet, skip_existing, force)
    started = time.monotonic()
    run.Run(found, outputs, work, report, settings, ray)()
    if not report.pixels or target.piped:
        return report.finish()
    facts = f"{report.bytes} bytes, {8 * report.bytes / report.pixels:.4f} bpp"
    if report.done > 1:
        facts += f", {report.done / (time.monotonic() - started):.1f} images per second"
    if not (found.many or quiet or json):
        console.note(facts)
    return report.finish(facts)


class Compressor:
    """Images to their bitstreams."""

    def __init__(
        self, goal: Goal, precision: str, background: str, thumbnail: bool, keep_metadata: bool, device: str
    ) -> None:
        from dcu.codec import Codec

        self.codec = Codec.from_model(goal.model, device, precision)
        self.write = goal.writer(self.codec)
        self.background, self.thumbnail, self.keep_metadata = background, thumbnail, keep_metadata
        self.memory = Pixels()

    def __call__(self, entries: Sequence[Entry]) -> list[Result]:
        """The bitstreams of entries, and their facts."""
        return [self.result(entry) for entry in entries]

    def result(self, entry: Entry) -> Result:
        """The bitstream of an entry, and its facts."""
        from dcu import metadata
        from dcu.encoding import thumbnail_of
        from dcu.image import read_image

        content = entry.image()
        with self.memory.held(pixels_of(content)):
            image = read_image(content, self.background)
            if self.thumbnail:
                image = thumbnail_of(image)
            data = self.write(image, metadata.of_file(content) if self.keep_metadata else b"")
        width, height = read_head(memoryview(data)).sizes[-1]  # --fit may have reduced the image
        facts = {
            "input": entry.name,
            "output": None,
            "codec": self.codec.name,
            "precision": self.codec.precision,
            "bytes": len(data),
            "bpp": round(8 * len(data) / (width * height), 6),
            "seconds": None,
        }
        if self.codec.points > 1:
            facts |= {"quality": self.codec.quality(data)}
        made_by = {"codec": self.codec.name, "precision": self.codec.precision}
        return Result([data], facts, recorded=made_by | {"width": width, "height": height})
