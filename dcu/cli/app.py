"""The command line: loads commands when they are called, turns errors into one line and an exit code."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from dcu.cli import notes, signals
from dcu.cli.console import complain, open_streams, say, silence
from dcu.errors import DcuError, MissingInputError, OutputError, UsageError, out_of_memory

INPUTS = frozenset({"classes", "clones", "data", "index", "labels", "prior", "query", "recipe", "start", "tables"})
OUTPUTS = frozenset({"html", "out", "output", "overlay", "plot", "runs"})
"""Options and arguments that are paths; those of files in any number are looked at in ``files``."""
MISSING = "'': No such file or directory"
COMMANDS = {
    "compress": "Compress images to bitstreams.",
    "decode": "Decode bitstreams to images.",
    "classify": "Classify images from their bitstreams, without decoding.",
    "segment": "Segment images from their bitstreams, without decoding.",
    "embed": "Compute embeddings from bitstreams, without decoding.",
    "index": "Build and maintain an index of embeddings.",
    "search": "Find the most similar images of an index.",
    "info": "Show size, layers, rate and codec of bitstreams.",
    "verify": "Check the integrity of bitstreams.",
    "models": "List, show, verify and remove installed models.",
    "formats": "List supported image formats.",
    "bench": "Benchmark cost and accuracy of codecs and classifiers.",
    "data": "List and build training and validation sets.",
    "train": "Train codecs, classifiers and segmenters.",
    "eval": "Evaluate models on data sets.",
}
"""Commands, each the module of that name, and the first line of its help."""
SHELL_COMPLETION = "_DCU_COMPLETE"
"""The environment variable with which a shell's completion script calls dcu."""


def set_level(level: int) -> Callable[[Any, Any, bool], bool]:
    """The callback of an option that sets the level of the library's log."""

    def callback(context: Any, option: Any, given: bool) -> bool:
        if given:
            logging.getLogger("dcu").setLevel(level)
        return given

    return callback


def with_log_options(command: Any) -> Any:
    """Add ``--verbose`` to a command, or to each of a group; have ``--quiet`` silence the log; refuse empty paths."""
    for inner in getattr(command, "commands", {}).values():
        with_log_options(inner)
    if not hasattr(command, "commands"):
        for option in command.params:
            if option.name == "quiet":
                option.callback = set_level(logging.WARNING)
            if option.name in INPUTS | OUTPUTS:
                option.process_value = refusing_empty_names(option)
        command.params.append(verbose_option())
    return command


def refusing_empty_names(option: Any) -> Callable[[Any, Any], Any]:
    """How an option for paths takes its value: an empty name would be the current directory."""
    process: Callable[[Any, Any], Any] = option.process_value

    def processed(context: Any, value: Any) -> Any:
        if "" in (value if isinstance(value, list | tuple) else [value]):
            raise UsageError(f"--{option.name}: empty name") if option.name in OUTPUTS else MissingInputError(MISSING)
        return process(context, value)

    return processed


def verbose_option() -> Any:
    """The option ``--verbose`` as typer makes it, for any command."""
    maker = typer.Typer(add_completion=False)

    @maker.command()
    def command(verbose: bool = typer.Option(False, "--verbose", "-v", help="Enable debug logging.")) -> None: ...

    option = typer.main.get_command(maker).params[0]
    option.expose_value, option.callback = False, set_level(logging.DEBUG)
    return option


class LazyGroup(TyperGroup):
    """Lists commands by their summaries; imports a command's module when the command is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, help=summary) for name, summary in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, found, rest = super().resolve_command(ctx, args)
        return name, loaded(name) if name and found else None, rest


def loaded(name: str) -> Any:
    """A command, or a group of commands, from its module."""
    commands = import_module(f"dcu.cli.{name}").app
    commands.rich_markup_mode = None  # markup would take "[fast]" for a style
    return with_log_options(typer.main.get_command(commands))


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_versions(wanted: bool) -> None:
    """Print the versions and leave."""
    if wanted:
        from dcu.cli.versions import versions

        say(*versions())
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False,
        "--version",
        "-V",
        callback=show_versions,
        is_eager=True,
        help="Show the versions of dcu, its dependencies and models, and the CPU features.",
    ),
) -> None:
    """Learned image codec with classification and segmentation of bitstreams.

    Example: dcu compress photo.jpg -o photo.dcu
    """


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
        notes.install()
        command = typer.main.get_command(app)
        if SHELL_COMPLETION in os.environ:
            command.main(prog_name="dcu")
        with command.make_context("dcu", sys.argv[1:]) as context:  # main() would turn a closed pipe into exit code 1
            code = command.invoke(context)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except typer.Exit as leave:
        return leave.exit_code
    except (BrokenPipeError, SystemExit):  # rich leaves with SystemExit where the pipe behind its help is closed
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
        message = error.format_message().replace(": Value error, ", ": ")  # the class that typer's parser raised
        if type(error).__name__ == "NoArgsIsHelpError":
            say(*message.splitlines())
        elif message:  # none where help was shown instead
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
