"""Trains and measures the networks of docs/paper.md: ResNets on images, cResNets on latents, all of one setting."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dcu import store
from dcu.cards import share_error
from dcu.codec import Codec
from dcu.data import Item, Pair, items, pairs
from dcu.evaluate.classifier import numbers_among, ranks
from dcu.evaluate.cost import STREET, codec_cost, resnet_cost
from dcu.evaluate.segmenter import LatentAnswer, RgbCounterpart, confusion, intersection_over_union, miou_error
from dcu.geometry import CROP
from dcu.image import standard_crop
from dcu.nets.resnet import ResNet, shape_by_name
from dcu.nets.rgb import to_input
from dcu.tasks.classify import Classifier, build_network
from dcu.tasks.segment import Segmenter
from docs.results import ROOT, Row, as_csv

EXPERIMENT = ROOT / "experiments" / "2026-11-30-paper"
FIRST = str(EXPERIMENT / "codec-0.0983-first")
"""The codec at 0.0983 bpp before it was trained with a classifier; codec-0.330 never was."""
SIDE = 128
"""Of the images that are classified."""
CURVES = EXPERIMENT / "curves.csv"
"""Metrics on held-out images during the training of each network."""
BATCH = 32
TOP = 5


@dataclass(frozen=True)
class Compared:
    """A network by name, what it reads, at which rate; the network that it is compared with."""

    network: str
    input: str
    rate: str
    against: str = ""

    @property
    def name(self) -> str:
        """As its model is called."""
        return f"{self.network}-{self.rate}"

    @property
    def codec(self) -> str:
        """The codec's name or path."""
        return "codec-0.330" if self.rate == "0.330" else FIRST

    @property
    def directory(self) -> Path:
        """Of the model."""
        return EXPERIMENT / self.name

    @property
    def segments(self) -> bool:
        """Whether it is a segmenter."""
        return self.network.endswith("-d")

    def run(self, runs: Path) -> Path:
        """The directory of its training."""
        return runs / self.name / ("segmenter-0.0983" if self.segments else self.name)

    def command(self, data: Path, runs: Path) -> list[str]:
        """The training's command, as docs/paper.md states it; resumed where it has begun."""
        common = ["--data", str(data), "--runs", str(runs / self.name), "--out", str(self.directory)]
        if self.segments:
            start = EXPERIMENT / f"{self.network.removesuffix('-d')}-{self.rate}"
            chosen = [f"segmenter.{key}={value}" for key, value in self.segmenter().items()]
            call = ["segmenter", "segmenter-0.0983", *(f"--set={setting}" for setting in chosen)]
            begin = ["--init", str(start)]
        else:
            call = ["classifier", "paper-small", "--network", self.network, "--input", self.input]
            call += ["--codec", self.codec, f"--set=resnet.name={self.name}"]
            begin = []
        begun = (self.run(runs) / "checkpoint.safetensors").exists()
        return ["train", *call, *common, *(["--resume"] if begun else begin)]

    def segmenter(self) -> dict[str, object]:
        """What differs from the recipe of segmenters."""
        width = store.read_model(EXPERIMENT / f"{self.network.removesuffix('-d')}-{self.rate}").card.training
        assert width is not None
        own = {"name": self.name, "network": self.network, "input": self.input, "codec": self.codec}
        return own | {"width": width.settings["width"], "backbone_scale": 1.0}


NETWORKS = (
    Compared("resnet50", "original", "original"),
    Compared("resnet50", "decoded", "0.0983", "resnet50-original"),
    Compared("cresnet51", "latent", "0.0983", "resnet50-0.0983"),
    Compared("cresnet39", "latent", "0.0983", "resnet50-0.0983"),
    Compared("resnet50", "decoded", "0.330", "resnet50-original"),
    Compared("cresnet51", "latent", "0.330", "resnet50-0.330"),
    Compared("resnet50-d", "decoded", "0.0983"),
    Compared("cresnet51-d", "latent", "0.0983", "resnet50-d-0.0983"),
)


def train(data: Path, runs: Path, minutes: float | None) -> None:
    """Train what is not trained yet, for so many minutes each in this call; raises CalledProcessError."""
    for compared in NETWORKS:
        if compared.directory.exists():
            keep_curve(compared, runs)
            continue
        source = data / ("camvid-train.tar" if compared.segments else "imagenet20-train.tar")
        limit = ["--minutes", str(minutes)] if minutes else []
        subprocess.run([sys.executable, "-m", "dcu", *compared.command(source, runs), *limit], cwd=ROOT, check=True)
        if not compared.directory.exists():
            break
        keep_curve(compared, runs)


def keep_curve(compared: Compared, runs: Path) -> None:
    """Take a network's learning curve from the log of its training, where that is there, into ``CURVES``."""
    log = compared.run(runs) / "log.jsonl"
    if log.exists():
        kept: list[Row] = [dict(row) for row in curves() if row["name"] != compared.name]
        CURVES.write_text(as_csv([*kept, *learning_curve(compared.name, log.read_text("utf-8"))]), "utf-8")


def curves() -> list[dict[str, str]]:
    """The rows of ``CURVES``."""
    if not CURVES.exists():
        return []
    with CURVES.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def learning_curve(name: str, log: str) -> list[Row]:
    """Top-1 or mIoU on held-out images by step, and the minutes of all calls of a training until then."""
    rows: list[Row] = []
    before = last = 0.0
    for line in map(json.loads, log.splitlines()):
        if line["seconds"] < last:  # of another call
            before += last
        last = line["seconds"]
        metric = line.get("held_top1", line.get("held_miou"))
        if metric is not None:
            row: Row = {"name": name, "step": line["step"], "minutes": round((before + last) / 60, 1)}
            rows.append(row | {"held_out": round(metric, 4)})
    return rows


@dataclass(frozen=True)
class Answers:
    """What a network said of each image.

    Of a classifier, the place of the right class among its answers, (n,); of a segmenter, pixels by true and predicted
    class, (n, classes, classes).
    """

    found: NDArray[np.int64]
    bpp: float

    def score(self) -> tuple[float, float]:
        """Top-1 accuracy or mIoU, and its standard error."""
        if self.found.ndim == 1:
            correct = float((self.found == 0).mean())
            return correct, share_error(correct, len(self.found))
        return miou(self.found.sum(0)), miou_error(list(self.found))

    def row(self, compared: Compared, others: dict[str, Answers]) -> Row:
        """Metrics with standard errors, and the difference to the network that it is compared with."""
        value, error = self.score()
        top5 = None if compared.segments else round(float((self.found < TOP).mean()), 4)
        row: Row = {"name": compared.name, "images": len(self.found), "bpp": round(self.bpp, 4)}
        row |= {"value": round(value, 4), "se": round(error, 4), "top5": top5}
        row |= {"against": compared.against, "difference": None, "difference_se": None}
        if compared.against:
            difference, error = paired(self.found, others[compared.against].found)
            row |= {"difference": round(difference, 4), "difference_se": round(error, 4)}
        return row | costs(compared)


def paired(one: NDArray[np.int64], other: NDArray[np.int64]) -> tuple[float, float]:
    """The difference of two networks on the same images and its standard error: of top-1, or of mIoU (jackknife)."""
    if one.ndim == 1:
        differences = (one == 0).astype(float) - (other == 0)
        return float(differences.mean()), float(differences.std(ddof=1) / len(differences) ** 0.5)
    without = np.array([miou(one.sum(0) - a) - miou(other.sum(0) - b) for a, b in zip(one, other, strict=True)])
    count = len(without)
    error = ((count - 1) / count * ((without - without.mean()) ** 2).sum()) ** 0.5
    return miou(one.sum(0)) - miou(other.sum(0)), float(error)


def miou(counts: NDArray[np.int64]) -> float:
    """Mean intersection over union."""
    return float(np.nanmean(intersection_over_union(counts)))


@torch.inference_mode()
def classified(compared: Compared, found: Sequence[Item]) -> Answers:
    """A classifier's answers to the centers of images."""
    model = store.read_model(compared.directory)
    codec = Codec.load(compared.codec, precision="float32")
    network, bits, answers = build_network(model), 0, []
    latent = Classifier(model, codec, engine="pytorch") if compared.input == "latent" else None
    for first in range(0, len(found), BATCH):
        images = [standard_crop(item.image(), SIDE) for item in found[first : first + BATCH]]
        files = [] if compared.input == "original" else [codec.compress(image) for image in images]
        bits += sum(8 * len(file) for file in files)
        if latent is not None:
            answers.append(latent.through(latent.logits, latent.look([codec.read(file) for file in files])))
        else:
            seen = np.stack([codec.decode(file) for file in files] or images)
            answers.append(network(to_input(torch.from_numpy(seen))))
    numbers = torch.tensor(numbers_among(model.card.classes, compared.name, found))
    return Answers(ranks(torch.cat(answers), numbers).numpy(), bits / len(found) / SIDE**2)


def segmented(compared: Compared, found: Sequence[Pair]) -> Answers:
    """A segmenter's answers to whole images."""
    model = store.read_model(compared.directory)
    codec = Codec.load(compared.codec, precision="float32")
    latent = compared.input == "latent"
    segmenter = LatentAnswer(Segmenter(model, codec)) if latent else RgbCounterpart(model, codec)
    counts, bits = [], 0.0
    for pair in found:
        image, truth = pair.image.image(), pair.classes()
        data = codec.compress(image)
        bits += 8 * len(data) / truth.size
        counts.append(confusion(truth, segmenter.answer(image, data), len(segmenter.labels)))
    return Answers(np.stack(counts), bits / len(found))


def costs(compared: Compared) -> Row:
    """Parameters, and MACs: of the network, and of the path from the file to the answer."""
    model = store.read_model(compared.directory)
    codec = Codec.load(compared.codec, precision="float32")
    width, height = STREET if compared.segments else (SIDE, SIDE)
    per_pixel = codec_cost(codec)
    decoding = {"latent": per_pixel.context, "decoded": per_pixel.context + per_pixel.synthesis, "original": 0}
    own = model.card.macs
    if compared.segments and compared.input == "decoded":
        own -= per_pixel.synthesis * width * height  # which its card includes
    network = build_network(model) if not compared.segments else None
    if isinstance(network, ResNet):
        own = resnet_cost(network, SIDE)
    path = own + decoding[compared.input] * width * height
    training = model.card.training
    assert training is not None
    data = training.settings["data"]
    assert isinstance(data, dict)
    return {"network": compared.network, "input": compared.input, "codec": codec.fingerprint[:8]} | {
        "parameters": model.card.parameters,
        "macs": own,
        "path_macs": path,
        "full_path_macs": None if compared.segments else full_size(compared, codec, decoding[compared.input]),
        "images_seen": training.steps * data["batch"],
        "minutes": max((float(row["minutes"]) for row in curves() if row["name"] == compared.name), default=None),
    }


def full_size(compared: Compared, codec: Codec, decoding: int) -> int:
    """MACs from the file to the label at the paper's scale: full width, the stride in the 1x1 convolution, 224x224.

    ``decoding`` is the cost per pixel of what comes before the network.
    """
    shape = shape_by_name(compared.network, codec.channels, 1.0, "1x1")
    return resnet_cost(ResNet(shape, 1000), CROP) + decoding * CROP**2


def measured(data: Path) -> Iterator[Row]:
    """A row per network."""
    labeled, street = items(data / "imagenet20-val.tar"), pairs(data / "camvid-val.tar")
    answers: dict[str, Answers] = {}
    for compared in NETWORKS:
        answers[compared.name] = segmented(compared, street) if compared.segments else classified(compared, labeled)
        yield answers[compared.name].row(compared, answers)
