"""``dcu segment``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dcu.cli import console, files, options, places, plan, run
from dcu.cli.entries import Entry
from dcu.cli.outputs import Output, check_report
from dcu.cli.reading import Networks
from dcu.cli.report import Report
from dcu.cli.run import Result
from dcu.errors import UsageError
from dcu.walk import BITSTREAMS

if TYPE_CHECKING:
    from dcu.bitstream import Stream
    from dcu.tasks.segment import SegmentationMap, Segmenter

app = typer.Typer(add_completion=False)


@app.command()
def segment(
    inputs: options.Inputs = None,
    output: options.Output = None,
    overlay: Annotated[
        str | None,
        typer.Option(
            "--overlay",
            metavar="PATH",
            help="Write the decoded image overlaid with class colors and a legend to this file or directory.",
        ),
    ] = None,
    list_classes: Annotated[
        bool, typer.Option("--list-classes", help="Print the classes and colors of the segmenter and exit.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Segment large images at full resolution instead of their thumbnail layer.")
    ] = False,
    network: Annotated[
        str | None,
        options.model("--network", "segmenter", show_default="matching the codec"),
    ] = None,
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
) -> int:
    """Segment images from their bitstreams, without decoding.

    Writes an indexed PNG per image and prints the fraction of pixels per class.

    Example: dcu segment street.dcu -o map.png --overlay seen.png
    """
    from dcu.image import encoder

    if list_classes:
        print_classes(network, json)
        return 0
    found = files.sources(inputs, BITSTREAMS, "bitstreams (.bin, .dcu)", files_from)
    optional = output is None and (json or overlay is not None)
    maps = None if optional else places.choose(found, output, ".png")
    overlays = None if overlay is None else places.choose(found, overlay, ".png", option="--overlay")
    wanted = [each for each in (maps, overlays) if each]
    if sum(each.piped for each in wanted) + json > 1 or (overlays and overlays.piped):
        raise UsageError("only one result can be written to standard output")
    if maps and maps.file and not found.shards_only and Path(str(maps.file)).suffix.lower() != ".png":
        raise UsageError(f"{output}: segmentation maps must be .png files")
    example = Path("x.png" if not overlays or overlays.file is None or found.shards_only else str(overlays.file))
    encoder(example)  # an unknown format is an error before any work
    places.check(found, *wanted)
    if dry_run:
        return plan.show(found, *wanted, json=json, retry=retry)
    made_by = f"dcu segment {options.stated_network('segmenter', network)}{' full' if full else ''}"
    outputs = [Output(each, f"{made_by} {each.option}", force) for each in wanted]
    check_report(report_file, found, outputs, files_from)
    report = Report(found, json, quiet, path=report_file, retried=retry)
    jobs, device = options.begin(jobs, threads, device)
    from dcu.image.legend import with_legend
    from dcu.tasks.segment import Segmenter, segmenter_for

    named = Segmenter.load(network, device) if network else None
    networks = Networks(named, lambda codec: segmenter_for(codec, device))

    def ask(segmenter: Segmenter, streams: list[Stream]) -> list[tuple[SegmentationMap, list[bytes]]]:
        return [answer(segmenter, stream) for stream in streams]

    def answer(segmenter: Segmenter, stream: Stream) -> tuple[SegmentationMap, list[bytes]]:
        segmentation = segmenter(stream, full)
        contents = [png(segmentation)] if maps else []
        if overlays:
            seen = with_legend(segmentation.over(segmenter.codec.decode(stream)), legend(segmentation))
            contents.append(encoder(example)(seen))
        return segmentation, contents

    def work(entries: Sequence[Entry]) -> list[Result]:
        answers = zip(entries, networks.answers(entries, ask), strict=True)
        silent = maps is not None and maps.piped
        return [result(entry.name, segmentation, contents, silent) for entry, (segmentation, contents) in answers]

    settings = run.Settings("segmenting", jobs, device, BITSTREAMS, quiet, skip_existing, force)
    run.Run(found, outputs, lambda device: work, report, settings)()
    return report.finish()


def print_classes(network: str | None, json: bool) -> None:
    """The classes of a segmenter, for programs or for people."""
    from dcu.tasks.segment import Segmenter

    segmenter = Segmenter.load(network)
    colors = [f"#{bytes(color).hex()}" for color in segmenter.palette]
    rows = enumerate(zip(segmenter.labels, colors, strict=True))
    console.print_rows([{"index": index, "label": label, "color": color} for index, (label, color) in rows], json)


def legend(segmentation: SegmentationMap) -> list[tuple[str, tuple[int, int, int]]]:
    """Names and colors of the classes that are on a map."""
    fractions = segmentation.class_fractions.values()
    named = zip(segmentation.labels, segmentation.palette, fractions, strict=True)
    return [(console.printable(label), color) for label, color, fraction in named if fraction]


def png(segmentation: SegmentationMap) -> bytes:
    """An indexed PNG file."""
    out = io.BytesIO()
    segmentation.image().save(out, "PNG", optimize=True)
    return out.getvalue()


def result(name: str, segmentation: SegmentationMap, contents: Sequence[bytes], silent: bool) -> Result:
    """One map, its class fractions for programs and for people unless ``silent``."""
    recorded = {"codec": segmentation.codec}
    if silent:
        return Result(contents, recorded=recorded)
    shares = {label: round(share, 6) for label, share in segmentation.class_fractions.items()}
    height, width = segmentation.classes.shape
    facts = {"input": name, "width": width, "height": height, "class_fractions": shares}
    made_by = {"network": segmentation.network, "codec": segmentation.codec}
    ranked = sorted(segmentation.class_fractions.items(), key=lambda entry: -entry[1])
    lines = [f"  {100 * share:5.1f} %  {label}" for label, share in ranked if share > 0]
    return Result(contents, facts | made_by, [name, *lines], recorded)
