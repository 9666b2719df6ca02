"""Runs the code blocks of pages of Markdown in order: ``python code_blocks.py DIRECTORY PAGE...``.

Blocks of Python and of the shell run in a new directory for each page, which holds ``samples/``. Lines that begin as
one of ``SKIPPED`` do not run: they install. ``--minutes`` and ``--seconds`` get a tiny budget.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

SAMPLES = Path(__file__).parent.parent / "samples"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SKIPPED = ("make ", "pip install ")
BUDGETS = {r"--minutes \S+": "--minutes 0.02", r"--seconds \S+": "--seconds 0"}


def commands(page: Path) -> list[list[str]]:
    """The commands of a page that run, one for each block of Python and for each line of the shell."""
    found = []
    for language, text in BLOCK.findall(page.read_text("utf-8")):
        if language == "python":
            found.append([sys.executable, "-c", text])
            continue
        for line in text.splitlines():
            if line.strip() and not line.startswith(SKIPPED):
                for printed, budget in BUDGETS.items():
                    line = re.sub(printed, budget, line)
                found.append(["bash", "-o", "pipefail", "-c", line])
    return found


def command(directory: Path) -> Path:
    """A directory in another one with the command dcu of this checkout, also where dcu is not installed."""
    script = directory / ".bin" / "dcu"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dcu "$@"\n')
    script.chmod(0o755)
    return script.parent


def run(page: Path, directory: Path) -> None:
    """Run a page's commands in a new directory; raises RuntimeError where one fails, with its output."""
    shutil.copytree(SAMPLES, directory / "samples")
    environment = os.environ | {"PATH": f"{command(directory)}{os.pathsep}{os.environ['PATH']}"}
    for words in commands(page):
        done = subprocess.run(words, cwd=directory, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{page.name}: {words[-1]}: {done.returncode}\n{done.stdout}\n{done.stderr}")


if __name__ == "__main__":
    for name in sys.argv[2:]:
        run(Path(name), Path(sys.argv[1]).resolve() / Path(name).stem)
