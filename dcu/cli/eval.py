"""``dcu eval``: the metrics on the cards, measured on real files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dcu import store
from dcu.cli import console, files, options, places
from dcu.errors import UsageError

if TYPE_CHECKING:
    from dcu.data import Item

CLASSIFIER = "classifier-0.0983"
app = typer.Typer(add_completion=False, no_args_is_help=True, help="Measure models on real files.")
Data = Annotated[
    Path,
    typer.Argument(
        help="Directory or uncompressed tar.", show_default=False, parser=options.input_path, metavar="DATA"
    ),
]
Record = Annotated[bool, typer.Option("--record", help="State the metrics on the model's card.")]
CodecNames = Annotated[
    list[str] | None, typer.Option("--codec", help="Codec by name or path; repeated.", show_default="all installed")
]
Calibrate = Annotated[
    bool, typer.Option("--calibrate", help="Fit the probabilities' temperature to these images; goes on the card.")
]
Bits = Annotated[bool, typer.Option("--bits", help="Bits a symbol with and without the context model.")]
Baselines = Annotated[str, typer.Option("--rivals", help="Formats to compare with: jpeg,jpeg2000,webp,avif,jxl.")]
Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot", parser=options.output_path, metavar="FILE", help="Rate-distortion curves: .svg, .png or .pdf."
    ),
]
NetworkName = Annotated[
    str | None,
    typer.Option(
        "--network",
        help="Classifier by name or path.",
        show_default=f"{CLASSIFIER}; of bitstreams, their codec's",
    ),
]
Agreement = Annotated[
    bool, typer.Option("--agreement", help="How often it says what the RGB network says of the original; no labels.")
]
Native = Annotated[bool, typer.Option("--native", help="Images as they are, not their 224x224 center.")]


@app.command("codec")
def eval_codec(
    data: Data,
    codec: CodecNames = None,
    baselines: Baselines = "",
    plot: Plot = None,
    bits: Bits = False,
    force: options.Force = False,
    json: options.Json = False,
    record: Record = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> None:
    """Bytes, bits a pixel, PSNR and MS-SSIM of whole files, of every installed codec, and of other formats."""
    from dcu.data import dataset_name, items

    if plot is not None:
        if plot.suffix not in (".svg", ".png", ".pdf"):
            raise UsageError(f"--plot: {plot.name} ends neither in .svg nor in .png nor in .pdf")
        files.check_free(plot, force)  # before minutes of measuring
    models = [store.find(name, "codec") for name in codec] if codec else store.installed_codecs()
    found = items(data)
    if plot is not None:
        places.refuse(plot, [item.path for item in found], "--plot")
    if plot is not None or record:
        console.outlive_stdout()
    dataset = dataset_name(data)
    chosen_device = options.start(threads, device)
    from dcu.codec import Codec
    from dcu.evaluate import curves
    from dcu.evaluate.baselines import measure_setting, parse, settings
    from dcu.evaluate.codec import TIMES, bits_per_symbol, evaluate

    formats = parse(baselines)
    if formats or plot:
        curves.check_packages()
    ours = []
    for model in models:
        loaded = Codec.from_model(model, chosen_device)
        shown = console.progress(found, f"measuring {model.name}", quiet)
        metrics = evaluate(loaded, (item.image() for item in shown))
        ours.append({"dataset": dataset, "name": model.name} | metrics)
        console.print_rows(ours[-1:], json)
        if bits:
            console.print_rows([{"dataset": dataset, "name": model.name} | bits_per_symbol(loaded, found)], json)
    measured = [
        {"dataset": dataset} | measure_setting(*setting, (item.image() for item in found))
        for setting in console.progress(settings(formats), "measuring other formats", quiet)
    ]
    drawn = curves.of(ours, measured)
    for format in formats:
        console.print_rows(drawn["psnr"][format], json)
    against = curves.differences(ours, drawn)
    console.print_rows(against, json)
    console.print_rows(curves.savings(drawn), json)
    if record:
        for model, row in zip(models, ours, strict=True):
            metrics = {k: v for k, v in row.items() if k != "name" and k not in TIMES}
            store.record(model, metrics | curves.stated(model.name, against))
    if plot is not None:
        title = f"{dataset}, {len(found)} images"
        files.put(plot, curves.plot(drawn, title, plot.suffix.removeprefix(".")), force)


@app.command("classifier")
def eval_classifier(
    data: Data,
    network: NetworkName = None,
    agreement: Agreement = False,
    native: Native = False,
    calibrate: Calibrate = False,
    engine: options.EngineName = "auto",
    baselines: Baselines = "",
    json: options.Json = False,
    record: Record = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> None:
    """Top-1 and top-5 on a directory or tar whose subdirectories are classes (WNIDs); other files of as many bytes."""
    from dcu.data import LABELLED, dataset_name, items
    from dcu.image import SUFFIXES

    if baselines and (agreement or native or calibrate):
        raise UsageError("--rivals only compares: not with --agreement, --native or --calibrate")
    if agreement and (native or calibrate):
        raise UsageError("--agreement goes by the field's protocol: not with --native or --calibrate")
    if record and calibrate:
        raise UsageError("--record states metrics of images that nothing was fitted to: not with --calibrate")
    if native and (record or calibrate):
        raise UsageError("--record and --calibrate go by the field's protocol: not with --native")
    chosen = "pytorch" if baselines else options.chosen_engine(engine)  # as the RGB network's
    named = None if network is None else store.find(network, "classifier")
    found = items(data, SUFFIXES if baselines or agreement else LABELLED)
    model = named or classifier_of(found[0])
    if record or calibrate:
        console.outlive_stdout()
    dataset = dataset_name(data)
    chosen_device = options.start(threads, device)
    from dcu.evaluate.baselines import parse
    from dcu.evaluate.classifier import ask, best_temperature, class_numbers, compare, evaluate, rgb_numbers
    from dcu.tasks.classify import Classifier

    formats = parse(baselines)
    classifier = Classifier.load(model.directory, chosen_device, chosen)
    shown = console.progress(found, "measuring", quiet)
    if formats:
        tuned = store.networks("rgb-classifier", model.fingerprint)
        rows = compare(classifier, found, shown, formats, *tuned[:1])
        console.print_rows([{"dataset": dataset} | row for row in rows], json)
        if record:
            untimed = [{name: value for name, value in row.items() if name != "ms"} for row in rows]
            store.amend(model, {"rivals": {"dataset": dataset, "rows": untimed}})
        return
    if agreement:
        numbers = rgb_numbers(classifier, console.progress(found, "asking the RGB network", quiet))
    else:
        numbers = class_numbers(classifier, found)
    answers, temperature = ask(classifier, numbers, shown, native), classifier.temperature
    if calibrate:
        temperature = best_temperature(answers)
        fitted_to = {"dataset": dataset, "count": len(found)}
        store.amend(model, {"temperature": temperature, "calibrated_on": fitted_to})
    facts = {"dataset": dataset} | evaluate(answers, temperature)
    facts |= {"temperature": temperature, "engine": "pytorch" if native else classifier.engine}
    if agreement:
        facts = {key: facts[key] for key in ("dataset", "count", "bpp", "engine")} | {"agreement": facts["top1"]}
    console.print_rows([{"network": model.name} | facts], json)
    if record:
        store.record(model, facts)


def classifier_of(item: Item) -> store.Model:
    """The classifier that answers where none is named: of a bitstream, that of its codec.

    Raises
    ------
    InvalidInputError, UnavailableError
        A broken bitstream, with its name; no such codec or classifier is installed.
    """
    if not item.is_bitstream:
        return store.find(CLASSIFIER, "classifier")
    from dcu.bitstream import read

    with item.named():
        codec = store.codec_for(read(item.read()))
    return store.find_network("classifier", codec.fingerprint)


@app.command("segmenter")
def eval_segmenter(
    data: Data,
    network: Annotated[str, typer.Option("--network", help="Segmenter by name or path.")] = "segmenter-0.0983",
    json: options.Json = False,
    record: Record = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> None:
    """Mean intersection over union on a directory or tar of images/ and labels/; of RGB counterparts too."""
    from dcu.data import dataset_name, pairs

    model, found = store.find(network), pairs(data)
    if record:
        console.outlive_stdout()
    chosen_device = options.start(threads, device)
    from dcu.codec import codec_of
    from dcu.evaluate.segmenter import LatentAnswer, RgbCounterpart, evaluate
    from dcu.tasks.segment import Segmenter

    asked: LatentAnswer | RgbCounterpart
    if model.kind == "rgb-segmenter":
        asked = RgbCounterpart(model, codec_of(model.identity))
    else:
        asked = LatentAnswer(Segmenter.load(model.directory, chosen_device))
    facts = {"dataset": dataset_name(data)} | evaluate(asked, found, console.progress(found, "measuring", quiet))
    console.print_rows([facts], json)
    if record:
        store.record(model, facts)
