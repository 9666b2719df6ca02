"""Measures what archives cost per image (docs/scale.py): dcu's commands, AVIF, and the RGB network on AVIF files.

Commands run as their users run them, in processes of their own; AVIF and the RGB network run in this process, several
images in parallel too. All cores are in use.
"""

from __future__ import annotations

import datetime
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from PIL import AvifImagePlugin, Image

from dcu import store
from dcu.bench.accuracy import quoted
from dcu.bench.measure import runners, time_runners
from dcu.bench.pipelines import pipelines
from dcu.bench.points import points_of
from dcu.bench.table import processor
from dcu.data import dataset_name, items
from dcu.engines import TITLES
from dcu.evaluate.baselines import FORMATS
from dcu.geometry import CROP
from dcu.image import ImageArray, read_image, standard_crop
from dcu.jobs import cores
from dcu.precision import chosen
from dcu.tasks.classify import Classifier
from docs.results import ROOT

RATES = ("0.0983", "0.330", "0.635")
OUTPUTS = {
    "compress": "bins/",
    "classify": "labels.jsonl",
    "embed": "features.parquet",
    "segment": "maps/",
    "decode": "images/",
}
"""Commands, and what each writes."""
ENCODE, LABEL = "AVIF encode", "AVIF decode + RGB network"
AVIF = FORMATS["avif"]
BATCH = 32
"""Files that are decoded and classified together by the RGB network."""
ONES = 3
"""Runs over a single image, of which the median counts."""
FITTED = 64
"""Images by which AVIF's quality is chosen."""


CLOCK = """
import os, subprocess, sys, time
started = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(time.perf_counter() - started, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status) & 255)
"""
"""Runs a command: its seconds and memory. In a process of its own: a child's memory begins with its parent's."""


@dataclass(frozen=True)
class Row:
    """What a step costs on average per image, with all cores of a machine in use.

    ``seconds`` are those of the clock; ``read`` and ``written`` are bytes; ``peak_mib`` is resident memory
    of the command.
    """

    step: str
    rate: str
    side: int
    engine: str
    seconds: float
    read: float
    written: float
    peak_mib: float | None
    images: int
    dataset: str
    cores: int
    machine: str
    date: str

    @property
    def core_seconds(self) -> float:
        """Seconds of one core per image."""
        return self.seconds * self.cores


@dataclass(frozen=True)
class Setting:
    """What all rows of a measurement have in common: N images of 224x224 as PNG files in a directory."""

    directory: Path
    images: int
    dataset: str
    seconds: float

    @property
    def files(self) -> list[Path]:
        """The images' files."""
        return sorted((self.directory / "originals").iterdir())

    def row(
        self,
        step: str,
        rate: str,
        engine: str,
        seconds: float,
        read: float,
        written: float,
        side: int = CROP,
        peak_mib: float | None = None,
    ) -> Row:
        """A row of this measurement."""
        today = datetime.date.today().isoformat()
        figures = (float(f"{seconds:.4g}"), round(float(read), 1), round(float(written), 1), peak_mib)
        return Row(step, rate, side, engine, *figures, self.images, self.dataset, cores(), processor(), today)


def per_image(many: float, one: float, images: int) -> float:
    """Seconds per image, of a run over all images and of one over a single one: what both need once cancels out.

    Raises
    ------
    ValueError
        The first took no longer: nothing was measured.
    """
    if many <= one or images < 2:
        raise ValueError(f"{images} images took {many:.2f} s, one {one:.2f} s: take more images, or a quiet machine")
    return (many - one) / (images - 1)


def prepared(data: Path, images: int, directory: Path, seconds: float) -> Setting:
    """Write the standard crops of images, evenly over a data set, as PNG files."""
    found = items(data)
    images = min(images, len(found))
    (directory / "originals").mkdir()
    for index in range(images):
        crop = standard_crop(found[index * len(found) // images].image())
        Image.fromarray(crop).save(directory / "originals" / f"{index:06}.png")
    return Setting(directory, images, dataset_name(data), seconds)


def run(*arguments: str | Path) -> tuple[float, float]:
    """Run dcu; its seconds, and its resident memory at most, in MiB. Raises CalledProcessError."""
    command = [sys.executable, "-c", CLOCK, sys.executable, "-m", "dcu", *map(str, arguments)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=True, text=True).stdout
    seconds, resident = map(float, answer.split())
    return seconds, round(resident / (2**20 if sys.platform == "darwin" else 2**10), 0)


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a directory."""
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def command_row(setting: Setting, step: str, rate: str) -> Row:
    """A command over all images or bitstreams of a rate; what it writes stays there."""
    place = setting.directory / rate
    source = setting.directory / "originals" if step == "compress" else place / "bins"
    options = ["-q", *(["--rate", rate] if step == "compress" else [])]
    single = min(source.iterdir())
    if step == "classify":
        run(step, single, *options, "-o", f"{place}/first/{OUTPUTS[step]}")  # prepares the network, once for all
    seconds_one = median(run(step, single, *options, "-o", f"{place}/one{n}/{OUTPUTS[step]}")[0] for n in range(ONES))
    seconds, peak = run(step, source, *options, "-o", f"{place}/{OUTPUTS[step]}")
    return setting.row(
        step,
        rate,
        engine_of(step),
        per_image(seconds, seconds_one, setting.images),
        size(source) / setting.images,
        size(place / OUTPUTS[step]) / setting.images,
        peak_mib=peak,
    )


def engine_of(step: str) -> str:
    """What a command's networks run on, by default."""
    if step == "classify":
        return TITLES[Classifier.load().engine]
    precision = chosen("auto", "cpu") if step in ("compress", "decode") else "float32"
    return f"PyTorch {precision}"


def avif_rows(setting: Setting, rate: str, most: float) -> Iterator[Row]:
    """AVIF at the bytes of a rate, reduced as for the RGB network's accuracy, and labels from it."""
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # images in parallel, as dcu's
    (point,) = points_of(store.find(None, "codec"), [float(rate)], [])
    side = quoted(point).sides["avif"]
    images = [read_image(path.read_bytes()) for path in setting.files[:FITTED]]
    quality = fitting(images, side, most)
    seconds, written = encoding(setting.files, side, quality)
    read = size(setting.directory / "originals") / setting.images
    yield setting.row(ENCODE, rate, "libavif speed 6", seconds, read, written, side)

    torch.set_num_threads(cores())
    timed = pipelines(point, images[:BATCH], ["avif"], {"avif": side}, "cpu")
    (found,) = runners([row for row in timed if row.pipeline.input == "format"], [BATCH])
    time_runners([found], setting.seconds)
    best = min((runner.timing() for runner in found), key=lambda timing: timing.ms)
    yield setting.row(LABEL, rate, best.engine, best.ms / 1e3, written, 0, side)


def fitting(images: Sequence[ImageArray], side: int, most: float) -> int:
    """The highest quality of AVIF with which images have at most so many bytes on the mean, reduced to a side."""
    fitted = 0
    for quality in AVIF.fine:
        if sum(len(AVIF.encode(image, quality, side / CROP)) for image in images) > most * len(images):
            break
        fitted = quality
    return fitted


def encoding(paths: Sequence[Path], side: int, quality: int) -> tuple[float, float]:
    """Seconds and bytes per image, from PNG files to AVIF files, images in parallel on all cores."""

    def encode(path: Path) -> int:
        data = AVIF.encode(read_image(path.read_bytes()), quality, side / CROP)
        return path.with_suffix(".avif").write_bytes(data)

    def clock(chosen: Sequence[Path]) -> tuple[float, int]:
        started = time.perf_counter()
        with ThreadPoolExecutor(cores()) as pool:
            written = sum(pool.map(encode, chosen))
        return time.perf_counter() - started, written

    try:
        clock(paths[:1])
        (one, _), (many, written) = clock(paths[:1]), clock(paths)
    finally:
        for path in paths:
            path.with_suffix(".avif").unlink(missing_ok=True)
    return per_image(many, one, len(paths)), written / len(paths)


def measure(data: Path, images: int, seconds: float, rates: Sequence[str] = RATES) -> Iterator[Row]:
    """All rows, one by one; takes some minutes."""
    with tempfile.TemporaryDirectory(prefix="dcu-scale-") as directory:
        setting = prepared(data, images, Path(directory), seconds)
        for rate in rates:
            yield from (rows := [command_row(setting, step, rate) for step in OUTPUTS])
            yield from avif_rows(setting, rate, one(rows, "compress", rate).written)


def one(rows: Sequence[Row], step: str, rate: str) -> Row:
    """The row of a step at a rate."""
    return next(row for row in rows if (row.step, row.rate) == (step, rate))
