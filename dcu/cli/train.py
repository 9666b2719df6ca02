"""``dcu train``: codecs, classifiers and segmenters, from recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dcu import install, store
from dcu.cli import console, options, places
from dcu.cli.training import (
    Data,
    ForceModel,
    Given,
    Init,
    Minutes,
    Options,
    Out,
    Recipe,
    Resume,
    Runs,
    Set,
    check_place,
    destination,
    left_out,
    on_images,
    opened,
    train,
)
from dcu.errors import DcuError, UsageError

if TYPE_CHECKING:
    from dcu.train.loop import Run
    from dcu.train.recipe import Recipe as FoundRecipe
    from dcu.train.segmenter import SegmenterBatch

RESNETS = "paper"
"""The recipe of networks that are trained from labels."""
app = typer.Typer(add_completion=False, no_args_is_help=True, help="Train codecs, classifiers and segmenters.")


@on_images(app, "codec")
def train_codec(given: Given) -> int:
    """Train a codec on images.

    Example: dcu train codec codec-0.330 --data images/ --out mine
    """
    from dcu.data import gather, replaceable
    from dcu.train import parallel
    from dcu.train.codec import CodecTask, CodecTraining
    from dcu.train.export import codec_model, variable_rate_model
    from dcu.train.variable_rate import VariableRateTask, VariableRateTraining

    found, place = opened(given.recipe, given.settings, given.runs, given.options)
    parts: Any
    make: Any
    model: Any
    if found.has("variable_rate"):
        parts = found.sections(VariableRateTraining)
        recipe, make, model = parts.variable_rate, VariableRateTask, variable_rate_model
    else:
        parts = found.sections(CodecTraining)
        recipe, make, model = parts.codec, CodecTask, codec_model
    items, directory = replaceable(gather(given.data)), destination(recipe.name, given.out, given.options)
    with parallel.processes(given.device):
        task = make(recipe, parts.data, items, parts.schedule.seed, given.device)

        def write(run: Run[Any]) -> Path:
            written: store.Model = model(run, task, items, directory)
            return written.directory

        return train(task, parts.schedule, place, items, directory, given.options, write)


@on_images(app, "joint")
def train_joint(given: Given) -> int:
    """Train streams for machines with a classifier.

    Begins with the checkpoint of a codec of many operating points (--init);
    a second --init names a checkpoint of a classifier.
    The classifier is written to --out with the suffix -classifier.

    Example: dcu train joint mine.toml --data images/ --init a.safetensors
    """
    from dcu.data import gather, replaceable
    from dcu.train import parallel
    from dcu.train.export import is_earlier_state, joint_models
    from dcu.train.joint import JointTask, JointTraining

    found, place = opened(given.recipe, given.settings, given.runs, given.options)
    parts, chosen = found.sections(JointTraining), given.options
    if not (chosen.init or chosen.resume):
        raise UsageError("--init with the checkpoint of a codec is required")
    items, directory = replaceable(gather(given.data)), destination(parts.variable_rate.name, given.out, chosen)
    classifier = destination(directory.name, directory.with_name(f"{directory.name}-classifier"), chosen)
    with parallel.processes(given.device):
        common = (parts.data, items, parts.schedule.seed, given.device)
        task = JointTask(parts.variable_rate, parts.reader, *common)

        def write(run: Run[Any]) -> Path:
            same = chosen.resume and is_earlier_state(classifier, run, items)
            install.check_free(classifier, chosen.force or same)
            return joint_models(run, task, items, directory, classifier)[0].directory

        return train(task, parts.schedule, place, items, directory, chosen, write)


@app.command("classifier")
def train_classifier(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE]",
            help="Path of a TOML recipe, or name of a bundled one.",
            show_default=f"{RESNETS} with --network",
        ),
    ] = None,
    *,
    data: Data,
    out: Out = None,
    runs: Runs = Path("runs"),
    init: Init = None,
    settings: Set = None,
    resume: Resume = False,
    force: ForceModel = False,
    minutes: Minutes = None,
    threads: options.Threads = None,
    device: options.Device = "auto",
    network: Annotated[
        str | None,
        typer.Option(
            "--network",
            metavar="NAME",
            help="Train this network from class labels: resnet50, resnet71, cresnet39, cresnet51 or cresnet72.",
            show_default="of the recipe",
        ),
    ] = None,
    seen: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="INPUT",
            help="With --network: latent, decoded or original.",
            show_default="latent for a cResNet, decoded for a ResNet",
        ),
    ] = None,
    codec: Annotated[
        str | None, options.model("--codec", "codec", help="With --network: the codec.", show_default="of the recipe")
    ] = None,
    labels: Annotated[str | None, options.moved("--labels", "dcu train head")] = None,
) -> int:
    """Train a classifier on latents, or for comparison on images.

    Without --network it is distilled from the RGB network, which needs no labels.
    With --network it is trained from labels: DATA contains one directory of
    images per class.

    Example: dcu train classifier classifier-0.330 --data images/ --out mine
    """
    chosen_device = options.start(threads, device)
    from dcu.codec import Codec
    from dcu.data import gather, replaceable
    from dcu.train import parallel
    from dcu.train.adapter import AdapterTask, ClassifierTraining
    from dcu.train.classifier import ClassifierTask
    from dcu.train.export import classifier_model
    from dcu.train.recipe import find_recipe

    if recipe is None and network is None:
        raise UsageError("RECIPE or --network is required")
    compared = resnet_settings(network, seen, codec)
    found = find_recipe(recipe or RESNETS, [*compared, *(settings or [])])
    if compared and found.has("resnet") and not any(each.startswith("resnet.name") for each in settings or []):
        found.tables["resnet"]["name"] = resnet_name(found.tables["resnet"])
    chosen = Options(init, resume, minutes, force)
    if found.has("resnet"):
        return train_resnet(found, data, out, runs, chosen, chosen_device, bool(compared))
    if compared:
        raise UsageError("--network, --input and --codec require a recipe with [resnet]")
    parts, place = found.sections(ClassifierTraining), runs / found.name
    check_place(place, chosen)
    items, directory = replaceable(gather(data)), destination(parts.classifier.name, out, chosen)
    places.refuse(directory, [store.find(parts.classifier.codec, "codec").directory], "--out")
    with parallel.processes(chosen_device):
        loaded = Codec.load(parts.classifier.codec, chosen_device, "float32")
        common = (parts.data, loaded, items, parts.schedule.seed)
        task: ClassifierTask | AdapterTask
        if parts.adapter.views:
            task = AdapterTask(parts.classifier, parts.adapter, *common)
        else:
            task = ClassifierTask(parts.classifier, *common)

        def write(run: Run[Any]) -> Path:
            return classifier_model(run, task, loaded, items, directory).directory

        return train(task, parts.schedule, place, items, directory, chosen, write)


def resnet_settings(network: str | None, seen: str | None, codec: str | None) -> list[str]:
    """Settings of the section [resnet] that options stand for; raises UsageError."""
    from dcu.nets.resnet import BLOCKS

    if network is not None and network not in BLOCKS:
        raise UsageError(f"--network must be one of {', '.join(BLOCKS)}, not '{network}'")
    if network is not None and seen is None:
        seen = "decoded" if BLOCKS[network][0] else "latent"
    chosen = {"network": network, "input": seen, "codec": codec}
    return [f"resnet.{key}={json.dumps(value)}" for key, value in chosen.items() if value is not None]


def resnet_name(section: dict[str, Any]) -> str:
    """What a network is called, after itself and the codec that it reads."""
    read = "original" if section.get("input") == "original" else Path(str(section.get("codec"))).name
    return f"{section.get('network')}-{read.removeprefix('codec-')}"


def train_resnet(
    found: FoundRecipe, data: list[Path], out: Path | None, runs: Path, chosen: Options, device: str, named: bool
) -> int:
    """Train a ResNet from class labels; where options name the network, its run is called as its model."""
    from dcu.codec import Codec
    from dcu.data import gather, replaceable
    from dcu.train import parallel
    from dcu.train.export import resnet_model
    from dcu.train.resnet import ResNetTask, ResNetTraining

    parts = found.sections(ResNetTraining)
    place = runs / (parts.resnet.name if named else found.name)
    check_place(place, chosen)
    items, directory = replaceable(gather(data)), destination(parts.resnet.name, out, chosen)
    places.refuse(directory, [store.find(parts.resnet.codec, "codec").directory], "--out")
    with parallel.processes(device):
        loaded = Codec.load(parts.resnet.codec, device, "float32")
        task = ResNetTask(parts.resnet, parts.data, loaded, items, parts.schedule.seed, runs)

        def write(run: Run[Any]) -> Path:
            return resnet_model(run, task, items, directory).directory

        return train(task, parts.schedule, place, items, directory, chosen, write)


@app.command("segmenter")
def train_segmenter(
    recipe: Recipe,
    data: Annotated[Path, typer.Option("--data", metavar="PATH", help="Directory or tar with images/ and labels/.")],
    out: Out = None,
    runs: Runs = Path("runs"),
    init: Init = None,
    settings: Set = None,
    resume: Resume = False,
    force: ForceModel = False,
    minutes: Minutes = None,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> int:
    """Train a latent segmenter on labeled images.

    Weights are initialized from the classifier of the same codec.

    Example: dcu train segmenter segmenter-0.330 --data camvid.tar --out mine
    """
    chosen_device = options.start(threads, device)
    from dcu.codec import Codec
    from dcu.data import pairs, readable
    from dcu.train import parallel
    from dcu.train.export import segmenter_model
    from dcu.train.segmenter import SegmenterTask, SegmenterTraining

    chosen = Options(init, resume, minutes, force)
    found, place = opened(recipe, settings, runs, chosen)
    parts = found.sections(SegmenterTraining)
    labeled, directory = readable(pairs(data)), destination(parts.segmenter.name, out, chosen)
    places.refuse(directory, [store.find(parts.segmenter.codec, "codec").directory], "--out")
    with parallel.processes(chosen_device):
        codec = Codec.load(parts.segmenter.codec, chosen_device, "float32")
        task = SegmenterTask(parts.segmenter, parts.data, codec, labeled, parts.schedule.seed)
        items = [pair.image for pair in labeled]

        def write(run: Run[SegmenterBatch]) -> Path:
            return segmenter_model(run, task, codec, items, directory).directory

        return train(task, parts.schedule, place, items, directory, chosen, write)


@app.command("mean")
def train_mean(
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help="Classifiers or segmenters by name or path.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Output directory of the model.")],
    shares: Annotated[
        list[float] | None,
        typer.Option("--share", metavar="W", help="Averaging weight of each model; repeatable.", show_default="1"),
    ] = None,
    rgb: Annotated[
        float, typer.Option("--rgb", metavar="W", help="Averaging weight of the RGB network's late layers.")
    ] = 0,
    force: ForceModel = False,
) -> None:
    """Average the weights of several models.

    Example: dcu train mean trained/a trained/b --out trained/mean-0.330
    """
    from dcu.train.averaging import mean_model

    found = [store.find(name) for name in models]
    directory = install.place_for(out.name, out)
    places.refuse(directory, [model.directory for model in found], "--out")
    install.check_free(directory, force)
    console.outlive_stdout()
    console.say(str(mean_model(found, shares or [1.0] * len(found), directory, rgb, force).directory))


@app.command("head")
def train_head(
    labels: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="Directory or tar with one directory of images or bitstreams per class."),
    ],
    codec: Annotated[
        str | None,
        options.model("--codec", "codec", help="Codec whose latents are classified.", show_default="codec-2"),
    ] = None,
    out: Out = None,
    force: ForceModel = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> int:
    """Fit a classifier's last layer to custom classes.

    Example: dcu train head flowers/ --out trained/flowers
    """
    chosen_device = options.start(threads, device)
    from dcu.data import LABELLED, dataset_name, items
    from dcu.tasks.classify import Classifier
    from dcu.train.head import own_classifier

    model = store.find(codec, "codec")
    network = store.find_network("classifier", model.fingerprint)
    classifier = Classifier.load(network.directory, chosen_device)
    found = items(labels, LABELLED)
    directory = install.place_for(f"{dataset_name(labels)}-{model.name.removeprefix('codec-')}", out)
    places.refuse(directory, [network.directory, model.directory], "--out")
    install.check_free(directory, force)
    failures: list[DcuError] = []

    def report(error: DcuError) -> None:
        failures.append(error)
        console.complain(str(error))

    progress = console.progress(found, "looking", False)
    written = own_classifier(classifier, found, progress, directory, report, force)
    result = written.card.results[0]
    counts = f"{len(written.card.classes)} classes, {len(found) - len(failures)} images"
    counts += f"; {result.count} held-out images"
    top5 = f", top-5 {100 * (result.top5 or 0):.1f} %" if len(written.card.classes) > 5 else ""
    console.note(f"{counts}: top-1 {100 * (result.top1 or 0):.1f} %{top5}")
    console.outlive_stdout()
    console.say(str(written.directory))
    return left_out(failures)
