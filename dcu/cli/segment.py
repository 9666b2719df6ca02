"""``dcu segment``."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Annotated

import typer

from dcu.cli import files, options
from dcu.errors import UsageError

if TYPE_CHECKING:
    from dcu.tasks.segment import SegmentationMap

app = typer.Typer(add_completion=False)


@app.command()
def segment(
    inputs: options.Inputs,
    output: options.Output = None,
    overlay: Annotated[
        str | None, typer.Option("--overlay", help="File or directory for class colors over the decoded image.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Of large images, segment the full layer, not the thumbnail layer.")
    ] = False,
    network: Annotated[
        str | None, typer.Option("--network", help="Segmenter by name or path.", show_default="by the stream's codec")
    ] = None,
    json: options.Json = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> int:
    """Semantic segmentation from bitstreams: an indexed PNG per image, and the fraction of pixels per class."""
    from dcu.image import encoder

    found = files.sources(inputs, files.BIN, "bitstreams (.bin)")
    maps = [] if output is None and json else files.targets(inputs, found, output, ".png")
    overlays = [] if overlay is None else files.targets(inputs, found, overlay, ".png")
    if None in overlays or (None in maps and (json or overlay == "-")):
        raise UsageError("standard output takes one thing only")
    if any(place is not None and place.suffix.lower() != ".png" for place in maps):
        raise UsageError(f"{output}: segmentation maps are indexed PNG files")
    map_of = dict(zip(found, maps, strict=False))
    overlay_of = {s: (p, encoder(p)) for s, p in zip(found, overlays, strict=False) if p is not None}
    chosen_device = options.start(threads, device)
    from dcu.tasks.segment import Segmenter, segmenter_for

    named = Segmenter.load(network, chosen_device) if network else None
    failures = files.Failures()
    for source, stream in files.streams(files.progress(found, "segmenting", quiet), failures):
        with failures.of(source.name):
            if maps and source not in map_of:
                raise UsageError("holds several streams: only the first was segmented; --json alone tells of all")
            segmenter = named or segmenter_for(stream.codec, chosen_device)
            segmentation = segmenter(stream, full)
            if maps:
                place = map_of.pop(source)
                files.put(place, png(segmentation), force)
            if source in overlay_of:
                place, encode = overlay_of.pop(source)
                files.put(place, encode(segmentation.over(segmenter.codec.decode(stream))), force)
            if None not in maps:
                show(source.name, segmentation, json)
    return failures.exit_code


def png(segmentation: SegmentationMap) -> bytes:
    """An indexed PNG file."""
    out = io.BytesIO()
    segmentation.image().save(out, "PNG", optimize=True)
    return out.getvalue()


def show(name: str, segmentation: SegmentationMap, json: bool) -> None:
    """The shares of one mask, for programs or for people."""
    if json:
        shares = {label: round(share, 6) for label, share in segmentation.class_fractions.items()}
        height, width = segmentation.classes.shape
        facts = {"input": name, "width": width, "height": height, "class_fractions": shares}
        files.print_json(facts | {"network": segmentation.network, "codec": segmentation.codec})
        return
    typer.echo(name)
    for label, share in sorted(segmentation.class_fractions.items(), key=lambda entry: -entry[1]):
        if share > 0:
            typer.echo(f"  {100 * share:5.1f} %  {label}")
