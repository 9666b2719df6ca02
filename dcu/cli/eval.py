"""``dcu eval``: rate, distortion and accuracy on real files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dcu import cards, store
from dcu.cards import Result, Sample
from dcu.cli import console, options
from dcu.cli.eval_codec import Data, Record, eval_codec, eval_rates
from dcu.cli.eval_retrieval import eval_retrieval
from dcu.errors import UsageError

if TYPE_CHECKING:
    from dcu.codec import Codec
    from dcu.data import Item

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Evaluate models on data sets.")
Quality = Annotated[
    int | None,
    typer.Option(
        "--quality",
        metavar="Q",
        min=0,
        max=63,
        help="Operating point at which a codec of many compresses the images.",
        show_default="that of 0.0983 bpp",
    ),
]
NetworkName = Annotated[
    str | None,
    options.model("--network", "classifier", show_default="classifier-2, or matching the bitstreams"),
]
Agreement = Annotated[
    bool,
    typer.Option("--agreement", help="Measure agreement with the RGB teacher instead of accuracy; needs no labels."),
]
Native = Annotated[
    bool, typer.Option("--native", help="Evaluate images at native size instead of the 224x224 center crop.")
]


app.command("codec")(eval_codec)
app.command("rates")(eval_rates)
app.command("retrieval")(eval_retrieval)


@app.command("classifier")
def eval_classifier(
    data: Data,
    network: NetworkName = None,
    agreement: Agreement = False,
    native: Native = False,
    quality: Quality = None,
    made_for: options.MadeFor = "people",
    engine: options.EngineName = "auto",
    json: options.Json = False,
    record: Record = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
    calibrate: Annotated[bool, options.moved("--calibrate", "dcu eval calibrate")] = False,
    rivals: Annotated[str, options.moved("--rivals", "dcu eval baselines")] = "",
) -> None:
    """Measure top-1 and top-5 accuracy of a classifier.

    DATA contains one directory of images or bitstreams per class, named by WNID
    or label.

    Example: dcu eval classifier imagenet1000-val.tar --quality 36
    """
    from dcu.data import LABELLED, dataset_name, items
    from dcu.image import SUFFIXES

    if agreement and native:
        raise UsageError("--agreement and --native cannot be combined")
    if native and record:
        raise UsageError("--record and --native cannot be combined")
    found = items(data, SUFFIXES if agreement else LABELLED)
    model = classifier_model(network, found[0])
    chosen_device = options.start(threads, device)
    if record:
        console.outlive_stdout()
    from dcu.codec import codec_of
    from dcu.evaluate.classifier import class_numbers, evaluate, rgb_numbers, run_dataset
    from dcu.evaluate.cost import path_cost
    from dcu.tasks.classify import Classifier

    classifier = Classifier(model, codec_of(model.identity, chosen_device, "float32"), chosen_device, engine)
    compressed = all(item.is_bitstream for item in found)
    machines = options.for_machines(made_for, [store.find_codec(model.identity)])
    if compressed and (quality is not None or machines):
        option = "--for" if machines else "--quality"
        raise UsageError(f"{option}: DATA contains bitstreams, which are not compressed again")
    made = kinds_of(found) if record else set()
    if len(made) + (not compressed) > 1:
        raise UsageError("--record: DATA contains bitstreams of several operating points, or beside images")
    points = [] if compressed else [point_of(classifier.codec, quality, machines)]
    network_points = [classifier.codec.network_point(point, machines) for point in points]
    if agreement:
        numbers = rgb_numbers(classifier, console.progress(found, "running the RGB network", quiet))
    else:
        numbers = class_numbers(classifier, found)
    outputs = run_dataset(classifier, numbers, console.progress(found, "measuring", quiet), native, network_points)
    metrics, used = evaluate(outputs, classifier.temperature), "pytorch" if native else classifier.engine
    facts: dict[str, Any] = {"dataset": dataset_name(data)}
    kinds = [(points[0], machines)] if points else list(made)
    if classifier.codec.points > 1 and kinds:
        facts["quality"], facts["machines"] = kinds[0]
    if agreement:
        facts |= {"count": metrics.count, "bytes": metrics.bytes, "bpp": metrics.bpp, "engine": used}
        facts |= {"agreement": metrics.top1, "agreement_se": metrics.top1_se}
    else:
        facts |= asdict(metrics) | {"temperature": classifier.temperature, "engine": used}
    console.print_rows([{"network": model.name} | facts], json)
    if record:
        if points:
            facts["macs"] = path_cost(classifier, points[0], machines)
        store.record(model, Result(**facts))


def kinds_of(found: Sequence[Item]) -> set[tuple[int, bool]]:
    """Operating point, and whether it is for machines, of the bitstreams among items; raises InvalidInputError."""
    from dcu.bitstream import read_head

    kinds = set()
    for item in found:
        if item.is_bitstream:
            with item.named():
                header = read_head(memoryview(item.read())).header
            kinds.add((header.operating_point, header.machines))
    return kinds


@app.command("calibrate")
def eval_calibrate(
    data: Data,
    network: NetworkName = None,
    engine: options.EngineName = "auto",
    json: options.Json = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> None:
    """Fit the temperature of a classifier's probabilities.

    The fit uses labeled images, at all operating points of the codec in turn, of
    streams for people and for machines; the result is written to the model card.

    Example: dcu eval calibrate held-out.tar --network classifier-0.330
    """
    from dcu.data import LABELLED, dataset_name, items

    found, dataset = items(data, LABELLED), dataset_name(data)
    model = classifier_model(network, found[0])
    chosen_device = options.start(threads, device)
    from dcu.codec import codec_of
    from dcu.evaluate.classifier import best_temperature, class_numbers, evaluate, run_dataset
    from dcu.tasks.classify import Classifier

    classifier = Classifier(model, codec_of(model.identity, chosen_device, "float32"), chosen_device, engine)
    numbers = class_numbers(classifier, found)
    points = classifier.codec.network_points
    outputs = run_dataset(classifier, numbers, console.progress(found, "measuring", quiet), False, points)
    temperature = best_temperature(outputs)
    calibration = Sample(dataset, len(found))
    store.amend(model, partial(replace, temperature=temperature, calibration=calibration))
    facts = {"network": model.name, "dataset": dataset} | asdict(evaluate(outputs, temperature))
    console.print_rows([facts | {"temperature": temperature, "engine": classifier.engine}], json)


@app.command("baselines")
def eval_baselines(
    data: Data,
    formats: Annotated[str, options.formats("--formats")] = "avif,webp,jpeg",
    network: NetworkName = None,
    quality: Quality = None,
    made_for: options.MadeFor = "people",
    json: options.Json = False,
    record: Record = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> None:
    """Compare accuracy at equal file size with RGB pipelines.

    Runs the RGB network on images decoded by dcu and on other formats.

    Example: dcu eval baselines imagenet1000-val.tar --formats webp,avif
    """
    from dcu.data import dataset_name, items
    from dcu.image import SUFFIXES

    found, dataset = items(data, SUFFIXES), dataset_name(data)
    model = classifier_model(network, found[0])
    chosen_device = options.start(threads, device)
    if record:
        console.outlive_stdout()
    from dcu.codec import codec_of
    from dcu.evaluate.baselines import check_available
    from dcu.evaluate.classifier import compare, merged
    from dcu.tasks.classify import Classifier

    chosen = options.format_names(formats)
    check_available(chosen)
    codec = codec_of(model.identity, chosen_device, "float32")
    classifier = Classifier(model, codec, chosen_device, "pytorch")  # as the RGB network
    tuned = store.networks("rgb-classifier", model.fingerprint)
    machines = options.for_machines(made_for, [store.find_codec(model.identity)])
    point = point_of(codec, quality, machines)
    progress = console.progress(found, "measuring", quiet)
    rows = compare(codec, [classifier], found, progress, chosen, next(iter(tuned), None), point, machines)
    console.print_rows([{"dataset": dataset} | row.row() for row in rows], json)
    if record:
        others = tuple(row.baseline() for row in rows if row.pipeline.input != "latent")
        named = point if codec.points > 1 else None
        measured = cards.Baselines(dataset, len(found), others, named, machines)
        store.amend(model, lambda card: replace(card, baselines=merged(card.baselines, measured)))


def point_of(codec: Codec, quality: int | None, machines: bool) -> int:
    """The operating point that the user named, or a codec's default; raises UsageError."""
    try:
        return codec.point(quality, machines)
    except ValueError as error:
        raise UsageError(f"{codec.name}: {error}") from error


def classifier_model(name: str | None, item: Item) -> store.Model:
    """The classifier of a name; without one, the default, or for a bitstream that of its codec.

    Raises
    ------
    InvalidInputError, UnavailableError
        A broken bitstream, with its name; no such codec or classifier is installed.
    """
    if name is not None or not item.is_bitstream:
        return store.find(name, "classifier")
    from dcu.bitstream import read

    with item.named():
        codec = store.codec_for(read(item.read()))
    return store.find_network("classifier", codec.fingerprint)


@app.command("segmenter")
def eval_segmenter(
    data: Data,
    network: Annotated[
        str | None,
        options.model("--network", "segmenter", "rgb-segmenter", show_default="segmenter-2"),
    ] = None,
    quality: Quality = None,
    made_for: options.MadeFor = "people",
    json: options.Json = False,
    record: Record = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> None:
    """Measure mean intersection over union of a segmenter.

    DATA contains images/ and labels/.

    Example: dcu eval segmenter camvid-val.tar --quality 36
    """
    from dcu.data import dataset_name, pairs

    model, found = store.find(network, "segmenter", "rgb-segmenter"), pairs(data)
    chosen_device = options.start(threads, device)
    if record:
        console.outlive_stdout()
    from dcu.codec import codec_of
    from dcu.evaluate.segmenter import LatentAnswer, RgbCounterpart, evaluate
    from dcu.tasks.segment import Segmenter

    machines = options.for_machines(made_for, [store.find_codec(model.identity)])
    asked: LatentAnswer | RgbCounterpart
    if model.kind == "rgb-segmenter":
        asked = RgbCounterpart(model, codec_of(model.identity, precision="float32"))
    else:
        asked = LatentAnswer(Segmenter(model, codec_of(model.identity, chosen_device, "float32"), chosen_device))
    point = point_of(asked.codec, quality, machines)
    metrics = evaluate(asked, found, console.progress(found, "measuring", quiet), point, machines)
    facts: dict[str, Any] = {"dataset": dataset_name(data)} | asdict(metrics)
    if asked.codec.points > 1:
        facts |= {"quality": point, "machines": machines}
    console.print_rows([facts], json)
    if record:
        store.record(model, Result(**facts))
