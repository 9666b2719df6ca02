"""``dcu decode``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from dcu.cli import files, options, places, plan, run
from dcu.cli.entries import Entry
from dcu.cli.outputs import Output, check_report
from dcu.cli.report import Report
from dcu.cli.run import Result
from dcu.errors import UsageError
from dcu.jobs import Pixels
from dcu.walk import BITSTREAMS

app = typer.Typer(add_completion=False)


@app.command()
def decode(
    inputs: options.Inputs = None,
    output: options.Output = None,
    format: Annotated[
        str, typer.Option(metavar="EXT", help="Format of files written to a directory or standard output.")
    ] = "png",
    thumbnail: Annotated[
        bool,
        typer.Option("--thumbnail", help="Decode only the thumbnail layer, which images of 1024 pixels or more have."),
    ] = False,
    files_from: options.FilesFrom = None,
    skip_existing: options.SkipExisting = False,
    report_file: options.ReportFile = None,
    retry: options.Retry = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    jobs: options.Jobs = None,
    threads: options.OldThreads = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
) -> int:
    """Decode bitstreams to images. The output extension selects the format.

    Example: dcu decode photo.dcu -o photo.png
    """
    from dcu.image import block_pixels, encoder

    suffix = f".{format.removeprefix('.')}"
    if not suffix[1:].isalnum():
        raise UsageError(f"--format: {format} is not a file extension")
    found = files.sources(inputs, BITSTREAMS, "bitstreams (.bin, .dcu)", files_from)
    target = places.choose(found, output, suffix)
    places.check(found, target)
    example = Path(f"image{suffix}" if target.file is None or found.shards_only else str(target.file))
    encoder(example)  # an unknown format is one error, before any work
    if dry_run:
        return plan.show(found, target, retry=retry)
    made_by = f"dcu decode {example.suffix}{' thumbnail' if thumbnail else ''}"
    made_by += f" precision={precision}" if precision != "auto" else ""
    outputs = [Output(target, made_by, force)]
    check_report(report_file, found, outputs, files_from)
    report = Report(found, False, quiet, prints=target.piped, path=report_file, retried=retry)
    jobs, device = options.begin(jobs, threads, device)
    from dcu.codec import codec_of
    from dcu.metadata import exif_of

    memory = Pixels()

    def result(entry: Entry) -> Result:
        stream = entry.stream
        codec = codec_of(stream.codec, device, precision)
        codec.check(stream)
        with memory.held(block_pixels(stream.full.width, stream.full.height)):
            encode = encoder(outputs[0].image_of(entry, example.suffix or ".png"), exif_of(stream.header.metadata))
            data = encode(codec.decode(stream, thumbnail=thumbnail))
        return Result([data], recorded={"codec": codec.name, "precision": codec.precision})

    def work(entries: Sequence[Entry]) -> list[Result]:
        return [result(entry) for entry in entries]

    settings = run.Settings("decoding", jobs, device, BITSTREAMS, quiet, skip_existing, force)
    run.Run(found, outputs, lambda device: work, report, settings)()
    return report.finish()
