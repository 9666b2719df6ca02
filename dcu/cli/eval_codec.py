"""``dcu eval codec`` and ``dcu eval rates``: codecs on images, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dcu import store
from dcu.cards import Card, Result
from dcu.cli import console, files, options, places
from dcu.errors import UsageError

if TYPE_CHECKING:
    from dcu.evaluate.codec import Point
    from dcu.evaluate.curves import Gain, Saving

NOT_RECORDED = ("name", "setting", "encode_ms", "decode_ms")
"""Of a codec's metrics on its card: what the card says elsewhere, and what this machine takes."""
PLOTS = (".svg", ".png", ".pdf")
Data = Annotated[
    Path, typer.Argument(metavar="DATA", help="Directory or uncompressed tar.", show_default=False, readable=False)
]
Record = Annotated[bool, typer.Option("--record", help="Write the results to the model card.")]
CodecNames = Annotated[
    list[str] | None,
    options.model("--codec", "codec", help="Codec by name or path; repeatable.", show_default="all installed"),
]
Bits = Annotated[bool, typer.Option("--bits", help="Also print bits per symbol with and without the context model.")]
AT_MOST = "Use at most N images, spread evenly over the data."
Qualities = Annotated[
    list[int] | None,
    typer.Option(
        "--quality",
        metavar="Q",
        min=0,
        max=63,
        help="Operating point to measure, 0 to 63; repeatable.",
        show_default="ten, from the lowest to the highest",
    ),
]
Images = Annotated[int | None, typer.Option(metavar="N", min=1, help=AT_MOST, show_default="all")]
Baselines = Annotated[str, options.formats("--baselines")]
Plot = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", help="Plot rate-distortion curves to a .svg, .png or .pdf file."),
]
Published = Annotated[
    bool,
    typer.Option("--published", help="Also plot the published curves of BPG and VTM, means over all 24 Kodak images."),
]
CompressAi = Annotated[
    Path | None,
    typer.Option(
        "--compressai", metavar="FILE", help="Write the curve to a .json file in the format of CompressAI's results."
    ),
]


def eval_codec(
    data: Data,
    codec: CodecNames = None,
    quality: Qualities = None,
    images: Images = None,
    baselines: Baselines = "",
    plot: Plot = None,
    published: Published = False,
    compressai: CompressAi = None,
    bits: Bits = False,
    made_for: options.MadeFor = "people",
    force: options.Force = False,
    json: options.Json = False,
    record: Record = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
    precision: options.Precision = "float32",
    rivals: Annotated[str, options.moved("--rivals", "--baselines")] = "",
) -> None:
    """Measure rate, PSNR and MS-SSIM of codecs and other formats.

    Example: dcu eval codec kodak-odd.tar --baselines webp,avif --plot rd.svg
    """
    from dcu.bench.points import points_of
    from dcu.data import dataset_name, items, shown

    if published and plot is None:
        raise UsageError("--published needs --plot")
    outputs = {"--plot": (plot, PLOTS), "--compressai": (compressai, (".json",))}
    written = {option: (path, suffixes) for option, (path, suffixes) in outputs.items() if path is not None}
    for option, (path, suffixes) in written.items():
        check_suffix(path, suffixes, option)
        files.check_free(path, force)  # before minutes of measuring
    models = [store.find(name, "codec") for name in codec] if codec else store.installed_codecs()
    if len({model.name for model in models}) < len(models):
        raise UsageError("two codecs have one name: measure them one by one")
    if quality and record:
        raise UsageError("--record is for the whole curve, without --quality")
    if quality:
        for model in models:
            points_of(model, [], quality)  # refuses what a codec does not have
    if bits and all(model.card.points > 1 for model in models):
        raise UsageError("--bits is for codecs of one rate")
    if compressai is not None:
        check_one_curve(models)
    machines = options.for_machines(made_for, models)
    found = shown(items(data), images)
    for option, (path, _) in written.items():
        places.refuse(path, [item.path for item in found], option)
    if written or record:
        console.outlive_stdout()
    dataset = dataset_name(data)
    chosen_device = options.start(threads, device)
    from dcu.codec import Codec
    from dcu.evaluate import curves
    from dcu.evaluate.baselines import check_available, measure_setting, settings
    from dcu.evaluate.codec import bits_per_symbol, evaluate, measured_points
    from dcu.evaluate.compressai import result_file
    from dcu.evaluate.published import published_points

    formats = options.format_names(baselines)
    check_available(formats)
    if formats or plot:
        curves.check_packages()
    ours = []
    for model in models:
        loaded = Codec.from_model(model, chosen_device, precision)
        for point in quality or measured_points(loaded):
            at = "" if point is None else f" at quality {point}"
            progress = console.progress(found, f"measuring {model.name}{at}", quiet)
            ours.append(evaluate(loaded, (item.image() for item in progress), point, machines))
            console.print_rows([{"dataset": dataset} | ours[-1].row()], json)
        if bits and loaded.points == 1:
            saved = asdict(bits_per_symbol(loaded, found))
            console.print_rows([{"dataset": dataset, "name": model.name} | saved], json)
    measured = [
        measure_setting(*setting, (item.image() for item in found))
        for setting in console.progress(settings(formats), "measuring other formats", quiet)
    ]
    drawn = curves.of(ours, measured)
    for format in formats:
        console.print_rows([{"dataset": dataset} | point.row() for point in drawn["psnr"][format]], json)
    gains, savings = curves.gains(ours, drawn), curves.savings(ours, drawn)
    console.print_rows([gain.row() for gain in gains] if json else curves.table(gains), json)
    console.print_rows([saving.row() for saving in savings], json)
    if record:
        for model in models:
            own = [point for point in ours if point.name == model.name]
            record_codec(model, dataset, machines, own, gains, savings)
    if plot is not None:
        title, beside = f"{dataset}, {len(found)} images", published_points() if published else []
        files.put(plot, curves.plot(drawn, title, plot.suffix.removeprefix("."), beside), force)
    if compressai is not None:
        files.put(compressai, result_file(dataset, ours), force)


def check_suffix(path: Path, suffixes: Sequence[str], option: str) -> None:
    """Raise UsageError where an output file has another extension."""
    if path.suffix not in suffixes:
        listed = ", ".join(suffixes[:-1]) + " or " if len(suffixes) > 1 else ""
        raise UsageError(f"{option}: {path.name} must end in {listed}{suffixes[-1]}")


def check_one_curve(models: Sequence[store.Model]) -> None:
    """Raise UsageError where codecs are not points of one curve."""
    if len(models) > 1 and any(model.card.points > 1 for model in models):
        raise UsageError("--compressai holds one curve: name one codec, or codecs of one rate")


def record_codec(
    model: store.Model,
    dataset: str,
    machines: bool,
    points: Sequence[Point],
    gains: Sequence[Gain],
    savings: Sequence[Saving],
) -> None:
    """Write a codec's metrics on its card, what it gains over other formats, and the mean savings of its curve."""
    for point in points:
        metrics = {key: value for key, value in asdict(point).items() if key not in NOT_RECORDED}
        against = {gain.against: gain.difference for gain in gains if gain.point is point}
        model = store.record(model, Result(dataset, **metrics, machines=machines, against=against))
    rates = [saving.on_card(dataset, points[0].count, machines) for saving in savings if saving.name == model.name]
    if rates:

        def change(card: Card) -> Card:
            kept = [old for old in card.bd_rates if not any(rate.replaces(old) for rate in rates)]
            return replace(card, bd_rates=(*kept, *rates))

        store.amend(model, change)


def eval_rates(
    data: Data,
    codec: Annotated[str, options.model("--codec", "codec", help="Codec with 64 operating points, by name or path.")],
    images: Annotated[int, typer.Option(metavar="N", min=1, help=AT_MOST)] = 500,
    made_for: options.MadeFor = "people",
    json: options.Json = False,
    record: Record = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> None:
    """Measure the mean rate of each operating point.

    compress --rate selects operating points by these rates.

    Example: dcu eval rates photos/ --codec codec-2 --record
    """
    from dcu.data import dataset_name, items, shown

    model = store.find(codec, "codec")
    machines = options.for_machines(made_for, [model])
    found = shown(items(data), images)
    chosen_device = options.start(threads, device)
    from dcu.codec import Codec
    from dcu.evaluate.codec import measured_rates

    loaded = Codec.from_model(model, chosen_device, "float32")
    if loaded.points == 1:
        raise UsageError(f"{model.name}: has only one operating point")
    if record:
        console.outlive_stdout()
    progress = console.progress(found, f"measuring {model.name}", quiet)
    rates = measured_rates(loaded, dataset_name(data), (item.image() for item in progress), machines)
    common = {"dataset": rates.dataset, "name": model.name, "count": rates.count}
    console.print_rows([common | {"quality": q, "bpp": bpp} for q, bpp in enumerate(rates.bpp)], json)
    if record:
        change = partial(replace, machine_rates=rates) if machines else partial(replace, rates=rates)
        store.amend(model, change)
