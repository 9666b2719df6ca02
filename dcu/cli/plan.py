"""``--dry-run``: which files a command would write."""

from __future__ import annotations

from pathlib import Path

from dcu.cli import files
from dcu.cli.console import print_json, say
from dcu.cli.files import Inputs
from dcu.cli.places import Places
from dcu.cli.report import Report


def show(found: Inputs, *chosen: Places | None, json: bool = False, retry: Path | None = None) -> int:
    """Print the output of each input, and whether a file is there already; the exit code.

    Inputs are opened and not read; nothing is written. With ``retry``, the table of an earlier run, of those that
    failed there.
    """
    report = Report(found, json, quiet=False, retried=retry)
    for source in filter(lambda source: report.wanted_shard(source.name), found.sources):
        with report.of(source.name), source.opened():
            for place in [places.of(source) for places in chosen if places]:
                exists = files.exists(place)
                if json:
                    print_json({"input": source.name, "output": str(place or "-"), "exists": exists})
                else:
                    say(f"{source.name} -> {place or '-'}{' (exists)' if exists else ''}")
    return report.finish("nothing was written")
