"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dcu.errors import UnavailableError, UsageError

Inputs = Annotated[list[str], typer.Argument(help="Files, directories, or - for standard input.", show_default=False)]
Output = Annotated[str | None, typer.Option("--output", "-o", help="File or directory; - for standard output.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON Lines; for a failed input error and exit_code.")]
KeepExtension = Annotated[
    bool, typer.Option("--keep-extension", help="Keep the extension of inputs in names of outputs: a.jpg.bin.")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress, notes or summary.")]
View = Annotated[str, typer.Option("--view", help="Part of the image that is classified: center or full.")]
Views = Annotated[int, typer.Option("--views", help="1, or 5: average over the center and four corners.")]
Network = Annotated[
    str | None,
    typer.Option("--network", help="Classifier by name or path.", show_default="that of the bitstream's codec"),
]
EngineName = Annotated[
    str,
    typer.Option("--engine", help="auto (the fastest that keeps accuracy), pytorch, onnx or int8 (needs dcu[fast])."),
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads.", show_default="all cores")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]


def moved(option: str, place: str) -> Any:
    """A hidden option of version 0.1; using it is a usage error that names its replacement."""

    def refuse(value: Any) -> None:
        if value:
            raise UsageError(f"{option} is no option any more: use {place}")

    return typer.Option(option, hidden=True, callback=refuse)


def start(threads: int | None, device: str) -> str:
    """Set the number of threads, check $DCU_CODER; the device to run on: "cpu" or "cuda"."""
    import torch

    from dcu.entropy import chosen_coder

    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device: {device} is none of auto, cpu, cuda")
    if threads is not None:
        torch.set_num_threads(threads)
    chosen_coder()  # one that cannot be had is one error, not one an input
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UnavailableError("no CUDA device is available")
    return "cuda" if available and device != "cpu" else "cpu"


def chosen_engine(engine: str) -> str:
    """The engine, one of `dcu.engines.NAMES`."""
    from dcu.engines import NAMES

    if engine not in NAMES:
        raise UsageError(f"--engine: {engine} is none of {', '.join(NAMES)}")
    return engine


def chosen_view(view: str, views: int) -> str:
    """What networks are to see, as `dcu.tasks.classify.VIEWS` names it."""
    if view not in ("center", "full"):
        raise UsageError(f"--view: {view} is neither center nor full")
    if views not in (1, 5):
        raise UsageError(f"--views: {views} is neither 1 nor 5")
    if view == "full" and views == 5:
        raise UsageError("--view full and --views 5 exclude each other")
    return "five" if views == 5 else view
