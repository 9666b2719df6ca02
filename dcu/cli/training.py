"""What the commands of ``dcu train`` share: options, places, and the run from initial weights to a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeVar

import typer

from dcu import install
from dcu.cli import console, options
from dcu.errors import DcuError, UsageError

if TYPE_CHECKING:
    from dcu.data import Item
    from dcu.train.loop import Run, Task
    from dcu.train.recipe import Recipe as FoundRecipe
    from dcu.train.recipe import Schedule

B = TypeVar("B")
CHECKPOINT = "checkpoint.safetensors"
"""In the directory of a run, as `dcu.train.loop` writes it."""
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


class Given(NamedTuple):
    """What a training on images is given on the command line, its device started."""

    recipe: str
    data: list[Path]
    out: Path | None
    runs: Path
    settings: list[str] | None
    options: Options
    device: str


def on_images(app: typer.Typer, name: str) -> Callable[[Callable[[Given], int]], None]:
    """Register what trains a recipe on images as a command with the options of all such; its help is the docstring."""

    def register(work: Callable[[Given], int]) -> None:
        def command(
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
            chosen = Options(init, resume, minutes, force)
            return work(Given(recipe, data, out, runs, settings, chosen, options.start(threads, device)))

        command.__doc__ = work.__doc__
        app.command(name)(command)

    return register


def opened(recipe: str, settings: list[str] | None, runs: Path, chosen: Options) -> tuple[FoundRecipe, Path]:
    """A recipe and the directory of its run; raises what :func:`check_place` and reading it raise."""
    from dcu.train.recipe import find_recipe

    found = find_recipe(recipe, settings or [])
    check_place(runs / found.name, chosen)
    return found, runs / found.name


def check_place(place: Path, chosen: Options) -> None:
    """Raise UsageError, before any work, where another run is in the place of a new one, or options contradict."""
    if chosen.resume and chosen.init:
        raise UsageError("--init and --resume cannot be combined")
    if not chosen.resume and os.path.exists(there := place / CHECKPOINT):
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
    from dcu.train.export import is_earlier_state, is_its_model
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
        begun = run.step
        check_free()
        first = parallel.rank() == 0
        if first:
            console.note(f"held out for validation: {len(task.held_out)} of {len(items)} images")
        if not run.train(chosen.minutes, Console(stderr=True)) and first:
            console.note(f"stopped at step {run.step} of {schedule.steps}; continue with --resume")
        if run.step == begun and directory is not None and is_its_model(directory, run, items):
            console.note(f"{directory}: nothing to train; the model and what its card states stay")
        elif first:
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
