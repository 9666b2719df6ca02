"""``dcu formats``: the image formats that are read and written."""

from __future__ import annotations

from typing import Any

import typer

from dcu.cli import options
from dcu.cli.console import print_rows

app = typer.Typer(add_completion=False)


@app.command()
def formats(json: options.Json = False) -> None:
    """List supported image formats.

    Formats with an extra require: pip install "dcu-codec[EXTRA]"

    Example: dcu formats --json
    """
    from dcu.image import FORMATS

    rows: list[dict[str, Any]] = []
    for format in FORMATS:
        extensions, written = list(format.extensions), list(format.written)
        rows.append(
            {
                "format": format.name,
                "read": extensions if json else " ".join(extensions) or "any",
                "write": written if json else " ".join(written),
                "extra": format.extra,
            }
        )
    print_rows(rows, json)
