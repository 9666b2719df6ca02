"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dcu import store
from dcu.errors import UnavailableError, UsageError

CHUNK = 8
"""Bitstreams that one job reads and classifies at once."""
ON_DEVICE = 32
"""Images that wait for a GPU beside those that the CPU works on: what is computed together there."""
MOST_JOBS = 512
DeviceName = Literal["auto", "cpu", "cuda"]
Engine = Literal["auto", "pytorch", "onnx", "int8"]
"""As `dcu.engines.NAMES`, which needs torch."""


def installed(*kinds: str) -> Callable[[str], list[str]]:
    """The completion of an option that names a model of one of these kinds."""

    def names(incomplete: str) -> list[str]:
        found = [model.name for model in store.installed() if model.kind in kinds]
        return [name for name in dict.fromkeys(found) if name.startswith(incomplete)]

    return names


def model(option: str, *kinds: str, help: str = "", show_default: bool | str = True) -> Any:
    """An option that names a model of one of these kinds, by name or path."""
    said = help or f"{kinds[0].capitalize()} by name or path."
    return typer.Option(option, metavar="NAME", help=said, show_default=show_default, autocompletion=installed(*kinds))


Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        help="Files, directories, WebDataset shards (.tar), or - for standard input.",
        show_default=False,
    ),
]
FilesFrom = Annotated[
    str | None,
    typer.Option("--files-from", metavar="LIST", help="File of further inputs, one per line; - for standard input."),
]
SkipExisting = Annotated[bool, typer.Option("--skip-existing", help="Skip inputs whose outputs exist.")]
ReportFile = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE", help="Write one row per input to FILE, .jsonl or .parquet; replaces it."),
]
Retry = Annotated[
    Path | None,
    typer.Option("--retry", metavar="FILE", help="Process only the inputs that failed in the run with --report FILE."),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        metavar="N",
        min=1,
        max=MOST_JOBS,
        help="Images processed in parallel.",
        show_default="all cores",
    ),
]
ExecutorName = Literal["local", "ray"]
Executor = Annotated[
    ExecutorName,
    typer.Option(
        "--executor", help="Where shards are processed: here, or by workers of a Ray cluster (dcu-codec[ray])."
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="Head of the Ray cluster, or auto.",
        show_default="one on this machine, for this run",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", min=1, help="Ray workers at most; each has --jobs cores, by default 1."),
]
Gpus = Annotated[
    float | None, typer.Option("--gpus-per-worker", metavar="F", min=0, help="GPUs of each Ray worker, such as 0.25.")
]
OldThreads = Annotated[int | None, typer.Option("--threads", min=1, max=MOST_JOBS, hidden=True)]
"""The name of --jobs in version 0.1."""
Precision = Annotated[
    Literal["auto", "float32", "bfloat16"],
    typer.Option("--precision", help="Of the codec's transforms; auto is bfloat16 on CPUs with instructions for it."),
]
Output = Annotated[
    str | None, typer.Option("--output", "-o", metavar="PATH", help="File or directory; - for standard output.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Print JSON Lines; failed inputs are objects with error and exit_code.")
]
KeepExtension = Annotated[
    bool, typer.Option("--keep-extension", help="Append to the extension of the input: a.jpg becomes a.jpg.bin.")
]
FORMATS = ("avif", "avif-psnr", "avif-psnr-444", "jpeg", "jpeg2000", "jxl", "webp")
"""As `dcu.evaluate.baselines.FORMATS`, which needs torch."""
MadeFor = Annotated[
    Literal["people", "machines"],
    typer.Option(
        "--for",
        help="Optimize bitstreams for people (quality of decoded images) or for machines (predictions of networks, "
        "with codecs that support it).",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the files that would be written, without writing them.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Suppress progress, notes and the summary.")]
View = Annotated[Literal["center", "full"], typer.Option("--view", help="Use the center crop or the full image.")]
Views = Annotated[
    Literal[1, 5], typer.Option("--views", help="1: the view alone; 5: average over the center and four corners.")
]
Network = Annotated[str | None, model("--network", "classifier", show_default="matching the codec")]
EngineName = Annotated[
    Engine,
    typer.Option(
        "--engine",
        help="Backend; auto selects the fastest that preserves accuracy. onnx and int8 require dcu-codec[fast].",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", min=1, max=MOST_JOBS, help="CPU threads.", show_default="all cores"),
]
Device = Annotated[DeviceName, typer.Option("--device", help="Device to run networks on.")]


def moved(option: str, place: str) -> Any:
    """A hidden option of version 0.1; using it is a usage error that names its replacement."""

    def refuse(value: Any) -> None:
        if value:
            raise UsageError(f"{option} was removed: use {place}")

    return typer.Option(option, hidden=True, callback=refuse)


def formats(option: str) -> Any:
    """An option that takes names of formats; an unknown one is refused before torch is imported."""

    def check(value: str) -> str:
        for name in format_names(value):
            if name not in FORMATS:
                raise UsageError(f"{option}: '{name}' is not one of {', '.join(FORMATS)}")
        return value

    listed = f"Formats to compare with, separated by commas: {', '.join(FORMATS)}."
    return typer.Option(option, metavar="FORMATS", help=listed, callback=check)


def format_names(value: str) -> list[str]:
    """The names in the value of such an option."""
    return list(dict.fromkeys(name.strip().lower() for name in value.split(","))) if value else []


def start(threads: int | None, device: DeviceName) -> Literal["cpu", "cuda"]:
    """Set the number of threads, check $DCU_CODER; the device to run on: "cpu" or "cuda"."""
    import torch

    from dcu.entropy import chosen_coder

    if threads is not None:
        torch.set_num_threads(threads)
    chosen_coder()  # one that cannot be had is one error, not one an input
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UnavailableError("no CUDA device is available")
    return "cuda" if available and device != "cpu" else "cpu"


def begin(number: int | None, old: int | None, device: DeviceName, remotely: bool = False) -> tuple[int, DeviceName]:
    """How many images are processed in parallel, and the device that networks run on.

    ``remotely``: by each worker of a cluster, which chooses the device itself.
    """
    from dcu.jobs import cores

    if remotely:
        return number or old or 1, device
    count = number or old or cores()
    chosen = start(count, device)
    return count if chosen == "cpu" else count + ON_DEVICE, chosen


def stated_network(kind: str, network: str | None) -> str:
    """A network as what it makes states it: by its weights, not only its name; raises UnavailableError."""
    if network is None:
        return "default"
    model = store.find(network, kind)
    return f"{model.name} {str(model.card.sha256)[:16]}"


def chosen_view(view: str, views: int) -> str:
    """What networks are to see, as `dcu.tasks.classify.VIEWS` names it."""
    if view == "full" and views == 5:
        raise UsageError("--view full and --views 5 cannot be combined")
    return "five" if views == 5 else view


def for_machines(made_for: str, models: Sequence[store.Model]) -> bool:
    """Whether ``--for`` names machines; raises UsageError where a codec makes no streams for them."""
    if made_for == "people":
        return False
    for model in models:
        if not model.card.machines:
            raise UsageError(f"--for machines: {model.name} makes no streams for machines")
    return True
