"""``dcu train``: codecs and classifiers, from recipes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dcu import store
from dcu.cli import options
from dcu.errors import UsageError

if TYPE_CHECKING:
    from dcu.train.loop import Run

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Train codecs and classifiers.")
Recipe = Annotated[
    Path, typer.Argument(help="Recipe (TOML): a path, or the name of one that dcu ships.", show_default=False)
]
Data = Annotated[list[Path], typer.Option("--data", help="Folder or uncompressed tar of pictures; may be repeated.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the model.", show_default="the user's data folder")]
Runs = Annotated[Path, typer.Option("--runs", help="Where checkpoint, log and cache are kept.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint.")]
Minutes = Annotated[float | None, typer.Option("--minutes", min=0, help="Stop after so long; --resume goes on.")]


def recipe_path(recipe: Path) -> Path:
    """A recipe by path, or by the name of one that dcu ships."""
    inside = store.shipped("configs") / f"{recipe.name.removesuffix('.toml')}.toml"
    return inside if not recipe.exists() and inside.exists() else recipe


def train(run: Run, resume: bool, minutes: float | None) -> None:
    """Run the loop, from the start or from the checkpoint."""
    from rich.console import Console

    if resume:
        run.resume()
    elif run.checkpoint.path.exists():
        raise UsageError(f"{run.checkpoint.path}: a run is there already; --resume continues it, or name other --runs")
    if not run.train(minutes, Console(stderr=True)):
        typer.echo(f"stopped at step {run.step} of {run.schedule.steps}; --resume continues", err=True)


def track(values: Iterable[Any], total: int) -> Iterable[Any]:
    """A progress bar on standard error."""
    from rich.console import Console
    from rich.progress import track as bar

    return bar(values, "making views", total=total, console=Console(stderr=True))


@app.command("codec")
def train_codec(
    recipe: Recipe,
    data: Data,
    out: Out = None,
    runs: Runs = Path("runs"),
    resume: Resume = False,
    minutes: Minutes = None,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> None:
    """Train a codec on pictures."""
    chosen_device = options.start(threads, device)
    from dcu.data import gather
    from dcu.train.codec import CodecData, CodecRecipe, CodecTask
    from dcu.train.export import codec_model
    from dcu.train.loop import Run, Schedule, read_recipe

    parts = read_recipe(recipe_path(recipe), codec=CodecRecipe, data=CodecData, schedule=Schedule)
    items = gather(data)
    task = CodecTask(parts["codec"], parts["data"], items, parts["schedule"].seed, chosen_device)
    run = Run(task, parts["schedule"], runs / task.recipe.name)
    train(run, resume, minutes)
    model = codec_model(run, task, items, out or store.user_folder() / task.recipe.name)
    typer.echo(str(model.folder))


@app.command("classifier")
def train_classifier(
    recipe: Recipe,
    data: Data,
    out: Out = None,
    runs: Runs = Path("runs"),
    resume: Resume = False,
    minutes: Minutes = None,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> None:
    """Distil a classifier on a codec's latents from the RGB network."""
    chosen_device = options.start(threads, device)
    from dcu.codec import Codec
    from dcu.data import gather
    from dcu.train.classifier import ClassifierRecipe, ClassifierTask
    from dcu.train.export import classifier_model
    from dcu.train.loop import Run, Schedule, read_recipe
    from dcu.train.views import Cache, ClassifierData, plan_views

    parts = read_recipe(recipe_path(recipe), classifier=ClassifierRecipe, data=ClassifierData, schedule=Schedule)
    seed, folder = parts["schedule"].seed, runs / parts["classifier"].name
    codec = Codec.load(parts["classifier"].codec, chosen_device)
    items = gather(data)
    views, held_out = plan_views(items, parts["data"], seed)
    train_cache, held_cache = (
        Cache(folder / name, chosen, codec, parts["data"], parts["schedule"])
        for name, chosen in (("views", views), ("held-out", held_out))
    )
    for cache in (held_cache, train_cache):
        cache.build(track)
    task = ClassifierTask(parts["classifier"], parts["data"], codec, train_cache, held_cache, seed)
    run = Run(task, parts["schedule"], folder)
    train(run, resume, minutes)
    model = classifier_model(run, task, codec, items, out or store.user_folder() / task.recipe.name)
    typer.echo(str(model.folder))
