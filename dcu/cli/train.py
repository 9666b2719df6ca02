"""``dcu train``: codecs, classifiers and segmenters, from recipes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dcu import install, paths, store
from dcu.cli import console, options, places
from dcu.errors import DcuError, UsageError

if TYPE_CHECKING:
    from dcu.data import Item
    from dcu.train.loop import Run

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Train codecs, classifiers and segmenters.")
Recipe = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="Recipe: path of a TOML file, or name of a shipped one.", show_default=False),
]
Data = Annotated[
    list[Path],
    typer.Option("--data", metavar="PATH", help="Directory of images or of tars, or an uncompressed tar; repeatable."),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Directory of the model.", show_default="in the user's data directory"),
]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Directory for checkpoint and log.")]
Start = Annotated[
    list[Path] | None,
    typer.Option("--start", metavar="FILE", help="Initialize from the checkpoint of another run; repeatable."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint.")]
ForceModel = Annotated[bool, typer.Option("--force", help="Replace or hide an existing model of that name.")]
Minutes = Annotated[
    float | None, typer.Option("--minutes", metavar="N", min=0, help="Stop after N minutes; --resume continues.")
]


def recipe_path(recipe: str) -> Path:
    """The file of a recipe: a path, which contains a separator or ends in .toml, or the name of one that dcu ships."""
    named = not store.is_path(recipe) and not recipe.endswith(".toml")
    return paths.shipped("configs") / f"{recipe}.toml" if named else Path(recipe)


def train(
    run: Run,
    items: list[Item],
    directory: Path | None,
    start: list[Path],
    resume: bool,
    minutes: float | None,
    force: bool,
    write: Callable[[], Path],
) -> None:
    """Run the loop, from the start, from other weights, or from the checkpoint; then write the model, once.

    Where ``directory`` is to hold the model, it must harm no other: before the training, and again after it.
    """
    from rich.console import Console

    from dcu.train import parallel
    from dcu.train.export import is_earlier_state

    def check_free() -> None:
        if directory is not None:
            install.check_free(directory, force or (resume and is_earlier_state(directory, run, items)))

    if resume and start:
        raise UsageError("--start begins a run, --resume continues one")
    with run.alone():
        if resume:
            run.resume()
        elif run.checkpoint.path.exists():
            there = f"{run.checkpoint.path}: a run is there already"
            raise UsageError(f"{there}; --resume continues it, or name other --runs")
        for path in start:
            run.start(path)
        check_free()
        if not run.train(minutes, Console(stderr=True)) and parallel.rank() == 0:
            console.note(f"stopped at step {run.step} of {run.schedule.steps}; --resume continues")
        if parallel.rank() == 0:
            try:
                check_free()
            except DcuError as error:
                kept = f"{run.checkpoint.path} is kept: --resume with another --out writes the model"
                raise type(error)(f"{error}; {kept}") from error
            console.outlive_stdout()
            console.say(str(write()))


@app.command("codec")
def train_codec(
    recipe: Recipe,
    data: Data,
    out: Out = None,
    runs: Runs = Path("runs"),
    start: Start = None,
    resume: Resume = False,
    force: ForceModel = False,
    minutes: Minutes = None,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> None:
    """Train a codec on images.

    Example: dcu train codec codec-0.330 --data images/ --minutes 60
    """
    chosen_device = options.start(threads, device)
    from dcu.data import gather
    from dcu.train import parallel
    from dcu.train.codec import CodecData, CodecRecipe, CodecTask
    from dcu.train.export import codec_model
    from dcu.train.joint import JointTask, ReaderRecipe
    from dcu.train.loop import Run
    from dcu.train.recipe import Schedule, read_recipe, read_tables
    from dcu.train.variable_rate import VariableRateData, VariableRateRecipe, VariableRateTask

    path = recipe_path(recipe)
    if "variable_rate" in read_tables(path):
        parts = read_recipe(path, variable_rate=VariableRateRecipe, data=VariableRateData, schedule=Schedule)
        with parallel.processes(chosen_device):
            items = gather(data)
            variable = VariableRateTask(
                parts["variable_rate"], parts["data"], items, parts["schedule"].seed, chosen_device
            )
            run = Run(variable, parts["schedule"], runs / path.stem)
            train(run, items, None, start or [], resume, minutes, force, lambda: run.checkpoint.path)
        return
    parts = read_recipe(path, codec=CodecRecipe, reader=ReaderRecipe, data=CodecData, schedule=Schedule)
    items = gather(data)
    with parallel.processes(chosen_device):
        common = (parts["data"], items, parts["schedule"].seed, chosen_device)
        if parts["reader"].weight:
            task: CodecTask = JointTask(parts["codec"], parts["reader"], *common)
        else:
            task = CodecTask(parts["codec"], *common)
        run = Run(task, parts["schedule"], runs / path.stem)
        directory = install.place_for(task.recipe.name, out)

        def write() -> Path:
            return codec_model(run, task, items, directory).directory

        train(run, items, directory, start or [], resume, minutes, force, write)


@app.command("classifier")
def train_classifier(
    recipe: Recipe,
    data: Data,
    out: Out = None,
    runs: Runs = Path("runs"),
    start: Start = None,
    resume: Resume = False,
    force: ForceModel = False,
    minutes: Minutes = None,
    threads: options.Threads = None,
    device: options.Device = "auto",
    labels: Annotated[str | None, options.moved("--labels", "dcu train head")] = None,
) -> None:
    """Distill a classifier of latents from the RGB network.

    Example: dcu train classifier classifier-0.330 --data images/
    """
    chosen_device = options.start(threads, device)
    from dcu.codec import Codec
    from dcu.data import gather
    from dcu.train import parallel
    from dcu.train.adapter import AdapterRecipe, AdapterTask
    from dcu.train.classifier import ClassifierRecipe, ClassifierTask
    from dcu.train.export import classifier_model
    from dcu.train.loop import Run
    from dcu.train.recipe import Schedule, read_recipe
    from dcu.train.views import ViewData

    path = recipe_path(recipe)
    parts = read_recipe(path, classifier=ClassifierRecipe, adapter=AdapterRecipe, data=ViewData, schedule=Schedule)
    items = gather(data)
    with parallel.processes(chosen_device):
        loaded = Codec.load(parts["classifier"].codec, chosen_device)
        common = (parts["data"], loaded, items, parts["schedule"].seed)
        if parts["adapter"].views:
            task: ClassifierTask = AdapterTask(parts["classifier"], parts["adapter"], *common)
        else:
            task = ClassifierTask(parts["classifier"], *common)
        run = Run(task, parts["schedule"], runs / path.stem)
        directory = install.place_for(task.recipe.name, out)
        places.refuse(directory, [store.find(parts["classifier"].codec, "codec").directory], "--out")

        def write() -> Path:
            return classifier_model(run, task, loaded, items, directory).directory

        train(run, items, directory, start or [], resume, minutes, force, write)


@app.command("segmenter")
def train_segmenter(
    recipe: Recipe,
    data: Annotated[Path, typer.Option("--data", metavar="PATH", help="Directory or tar of images/ and labels/.")],
    out: Out = None,
    runs: Runs = Path("runs"),
    start: Start = None,
    resume: Resume = False,
    force: ForceModel = False,
    minutes: Minutes = None,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> None:
    """Train a segmenter of latents on labeled images.

    Its weights are initialized from the classifier of the same codec.

    Example: dcu train segmenter segmenter-0.330 --data camvid-train.tar
    """
    chosen_device = options.start(threads, device)
    from dcu.codec import Codec
    from dcu.data import pairs
    from dcu.train import parallel
    from dcu.train.export import segmenter_model
    from dcu.train.loop import Run
    from dcu.train.recipe import Schedule, read_recipe
    from dcu.train.segmenter import SegmentData, SegmenterRecipe, SegmenterTask

    path = recipe_path(recipe)
    parts = read_recipe(path, segmenter=SegmenterRecipe, data=SegmentData, schedule=Schedule)
    found = pairs(data)
    with parallel.processes(chosen_device):
        codec = Codec.load(parts["segmenter"].codec, chosen_device)
        task = SegmenterTask(parts["segmenter"], parts["data"], codec, found, parts["schedule"].seed)
        run = Run(task, parts["schedule"], runs / path.stem)
        items, directory = [pair.image for pair in found], install.place_for(task.recipe.name, out)
        places.refuse(directory, [store.find(parts["segmenter"].codec, "codec").directory], "--out")

        def write() -> Path:
            return segmenter_model(run, task, codec, items, directory).directory

        train(run, items, directory, start or [], resume, minutes, force, write)


@app.command("mean")
def train_mean(
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help="Classifiers or segmenters by name or path.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Directory of the model.")],
    shares: Annotated[
        list[float] | None,
        typer.Option("--share", metavar="W", help="Averaging weight of each; repeatable.", show_default="1"),
    ] = None,
    rgb: Annotated[float, typer.Option("--rgb", help="Share of the RGB network's own late layers in the mean's.")] = 0,
    expect: Annotated[
        Path | None,
        typer.Option("--expect", help="Directory or tar whose directories name classes to expect more often."),
    ] = None,
    odds: Annotated[
        float | None, typer.Option("--odds", help="Of these classes, times what they are.", show_default="2")
    ] = None,
    force: ForceModel = False,
) -> None:
    """Average the weights of several models.

    Example: dcu train mean runs-a/model runs-b/model --out mean-0.330
    """
    from dcu.data import gather
    from dcu.train.export import mean_model

    if odds is not None and expect is None:
        raise UsageError("--odds are those of the classes that --expect names")
    found = [store.find(name) for name in models]
    directory = install.place_for(out.name, out)
    places.refuse(directory, [model.directory for model in found], "--out")
    install.check_free(directory, force)
    expected = sorted({item.label for item in gather([expect])}) if expect else ()
    odds = 2 if odds is None else odds
    console.outlive_stdout()
    console.say(str(mean_model(found, shares or [1.0] * len(found), directory, rgb, expected, odds, force).directory))


@app.command("head")
def train_head(
    labels: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="Directory or tar with one directory of images or bitstreams per class."),
    ],
    codec: Annotated[
        str,
        typer.Option(
            "--codec",
            metavar="NAME",
            help="Codec whose latents are classified.",
            autocompletion=options.installed("codec"),
        ),
    ] = "codec-0.0983",
    out: Out = None,
    force: ForceModel = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> int:
    """Fit a classifier's last layer to custom classes.

    Example: dcu train head flowers/ --out models/flowers
    """
    chosen_device = options.start(threads, device)
    import torch

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
    started = time.monotonic()
    failures: list[DcuError] = []

    def report(error: DcuError) -> None:
        failures.append(error)
        console.complain(str(error))

    progress = console.progress(found, "looking", False)
    written, metrics = own_classifier(classifier, found, progress, directory, report, force)
    took = {
        "minutes": round((time.monotonic() - started) / 60, 1),
        "threads": torch.get_num_threads(),
        "device": chosen_device,
    }
    store.amend(written, {"took": took})
    counts = f"{len(written.facts.labels)} classes, {len(found) - len(failures)} images"
    counts += f"; {metrics['count']} held-out images"
    console.note(f"{counts}: top-1 {100 * metrics['top1']:.1f} %, top-5 {100 * metrics['top5']:.1f} %")
    console.outlive_stdout()
    console.say(str(written.directory))
    if failures:
        console.complain(f"{len(failures)} of {len(found)} images were left out: they cannot be read")
    return failures[0].exit_code if failures else 0
