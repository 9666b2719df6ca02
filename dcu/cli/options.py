"""Options that several verbs share, and what they set."""

from __future__ import annotations

from typing import Annotated

import typer

from dcu.errors import UnavailableError, UsageError

Inputs = Annotated[list[str], typer.Argument(help="Files, folders, or - for standard input.", show_default=False)]
Output = Annotated[str | None, typer.Option("--output", "-o", help="File or folder; - for standard output.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that differ.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads.", show_default="all cores")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]


def start(threads: int | None, device: str) -> str:
    """Set the number of threads, have the arithmetic coder ready; the device to run on: "cpu" or "cuda"."""
    import torch

    from dcu import rangecoder

    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device: {device} is none of auto, cpu, cuda")
    if threads is not None:
        torch.set_num_threads(threads)
    rangecoder.backend()  # a missing compiler is one error, not one an input
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UnavailableError("no CUDA device is available")
    return "cuda" if available and device != "cpu" else "cpu"
