"""``dcu train``: codecs, classifiers and segmenters, from recipes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dcu import install, paths, store
from dcu.cli import console, options, places
from dcu.errors import DcuError, UsageError

if TYPE_CHECKING:
    from dcu.data import Failures, Item
    from dcu.train.loop import Run

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Train codecs, classifiers and segmenters.")
Recipe = Annotated[
    str, typer.Argument(help="Recipe (TOML): a path, or the name of one that dcu ships.", show_default=False)
]
Data = Annotated[
    list[Path],
    typer.Option("--data", help="Directory or uncompressed tar of images, or a directory of such tars; repeated."),
]
Out = Annotated[
    Path | None, typer.Option("--out", help="Directory of the model.", show_default="the user's data directory")
]
Runs = Annotated[Path, typer.Option("--runs", help="Where checkpoint and log are kept.")]
Start = Annotated[
    list[Path] | None,
    typer.Option("--start", help="Checkpoint of another run to begin with; a codec's, then maybe its reader's."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint.")]
ForceModel = Annotated[bool, typer.Option("--force", help="Overwrite or hide an existing model of that name.")]
Minutes = Annotated[float | None, typer.Option("--minutes", min=0, help="Stop after so long; --resume goes on.")]


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
    failures: Failures,
) -> int:
    """Run the loop, from the start, from other weights, or from the checkpoint; then write the model, once.

    Where ``directory`` is to hold the model, it must harm no other: before the training, and again after it. The exit
    code is that of the first image that could not be read, if there was one.
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
    return left_out(list(failures.values()))


def left_out(failures: Sequence[DcuError]) -> int:
    """Say how many images were left out; the exit code of the first."""
    if failures:
        console.complain(f"images left out, since they cannot be read: {len(failures)}")
    return failures[0].exit_code if failures else 0


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
) -> int:
    """Train a codec on images."""
    chosen_device = options.start(threads, device)
    from dcu.data import gather, replaceable
    from dcu.train import parallel
    from dcu.train.codec import CodecData, CodecRecipe, CodecTask
    from dcu.train.export import codec_model
    from dcu.train.joint import JointTask, ReaderRecipe
    from dcu.train.loop import Run
    from dcu.train.recipe import Schedule, read_recipe, read_tables
    from dcu.train.variable_rate import VariableRateData, VariableRateRecipe, VariableRateTask

    path, failures = recipe_path(recipe), dict[str, DcuError]()
    if "variable_rate" in read_tables(path):
        parts = read_recipe(path, variable_rate=VariableRateRecipe, data=VariableRateData, schedule=Schedule)
        with parallel.processes(chosen_device):
            items = replaceable(gather(data), failures)
            variable = VariableRateTask(
                parts["variable_rate"], parts["data"], items, parts["schedule"].seed, chosen_device
            )
            run = Run(variable, parts["schedule"], runs / path.stem)
            return train(run, items, None, start or [], resume, minutes, force, lambda: run.checkpoint.path, failures)
    parts = read_recipe(path, codec=CodecRecipe, reader=ReaderRecipe, data=CodecData, schedule=Schedule)
    items = replaceable(gather(data), failures)
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

        return train(run, items, directory, start or [], resume, minutes, force, write, failures)


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
) -> int:
    """Distill a classifier on a codec's latents from the RGB network."""
    chosen_device = options.start(threads, device)
    from dcu.codec import Codec
    from dcu.data import gather, replaceable
    from dcu.train import parallel
    from dcu.train.adapter import AdapterRecipe, AdapterTask
    from dcu.train.classifier import ClassifierRecipe, ClassifierTask
    from dcu.train.export import classifier_model
    from dcu.train.loop import Run
    from dcu.train.recipe import Schedule, read_recipe
    from dcu.train.views import ViewData

    path, failures = recipe_path(recipe), dict[str, DcuError]()
    parts = read_recipe(path, classifier=ClassifierRecipe, adapter=AdapterRecipe, data=ViewData, schedule=Schedule)
    items = replaceable(gather(data), failures)
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

        return train(run, items, directory, start or [], resume, minutes, force, write, failures)


@app.command("segmenter")
def train_segmenter(
    recipe: Recipe,
    data: Annotated[Path, typer.Option("--data", help="Directory or uncompressed tar of images/ and labels/.")],
    out: Out = None,
    runs: Runs = Path("runs"),
    start: Start = None,
    resume: Resume = False,
    force: ForceModel = False,
    minutes: Minutes = None,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> int:
    """Train a segmenter on a codec's latents, from the classifier of the same codec."""
    chosen_device = options.start(threads, device)
    from dcu.codec import Codec
    from dcu.data import pairs, readable
    from dcu.train import parallel
    from dcu.train.export import segmenter_model
    from dcu.train.loop import Run
    from dcu.train.recipe import Schedule, read_recipe
    from dcu.train.segmenter import SegmentData, SegmenterRecipe, SegmenterTask

    path = recipe_path(recipe)
    parts = read_recipe(path, segmenter=SegmenterRecipe, data=SegmentData, schedule=Schedule)
    failures = dict[str, DcuError]()
    found = readable(pairs(data), failures)
    with parallel.processes(chosen_device):
        codec = Codec.load(parts["segmenter"].codec, chosen_device)
        task = SegmenterTask(parts["segmenter"], parts["data"], codec, found, parts["schedule"].seed)
        run = Run(task, parts["schedule"], runs / path.stem)
        items, directory = [pair.image for pair in found], install.place_for(task.recipe.name, out)
        places.refuse(directory, [store.find(parts["segmenter"].codec, "codec").directory], "--out")

        def write() -> Path:
            return segmenter_model(run, task, codec, items, directory).directory

        return train(run, items, directory, start or [], resume, minutes, force, write, failures)


@app.command("mean")
def train_mean(
    models: Annotated[
        list[str], typer.Argument(help="Classifiers or segmenters by name or path, two; one with --rgb, --expect.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Directory of the model.")],
    shares: Annotated[list[float] | None, typer.Option("--share", help="Of each; repeated.", show_default="1")] = None,
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
    """The mean of several runs' weights, often better than each of them."""
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
        Path, typer.Argument(help="Directory or tar with one directory of images or bitstreams per class.")
    ],
    codec: Annotated[str, typer.Option("--codec", help="Codec whose latents are classified.")] = "codec-0.0983",
    out: Out = None,
    force: ForceModel = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> int:
    """Fit the last layer of the codec's classifier to custom classes, one directory per class."""
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
    return left_out(failures)
