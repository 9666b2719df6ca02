"""Writes reference/cli.md and cli-models.md, from help, and reference/python.md, from docstrings (`make docs`)."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import typer

import dcu
import dcu.torch
from dcu.cli import app

REFERENCE = Path(__file__).parent / "reference"
WIDTH = 78
"""Columns of help in a terminal of 80."""
SHARED = 3
"""Commands with the same option from which on it is described once."""
METHODS = {
    "Codec": ("load", "compress", "decode", "latent", "quality", "read"),
    "Classifier": ("load", "__call__"),
    "Segmenter": ("load", "__call__"),
    "Predictions": ("best",),
    "SegmentationMap": ("class_fractions", "image", "over"),
    "IterableBitstreams": ("set_epoch",),
}
"""The public methods and properties of public classes; all other ones are internal."""
GROUPS = {
    "Functions": ("read_image", "decode", "classify", "register_pillow"),
    "Classes": ("Codec", "Classifier", "Segmenter"),
    "Results": ("Predictions", "Prediction", "SegmentationMap"),
    "Errors": (
        "DcuError",
        "UsageError",
        "InvalidInputError",
        "MissingInputError",
        "UnavailableError",
        "OutputError",
    ),
}
OF_MODELS = ("bench", "data", "train", "eval", "models")
"""Commands that have a page of their own."""
CLI = """# Command line{title}

<!-- Written by docs/reference.py (`make docs`) from the help of each command. -->

The help of every command (`dcu COMMAND --help`); {others}. Exit codes, output and
errors: [exit-codes.md](exit-codes.md). Guides: [index](../index.md).

## Shared options
"""
PYTHON = """# Python API

<!-- Written by docs/reference.py (`make docs`) from docstrings. -->

The names in `dcu.__all__` and `dcu.torch.__all__`. Every other module and name is internal and may change in any
release ([compatibility](../compatibility.md)). Arrays are NumPy's; an image is an array (height, width, 3) of uint8 in
sRGB. A bitstream is `bytes`, `bytearray` or `memoryview`. Importing `dcu` does not import PyTorch; the names
below are loaded at first use.
"""
TORCH = """## Data sets for PyTorch

`import dcu.torch`; examples: [archives.md](../guide/archives.md#pytorch).
"""


def commands() -> list[tuple[str, Any, Any]]:
    """The name, the command and its context of every command, each group before its commands."""
    root: Any = typer.main.get_command(app.app)
    settings = {"terminal_width": WIDTH, "help_option_names": []}

    def below(name: str, command: Any, parent: Any) -> Iterator[tuple[str, Any, Any]]:
        context = command.context_class(command, info_name=name.split()[-1], parent=parent, **settings)
        yield name, command, context
        for word, inner in getattr(command, "commands", {}).items():
            yield from below(f"{name} {word}", app.loaded(word) if command is root else inner, context)

    return list(below("dcu", root, None))


def cli(of_models: bool) -> str:
    """A page of the command line; options that several commands have are on it once."""
    found = [each for each in commands() if (each[0].split()[1:2] in [[name] for name in OF_MODELS]) == of_models]
    title = ": models and data sets" if of_models else ""
    others = (
        "the others: [cli.md](cli.md)" if of_models else f"`{'`, `'.join(OF_MODELS)}`: [cli-models.md](cli-models.md)"
    )
    records = [(option, option.get_help_record(context)) for _, command, context in found for option in command.params]
    counts = Counter(record for option, record in records if record and option.opts[0].startswith("-"))
    shared = {record: option.opts[0] for option, record in records if record and counts[record] >= SHARED}
    formatter = found[0][2].make_formatter()
    formatter.write_dl([*shared, ("-h, --help", "Show this message and exit.")])
    parts = [CLI.format(title=title, others=others), f"```text\n{formatter.getvalue().rstrip()}\n```\n"]
    for name, command, context in found:
        common = [shared.get(option.get_help_record(context)) for option in command.params]
        command.params = [option for option, known in zip(command.params, common, strict=True) if not known]
        parts.append(f"## {name}\n\n```text\n{command.get_help(context).rstrip()}\n```\n")
        if any(common):
            parts.append(f"Shared options: {', '.join(f'`{option}`' for option in common if option)}.\n")
    return "\n".join(parts)


def signature(function: Callable[..., Any], name: str) -> str:
    """A function's signature as it is written, without ``self`` and ``cls``."""
    given = inspect.signature(function)
    taken = [one for one in given.parameters.values() if one.name not in ("self", "cls")]
    return re.sub(r"(: |-> )'([^']+)'", r"\1\2", f"{name}{given.replace(parameters=taken)}")  # annotations are strings


def prose(documented: Any) -> str:
    """A docstring as Markdown: roles and double backquotes as code, numpy's sections as lists."""
    text = inspect.cleandoc(documented.__doc__ or "")
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    before, *rest = re.split(r"^(\w+)\n-+\n", text, flags=re.MULTILINE)
    sections = [f"**{title}**\n\n{entries(body)}" for title, body in zip(rest[::2], rest[1::2], strict=True)]
    return "\n\n".join([before.strip(), *sections])


def entries(body: str) -> str:
    """The entries of a section, ``name`` or ``name : type`` and an indented text each, as a list."""
    lines = []
    for entry in re.split(r"\n(?=\S)", body.strip()):
        head, _, text = entry.partition("\n")
        name, _, kind = head.partition(" : ")
        names = ", ".join(f"`{one}`" for one in name.split(", "))
        lines.append(f"- {names}{f' ({kind})' if kind else ''}: {' '.join(text.split())}")
    return "\n".join(lines)


def member(owner: Any, class_name: str, name: str) -> str:
    """A method or property of a class."""
    found = inspect.getattr_static(owner, name)
    if isinstance(found, property):
        returned = inspect.signature(found.fget).return_annotation if found.fget else ""
        return f"#### {class_name}.{name}\n\n```python\n{class_name}.{name}: {returned}\n```\n\n{prose(found)}\n"
    function = found.__func__ if isinstance(found, classmethod) else found
    shown = class_name.lower() if name == "__call__" else f"{class_name}.{name}"
    title = f"{class_name.lower()}(data)" if name == "__call__" else f"{class_name}.{name}"
    return f"#### {title}\n\n```python\n{signature(function, shown)}\n```\n\n{prose(function)}\n"


def documented(name: str, module: ModuleType = dcu) -> str:
    """A public name with its public members."""
    found = getattr(module, name)
    if not inspect.isclass(found):
        return f"### {name}\n\n```python\n{signature(found, name)}\n```\n\n{prose(found)}\n"
    parts = [f"### {name}\n\n{prose(found)}\n"]
    if is_dataclass(found):
        parts.append("\n".join(f"- `{field.name}`: `{field.type}`" for field in fields(found)) + "\n")
    if issubclass(found, dcu.DcuError):
        parts.append(f"Exit code: {found.exit_code}.\n")
    return "\n".join([*parts, *(member(found, name, each) for each in METHODS.get(name, ()))])


def python() -> str:
    """The page of the Python API."""
    parts = [f"## {title}\n\n" + "\n".join(map(documented, names)) for title, names in GROUPS.items()]
    latents = map(partial(documented, module=dcu.torch), dcu.torch.__all__)
    return "\n".join([PYTHON, *parts, TORCH, *latents])


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": partial(cli, False),
    "cli-models.md": partial(cli, True),
    "python.md": python,
}

if __name__ == "__main__":
    for page, content in PAGES.items():
        (REFERENCE / page).write_text(content(), "utf-8")
