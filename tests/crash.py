"""Commands killed at random moments: what they had written is whole, and a repeated run equals an undisturbed one.

``make crash`` kills every command that writes 20 times, from a printed seed; tests/test_crash.py twice each.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safetensors.torch import load

from dcu.codec import Codec

from . import conftest
from .conftest import png, smooth_image, tar
from .spawn import Ran, run

RECIPES = {
    "codec.toml": """
[codec]
name = "tiny"
rate = 0.5
width = 8
analysis_depth = 1
synthesis_depth = 1
context_hidden = 8
groups = [{ channels = 1, levels = 9, passes = 3 }, { channels = 2, levels = 5, passes = 2 }]
[data]
crop = 32
batch = 2
held_out = 1
[schedule]
steps = 12
learning_rate = 1e-3
validate_every = 4
checkpoint_every = 1
""",
    "segmenter.toml": """
[segmenter]
name = "tiny-segmenter"
codec = "codec-0.0983"
void = 7
input = "latent"
pyramid = 8
labels = [{ label = "sky", color = "#0000ff" }, { label = "road", color = "#102030" }]
[data]
batch = 2
crop = 32
held_out = 1
[schedule]
steps = 4
learning_rate = 1e-3
checkpoint_every = 1
""",
}
CHANGING = {"date", "minutes"}
"""Keys of cards that say when, or how long something took."""


@dataclass(frozen=True)
class Command:
    """A command line, what it writes, and what a repetition is given beside."""

    words: str
    outputs: tuple[str, ...] = ("out",)
    again: str = ""
    trains: bool = False
    by_hand: bool = False


COMMANDS = {
    "compress": Command("compress images --codec codec-0.0983 -o out"),
    "decode": Command("decode bins -o out"),
    "segment": Command("segment bins -o out/maps --overlay out/overlays"),
    "embed": Command("embed bins -o out"),
    "compress shards": Command("compress shards --codec codec-0.0983 -o out --jobs 2"),
    "embed shards to tables": Command("embed binshards -o out"),
    "classify to a table": Command("classify bins -o out/labels.parquet", again="--force"),
    "data build": Command("data build kodak --clones clones -o out", again="--force"),
    "train codec": Command(
        "train codec codec.toml --data images --out out/m --runs runs", ("out", "runs"), trains=True
    ),
    "train segmenter": Command(
        "train segmenter segmenter.toml --data streets --out out/m --runs runs", ("out", "runs"), trains=True
    ),
    "train head": Command("train head classes --codec codec-0.0983 --out out/m", again="--force"),
    "train mean": Command("train mean classifier-0.0983 models/classifier-0.0983 --out out/m", again="--force"),
    "eval codec": Command("eval codec images --codec codec-0.0983 --record", ("models",)),
    "eval calibrate": Command("eval calibrate named --network classifier-0.0983 --engine pytorch", ("models",)),
    "models prepared for ONNX Runtime": Command("classify squares --engine onnx", ("cache",), by_hand=True),
    "bench": Command(
        "bench --codec codec-0.0983 --seconds 0 --baselines jpeg --html out/page.html", again="--force", by_hand=True
    ),
}


def prepare(directory: Path) -> None:
    """What the commands read: models, images, bitstreams, images and label maps by class, a clone."""
    codec_model = conftest.write_codec(directory / "models" / "codec-0.0983")
    conftest.write_classifier(directory / "models" / "classifier-0.0983", codec_model.fingerprint)
    conftest.write_segmenter(directory / "models" / "segmenter-0.0983", codec_model.fingerprint)
    codec = Codec.from_model(codec_model)
    files: dict[str, bytes] = {name: text.encode() for name, text in RECIPES.items()}
    for number in range(12):
        image = smooth_image(40, 52, number)
        half = image[..., 0] * 0 + (image[..., 0] > 128)
        files |= {
            f"images/{number}.png": png(image),
            f"bins/{number}.bin": codec.compress(image),
            f"classes/{'even' if number % 2 else 'odd'}/{number}.png": png(image),
            f"named/n{number % 3:08}/{number}.png": png(image),
            f"streets/images/{number}.png": png(image),
            f"streets/labels/{number}.png": png(half),
            f"clones/Kodak-Lossless-True-Color-Image-Suite/PhotoCD_PCD0992/{2 * number + 1}.png": png(image),
        }
    files["squares/0.bin"] = codec.compress(smooth_image(224, 224, 0))  # others are computed by PyTorch
    for folder, source in (("shards", "images"), ("binshards", "bins")):
        members = [(Path(name).name, data) for name, data in files.items() if name.startswith(f"{source}/")]
        files |= {f"{folder}/{number}.tar": tar(members[number::3]) for number in range(3)}
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    git = ["git", "-C", str(directory / "clones" / "Kodak-Lossless-True-Color-Image-Suite")]
    who = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "images"]):
        subprocess.run([*git, *words], check=True)


def state(directory: Path, command: Command) -> dict[str, bytes]:
    """Every file below the outputs, by its name; locks and logs apart, and what cards say of times."""
    found = {}
    for top in command.outputs:
        for path in sorted((directory / top).rglob("*")):
            if path.is_file() and path.name not in ("lock", "log.jsonl") and path.suffix != ".lock":
                found[str(path.relative_to(directory))] = comparable(path)
    return found


def comparable(path: Path) -> bytes:
    """What is to be the same in each run; raises where a file is not whole."""
    data = path.read_bytes()
    if path.name == "card.json":
        card = json.loads(data)
        for part in (card.get("training", {}), *card.get("results", [])):
            for key in CHANGING & part.keys():
                del part[key]
        return json.dumps(card).encode()
    if path.suffix == ".html":  # with times
        assert data.rstrip().endswith(b"</html>"), f"{path} is not whole"
        return b""
    if path.suffix == ".safetensors":
        load(data)
    return data


def call(command: Command, directory: Path, more: str = "", meanwhile: Callable[[int], None] | None = None) -> Ran:
    """Run a command in a directory, with its models and its cache."""
    os.environ |= {"DCU_MODELS": str(directory / "models"), "DCU_CACHE": str(directory / "cache")}
    os.environ["XDG_DATA_HOME"] = str(directory / "data-home")
    return run(*shlex.split(f"{command.words} {more}"), scratch=directory, meanwhile=meanwhile)


def kill_after(seconds: float, number: int) -> None:
    """Kill a process after some time, if it still runs."""
    time.sleep(seconds)
    with suppress(ProcessLookupError):
        os.kill(number, signal.SIGKILL)


class Trial:
    """A command, run once undisturbed; then killed as often as is asked for.

    Parameters
    ----------
    prepared : Path
        A directory that :func:`prepare` has filled; each run has a copy of it.
    """

    def __init__(self, command: Command, prepared: Path, scratch: Path) -> None:
        self.command, self.prepared, self.scratch = command, prepared, scratch
        directory = self.copy()
        self.before = state(directory, command)
        started = time.monotonic()
        ran = call(command, directory)
        self.seconds = time.monotonic() - started
        assert ran.code == 0, ran.err
        self.expected = state(directory, command)
        assert self.expected != self.before, "it writes nothing"
        shutil.rmtree(directory)

    def copy(self) -> Path:
        """A new copy of what the commands read."""
        directory = self.scratch / "work"
        shutil.copytree(self.prepared, directory, symlinks=True)
        return directory

    def kill(self, share: float) -> bool:
        """Kill a run after a share of an undisturbed one's time, then repeat it; whether it was still running.

        Raises AssertionError where what is left is not whole, or differs after the repetition.
        """
        directory = self.copy()
        ran = call(self.command, directory, meanwhile=partial(kill_after, share * self.seconds))
        for name, data in state(directory, self.command).items():
            same = data in (self.expected.get(name), self.before.get(name))
            changing = self.command.trains or name.endswith(("card.json", ".part"))
            assert same or changing, f"{name} is neither as before nor as it should be"
        resumed = any(directory.glob("runs/*/checkpoint.safetensors"))
        again = call(self.command, directory, "--resume" if resumed else self.command.again)
        assert again.code == 0, again.err
        after = state(directory, self.command)
        different = [name for name in after.keys() | self.expected.keys() if after.get(name) != self.expected.get(name)]
        assert not different, f"different after a repeated run: {', '.join(sorted(different))}"
        shutil.rmtree(directory)
        return ran.code == -signal.SIGKILL


def main() -> None:
    """Kill every command, or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9))
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument("--only", metavar="COMMAND", choices=COMMANDS)
    given = parser.parse_args()
    print(f"seed {given.seed}")
    moments = random.Random(given.seed)
    for name in [given.only] if given.only else COMMANDS:
        with tempfile.TemporaryDirectory(prefix="dcu-crash-") as directory:
            prepare(prepared := Path(directory) / "prepared")
            trial, killed, tries = Trial(COMMANDS[name], prepared, Path(directory)), 0, 0
            while killed < given.kills and tries < 10 * given.kills:
                killed += trial.kill(moments.random())
                tries += 1
        print(f"{name}: {killed} of {tries} runs were killed; each repetition equals the undisturbed run", flush=True)


if __name__ == "__main__":
    main()
