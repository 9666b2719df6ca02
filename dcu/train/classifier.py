"""Distilling a classifier on latents from the RGB network on the original picture.

Both see the same view (a random crop, mirrored or not); the student gets the view's latent, the teacher its pixels.
Views are made once and kept on disk: symbols, the teacher's logits, and the features of its last block, 320 x 7 x 7,
which say at 49 places what a single answer cannot.

    loss = KL(teacher || student) + alpha * mean((f_student - f_teacher)^2 / var(f_teacher))

Half of the views are mixed by cutting a box out of another (cut-mix, arXiv 1905.04899) on the grid of the features,
the teacher's probabilities and features being mixed likewise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from dcu.codec import Codec
from dcu.data import Item
from dcu.image import Picture, field_crop, read_picture
from dcu.nets import channels_last
from dcu.nets.efficientnet import LatentClassifier
from dcu.train.loop import Schedule, prefetch
from dcu.train.teachers import rgb_network, to_input

Track = Callable[[Iterable[Any], int], Iterable[Any]]
"""Shows progress: wraps an iterable of so many steps."""

SIDE, SHORT = 224, 256
CELL = 4  # latent positions a position of the last features
CHUNK = 32


@dataclass(frozen=True)
class ClassifierRecipe:
    """The network, the codec whose latents it reads, and what is asked of it."""

    name: str
    codec: str
    width: int = 96
    depth: int = 1
    feature_weight: float = 1.0  # alpha
    trunk_scale: float = 0.2  # the trunk's learning rate, relative to the front end's
    mix: float = 0.5  # share of the views that are mixed


@dataclass(frozen=True)
class ClassifierData:
    """How many views of each picture are made, by the name of its data set (1 if not said; parts by chance)."""

    batch: int = 64
    smallest: float = 0.3  # smallest share of the picture's area that a view shows
    held_out: int = 300  # pictures kept aside to watch agreement with the teacher
    held_out_from: tuple[str, ...] = ()
    views: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class View:
    """One view: the picture, and the number that seeds its crop (-1: the field's centre crop)."""

    item: Item
    number: int


def random_view(picture: Picture, smallest: float, rng: np.random.Generator) -> Picture:
    """A random part of the picture, of ratio 3/4 to 4/3, at 224x224, mirrored half of the time."""
    height, width = picture.shape[:2]
    area = height * width * rng.uniform(smallest, 1.0)
    ratio = float(np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3))))
    w, h = min(width, round((area * ratio) ** 0.5)), min(height, round((area / ratio) ** 0.5))
    left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
    image = Image.fromarray(picture[top : top + h, left : left + w]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    view = np.asarray(image)
    return view[:, ::-1] if rng.random() < 0.5 else view


def make_view(view: View, data: ClassifierData, seed: int) -> Picture:
    """The pixels of a view, (224, 224, 3)."""
    picture = read_picture(view.item.read())
    if view.number < 0:
        return field_crop(picture, SIDE, SHORT)
    return random_view(picture, data.smallest, np.random.default_rng((seed, view.number)))


def plan_views(items: list[Item], data: ClassifierData, seed: int) -> tuple[list[View], list[View]]:
    """The views to train on, shuffled, and those held out."""
    rng = np.random.default_rng(seed)
    eligible = [i for i, item in enumerate(items) if item.dataset in data.held_out_from]
    held = set(rng.permutation(eligible)[: data.held_out].tolist()) if eligible else set()
    views = []
    for index, item in enumerate(items):
        wanted = data.views.get(item.dataset, 1.0)
        if index not in held:
            views += [item] * (int(wanted) + int(rng.random() < wanted % 1))
    order = rng.permutation(len(views))
    return [View(views[i], n) for n, i in enumerate(order)], [View(items[i], -1) for i in sorted(held)]


class Cache:
    """Symbols, the teacher's logits and features of views, as .npy files that are mapped, not read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.symbols = self.load("symbols")
        self.logits = self.load("logits")
        self.features = self.load("features")

    def load(self, name: str) -> NDArray[Any]:
        """One of the arrays."""
        array: NDArray[Any] = np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        return array

    def __len__(self) -> int:
        return len(self.symbols)


def build_cache(
    folder: Path, views: list[View], codec: Codec, data: ClassifierData, schedule: Schedule, track: Track
) -> Cache:
    """Make the views, or map those that an earlier call made from the same pictures, codec and seed."""
    key = json.dumps(
        [
            codec.fingerprint,
            schedule.seed,
            data.smallest,
            len(views),
            *(f"{v.item.name}:{v.number}" for v in views[:100]),
        ]
    )
    done = folder / "done.json"
    if done.exists() and done.read_text(encoding="utf-8") == key:
        return Cache(folder)
    folder.mkdir(parents=True, exist_ok=True)
    done.unlink(missing_ok=True)
    shapes = {
        "symbols": ((len(codec.levels), SIDE // 8, SIDE // 8), np.uint8),
        "logits": ((1000,), np.float16),
        "features": ((320, SIDE // 32, SIDE // 32), np.float16),
    }
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (len(views), *shape))
        for name, (shape, dtype) in shapes.items()
    }
    teacher = rgb_network()
    at = 0

    def chunk(index: int) -> NDArray[np.uint8]:
        return np.stack([make_view(view, data, schedule.seed) for view in views[index * CHUNK : (index + 1) * CHUNK]])

    for pictures in track(prefetch(chunk, range(-(-len(views) // CHUNK))), -(-len(views) // CHUNK)):
        batch = torch.from_numpy(pictures)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=schedule.bf16):
            features = teacher.trunk.blocks(teacher.early(F.relu6(teacher.stem(to_input(batch)))))
            logits = teacher.trunk.classifier(teacher.trunk.pool(features))
            y = codec.analysis(batch.permute(0, 3, 1, 2).float() / 127.5 - 1)
            symbols = codec.quantizer.symbols(y.float())
        end = at + len(batch)
        arrays["symbols"][at:end], arrays["logits"][at:end] = symbols.numpy(), logits.half().numpy()
        arrays["features"][at:end] = features.half().numpy()
        at = end
    for array in arrays.values():
        array.flush()
    done.write_text(key, encoding="utf-8")
    return Cache(folder)


class ClassifierTask:
    """The classifier as the training loop sees it."""

    def __init__(
        self, recipe: ClassifierRecipe, data: ClassifierData, codec: Codec, train: Cache, held: Cache, seed: int
    ) -> None:
        self.recipe, self.data, self.train, self.held, self.seed = recipe, data, train, held, seed
        self.quantizer = codec.quantizer
        torch.manual_seed(seed)
        self.module = LatentClassifier(len(codec.levels), recipe.width, recipe.depth, 1000)
        self.module.trunk.load_state_dict(rgb_network().trunk.state_dict())
        self.start()
        channels_last(self.module)
        sample = torch.tensor(train.features[:2000]).float()
        self.spread = sample.var((0, 2, 3), keepdim=True)
        self.scalars: dict[str, float] = {}

    def start(self) -> None:
        """Bring the latent's channels to one scale; freeze what stays the RGB network's.

        The classifier layer stays, so that the features keep their meaning for classes that are rare here; the
        depthwise kernels stay because oneDNN computes their gradient ten times slower than all else.
        """
        latent = self.quantizer.latent(torch.tensor(self.train.symbols[:500]))
        spread = latent.std((0, 2, 3)).clamp(min=0.1)
        with torch.no_grad():
            self.module.stem.weight.mul_(2 / spread[None, :, None, None])
        self.module.trunk.classifier.requires_grad_(False)
        for name, parameter in self.module.trunk.named_parameters():
            if ".depthwise." in name:
                parameter.requires_grad_(False)

    def groups(self) -> list[dict[str, Any]]:
        trunk = [p for p in self.module.trunk.parameters() if p.requires_grad]
        front = [p for name, p in self.module.named_parameters() if not name.startswith("trunk.")]
        return [{"params": front}, {"params": trunk, "scale": self.recipe.trunk_scale}]

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Symbols (B, C, 28, 28) uint8, the teacher's probabilities (B, 1000), its features (B, 320, 7, 7)."""
        rng = np.random.default_rng((self.seed, step))
        chosen = rng.choice(len(self.train), self.data.batch, replace=len(self.train) < self.data.batch)
        symbols, features = self.train.symbols[chosen], self.train.features[chosen]
        probabilities = torch.softmax(torch.from_numpy(self.train.logits[chosen]).float(), 1).numpy()
        other = np.roll(np.arange(len(chosen)), 1)
        mixed = (symbols.copy(), probabilities.copy(), features.copy())
        grid = features.shape[-1]
        for i in np.flatnonzero(rng.random(len(chosen)) < self.recipe.mix):
            h, w = rng.integers(1, grid, 2)
            top, left = rng.integers(grid - h + 1), rng.integers(grid - w + 1)
            cut = (slice(None), slice(top, top + h), slice(left, left + w))
            fine = (slice(None), slice(CELL * top, CELL * (top + h)), slice(CELL * left, CELL * (left + w)))
            share = h * w / grid**2
            mixed[0][i][fine] = symbols[other[i]][fine]
            mixed[1][i] += share * (probabilities[other[i]] - probabilities[i])
            mixed[2][i][cut] = features[other[i]][cut]
        return tuple(map(torch.from_numpy, mixed))  # type: ignore[return-value]

    def loss(self, batch: tuple[Tensor, Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        symbols, probabilities, target = batch
        latent = self.quantizer.latent(symbols).contiguous(memory_format=torch.channels_last)
        features = self.module.trunk.blocks(self.module.joint(latent))
        logits = self.module.trunk.classifier(self.module.trunk.pool(features)).float()
        divergence = F.kl_div(F.log_softmax(logits, 1), probabilities, reduction="batchmean")
        distance = ((features.float() - target.float()).square() / self.spread).mean()
        figures = {"divergence": float(divergence.detach()), "distance": float(distance.detach())}
        return divergence + self.recipe.feature_weight * distance, figures

    def validate(self) -> dict[str, float]:
        """Agreement with the teacher on pictures it was not taught with, and their divergence."""
        agree = divergence = 0.0
        for at in range(0, len(self.held), CHUNK):
            answer = self.module(self.quantizer.latent(torch.tensor(self.held.symbols[at : at + CHUNK]))).float()
            teacher = torch.tensor(self.held.logits[at : at + CHUNK]).float()
            agree += float((answer.argmax(1) == teacher.argmax(1)).sum())
            divergence += float(F.kl_div(F.log_softmax(answer, 1), teacher.softmax(1), reduction="sum"))
        count = max(1, len(self.held))
        return {"held_agreement": agree / count, "held_divergence": divergence / count}
