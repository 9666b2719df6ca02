"""``dcu train``: codecs, classifiers and segmenters, from recipes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import typer

from dcu import install, store
from dcu.cli import console, options, places
from dcu.errors import DcuError, UsageError

if TYPE_CHECKING:
    from dcu.data import Item
    from dcu.train.loop import Run, Task
    from dcu.train.recipe import Schedule
    from dcu.train.segmenter import SegmenterBatch

B = TypeVar("B")
CHECKPOINT = "checkpoint.safetensors"
"""In the directory of a run, as `dcu.train.loop` writes it."""
app = typer.Typer(add_completion=False, no_args_is_help=True, help="Train codecs, classifiers and segmenters.")
Recipe = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="Path of a TOML recipe, or name of a bundled one.", show_default=False),
]
Data = Annotated[
    list[Path],
    typer.Option("--data", metavar="PATH", help="Directory of images or tars, or an uncompressed tar; repeatable."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", help="Output directory of the model.", show_default="in the user's data directory"
    ),
]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Directory for checkpoints and logs.")]
Init = Annotated[
    list[str] | None,
    typer.Option("--init", metavar="WEIGHTS", help="Initialize from a checkpoint or a classifier; repeatable."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a value of the recipe, such as data.batch=4; repeatable."
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Resume from the checkpoint.")]
ForceModel = Annotated[bool, typer.Option("--force", help="Replace or shadow an existing model of the same name.")]
Minutes = Annotated[
    float | None,
    typer.Option("--minutes", metavar="N", min=0, help="Stop after N minutes; resume later with --resume."),
]


class Options(NamedTuple):
    """The options that all trainings of a recipe share."""

    init: list[str] | None
    resume: bool
    minutes: float | None
    force: bool


def check_place(place: Path, chosen: Options) -> None:
    """Raise UsageError, before any work, where another run is in the place of a new one, or options contradict."""
    if chosen.resume and chosen.init:
        raise UsageError("--init and --resume cannot be combined")
    if not chosen.resume and (there := place / CHECKPOINT).exists():
        raise UsageError(f"{there}: run exists; continue it with --resume or choose another --runs directory")


def destination(name: str, out: Path | None, chosen: Options) -> Path:
    """The directory of a new model, refused before any work where it would harm another model."""
    directory = install.place_for(name, out)
    if not chosen.resume:
        install.check_free(directory, chosen.force)
    return directory


def train(
    task: Task[B],
    schedule: Schedule,
    place: Path,
    items: list[Item],
    directory: Path | None,
    chosen: Options,
    write: Callable[[Run[B]], Path],
) -> int:
    """Run the loop in a place, from initial weights or from the checkpoint there; then write the model, once.

    Where ``directory`` is to hold the model, it must harm no other: before the training, and again after it. The exit
    code is that of the first image that could not be read, if there was one.
    """
    from rich.console import Console

    from dcu.data import failures
    from dcu.train import parallel
    from dcu.train.export import is_earlier_state
    from dcu.train.init import initialize
    from dcu.train.loop import Run

    def check_free() -> None:
        if directory is not None:
            same = chosen.resume and is_earlier_state(directory, run, items)
            install.check_free(directory, chosen.force or same)

    origin = None if chosen.resume else initialize(task, chosen.init or [])
    run = Run(task, schedule, place, origin)
    with run.alone():
        check_place(place, chosen)
        if chosen.resume:
            run.resume()
        check_free()
        first = parallel.rank() == 0
        if first:
            console.note(f"held out for validation: {len(task.held_out)} of {len(items)} images")
        if not run.train(chosen.minutes, Console(stderr=True)) and first:
            console.note(f"stopped at step {run.step} of {schedule.steps}; continue with --resume")
        if first:
            try:
                check_free()
            except DcuError as error:
                kept = f"{run.checkpoint.path} is kept: use --resume with another --out to write the model"
                raise type(error)(f"{error}; {kept}") from error
            console.outlive_stdout()
            console.say(str(write(run)))
    return left_out(failures(items))


def left_out(failed: Sequence[DcuError]) -> int:
    """Say how many images were left out; the exit code of the first."""
    if failed:
        console.complain(f"images left out because they cannot be read: {len(failed)}")
    return failed[0].exit_code if failed else 0


@app.command("codec")
def train_codec(
    recipe: Recipe,
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
) -> int:
    """Train a codec on images.

    Example: dcu train codec codec-0.330 --data images/ --out mine
    """
    chosen_device = options.start(threads, device)
    from dcu.data import gather, replaceable
    from dcu.train import parallel
    from dcu.train.codec import CodecTask
    from dcu.train.export import codec_model, variable_rate_model
    from dcu.train.joint import CodecTraining, JointTask
    from dcu.train.recipe import find_recipe
    from dcu.train.variable_rate import VariableRateTask, VariableRateTraining

    found, chosen = find_recipe(recipe, settings or []), Options(init, resume, minutes, force)
    place = runs / found.name
    check_place(place, chosen)
    if found.has("variable_rate"):
        every = found.sections(VariableRateTraining)
        items, directory = replaceable(gather(data)), destination(every.variable_rate.name, out, chosen)
        with parallel.processes(chosen_device):
            variable = VariableRateTask(every.variable_rate, every.data, items, every.schedule.seed, chosen_device)

            def write_variable(run: Run[Any]) -> Path:
                return variable_rate_model(run, variable, items, directory).directory

            return train(variable, every.schedule, place, items, directory, chosen, write_variable)
    parts = found.sections(CodecTraining)
    items, directory = replaceable(gather(data)), destination(parts.codec.name, out, chosen)
    with parallel.processes(chosen_device):
        common = (parts.data, items, parts.schedule.seed, chosen_device)
        task: CodecTask | JointTask
        task = JointTask(parts.codec, parts.reader, *common) if parts.reader.weight else CodecTask(parts.codec, *common)

        def write(run: Run[Any]) -> Path:
            return codec_model(run, task, items, directory).directory

        return train(task, parts.schedule, place, items, directory, chosen, write)


@app.command("classifier")
def train_classifier(
    recipe: Recipe,
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
    labels: Annotated[str | None, options.moved("--labels", "dcu train head")] = None,
) -> int:
    """Distill a latent classifier from the RGB network.

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

    found, chosen = find_recipe(recipe, settings or []), Options(init, resume, minutes, force)
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
    from dcu.train.recipe import find_recipe
    from dcu.train.segmenter import SegmenterTask, SegmenterTraining

    found, chosen = find_recipe(recipe, settings or []), Options(init, resume, minutes, force)
    parts, place = found.sections(SegmenterTraining), runs / found.name
    check_place(place, chosen)
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
        str,
        options.model("--codec", "codec", help="Codec whose latents are classified."),
    ] = "codec-0.0983",
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
