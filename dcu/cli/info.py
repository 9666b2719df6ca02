"""``dcu info``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from dcu import store
from dcu.cli import files, options
from dcu.cli.console import print_json, progress, say
from dcu.cli.report import Report
from dcu.cli.run import every_entry
from dcu.errors import UnavailableError
from dcu.walk import BITSTREAMS

if TYPE_CHECKING:
    from dcu.bitstream import Stream

app = typer.Typer(add_completion=False)


@app.command()
def info(inputs: options.Inputs = None, json: options.Json = False, quiet: options.Quiet = False) -> int:
    """Show size, layers, rate and codec of bitstreams.

    Example: dcu info photo.dcu
    """
    found = files.sources(inputs, BITSTREAMS, "bitstreams (.bin, .dcu)")
    report = Report(found, json, quiet)
    for entry in every_entry(progress(found.sources, "reading", quiet), report):
        with report.of(entry.name):
            stream = entry.stream
            facts = describe(entry.name, stream)
            if json:
                print_json(facts)
            else:
                show(facts, stream)
    return report.finish()


def codec_name(identity: bytes) -> str | None:
    """The name of the installed codec that a stream names, from the cards alone."""
    try:
        return store.find_codec(identity).name
    except UnavailableError:
        return None


def describe(name: str, stream: Stream) -> dict[str, Any]:
    """The facts of a stream, as ``--json`` prints them."""
    full = stream.full
    layers: list[dict[str, Any]] = [
        {"width": layer.width, "height": layer.height, "bytes": size}
        for layer, size in zip(stream.layers, stream.payload_bytes, strict=True)
    ]
    from dcu import metadata

    facts = {
        "input": name,
        "width": full.width,
        "height": full.height,
        "bytes": stream.size,
        "bpp": round(8 * stream.size / (full.width * full.height), 6),
        "codec": codec_name(stream.codec),
        "fingerprint": stream.codec.hex(),
        "layers": layers,
    }
    if facts["codec"] and store.codec_for(stream).card.points > 1:
        from dcu.codec import codec_of

        codec = codec_of(stream.codec)
        q = stream.operating_point
        not_coded = codec.share_not_coded(stream.full.operating_point)
        facts |= {"quality": q, "machines": stream.header.machines, "not_coded": not_coded}
        facts["gray"] = stream.header.gray
        for layer, groups in zip(layers, map(codec.group_bytes, stream.layers), strict=True):
            layer["groups"] = groups
    if stream.header.metadata:
        facts |= {"metadata": {"bytes": len(stream.header.metadata)} | metadata.facts(stream.header.metadata)}
    return facts


def show(facts: dict[str, Any], stream: Stream) -> None:
    """The facts for people."""
    from dcu.bitstream import CHECKSUM_BYTES

    layers = ", ".join(f"{x['width']}x{x['height']} in {x['bytes']} bytes" for x in facts["layers"])
    say(
        f"{facts['input']}: {facts['width']}x{facts['height']}, {facts['bytes']} bytes, {facts['bpp']:.4f} bpp",
        f"  codec     {facts['codec'] or 'not installed'} ({facts['fingerprint']})",
        f"  layers    {layers}",
        f"  bits      header {8 * stream.header_bytes}, payload {8 * sum(stream.payload_bytes)}, "
        f"checksum {8 * CHECKSUM_BYTES}",
    )
    if "quality" in facts:
        groups = "; ".join(" + ".join(map(str, layer["groups"])) for layer in facts["layers"])
        say(
            f"  quality   {facts['quality']} of 0 to 63, {100 * facts['not_coded']:.0f} % of symbols not coded"
            + (", gray" if facts["gray"] else "")
            + (", for machines" if stream.header.machines else ""),
            f"  groups    {groups} bytes",
        )
    if "metadata" in facts:
        say("  metadata  " + ", ".join(f"{name} {value}" for name, value in facts["metadata"].items()))
