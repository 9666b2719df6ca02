"""Puts the commands together; turns every error into one line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from dcu import __version__
from dcu.cli import signals
from dcu.cli.console import complain, open_streams, say, silence
from dcu.errors import DcuError, OutputError

COMMANDS = (
    "compress",
    "decode",
    "classify",
    "segment",
    "embed",
    "info",
    "verify",
    "models",
    "bench",
    "data",
    "train",
    "eval",
)
SUMMARIES = {
    "compress": "Images to bitstreams.",
    "decode": "Bitstreams to images.",
    "classify": "Name what is in images, straight from their bitstreams.",
    "segment": "The class of every pixel, straight from bitstreams.",
    "embed": "Features of images for search, straight from their bitstreams.",
    "info": "What is inside bitstreams.",
    "verify": "Whether bitstreams are whole and can be read here.",
    "models": "List, show and verify the installed models.",
    "bench": "What it costs, what it gives, against what people run today.",
    "data": "List the training and validation sets and build them.",
    "train": "Train codecs, classifiers and segmenters.",
    "eval": "Measure codecs, classifiers and segmenters on real files.",
}


class LazyGroup(TyperGroup):
    """Imports a command's module when the command is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, name: str) -> Any:
        if name not in COMMANDS:
            return None
        if ctx.resilient_parsing or "--help" in sys.argv[1:2] or len(sys.argv) == 1:
            return TyperCommand(name, help=SUMMARIES[name])
        commands = import_module(f"dcu.cli.{name}").app
        commands.rich_markup_mode = None  # markup would take "[fast]" for a style
        return typer.main.get_command(commands)


app = typer.Typer(
    cls=LazyGroup,
    help="Photographs in a few hundred bytes, understood straight from the bitstream.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def show_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        say(f"dcu {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=show_version, is_eager=True, help="Show the version."),
) -> None:
    """Photographs in a few hundred bytes, understood straight from the bitstream."""


def main() -> None:
    """Run the command line and leave with its exit code (docs/reference/exit-codes.md)."""
    # Read when torch is loaded: for how long its threads spin between calls, some 0.1 ms. The default is several,
    # which take a core from what runs then: the decoder, ONNX Runtime (experiments/2026-11-23-latency).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    open_streams()
    code = run()
    signals.ignore()
    sys.exit(code)


def run() -> int:
    """Run the command line; the exit code."""
    try:
        command = typer.main.get_command(app)
        with command.make_context("dcu", sys.argv[1:]) as context:  # main() would turn a closed pipe into exit code 1
            code = command.invoke(context)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except typer.Exit as leave:
        return leave.exit_code
    except BrokenPipeError:
        silence(1)
        return 0
    except (KeyboardInterrupt, typer.Abort):
        complain("interrupted")
        return signals.exit_code()
    except Exception as error:
        if os.environ.get("DCU_DEBUG") == "1":
            raise
        return answer(error)


def answer(error: Exception) -> int:
    """Print an error's one line; its exit code."""
    if isinstance(error, DcuError):
        complain(str(error))
        return error.exit_code
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # of click, or of typer's copy of it
        if message := error.format_message():  # none where help was shown instead
            complain(message)
        return int(error.exit_code)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        silence(1)
        complain(f"cannot write: {error.strerror}")
        return OutputError.exit_code
    if out_of_memory(error):
        complain("not enough memory")
        return 1
    reason = str(error).partition("\n")[0]
    complain(f"unexpected {type(error).__name__}: {reason} (DCU_DEBUG=1 shows where)")
    return 1


def out_of_memory(error: Exception) -> bool:
    """Whether there was not enough memory, as Python or torch say it."""
    return isinstance(error, MemoryError) or any(
        said in str(error) for said in ("not enough memory", "allocate memory", "out of memory")
    )
