"""Views of pictures, and what teacher and codec make of them, computed once and kept on disk.

A view is a random crop, mirrored or not, a function of (seed, number). Of each are kept the codec's symbols, and the
RGB network's logits and last features on the original pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from dcu import store
from dcu.codec import Codec, analysis_input
from dcu.data import Item
from dcu.image import Picture, field_crop
from dcu.nets.efficientnet import LATENT_STAGES
from dcu.train.loop import Schedule, prefetch
from dcu.train.teachers import rgb_network, to_input

Track = Callable[[Iterable[Any], int], Iterable[Any]]
"""Shows progress: wraps an iterable of so many steps."""

SIDE, SHORT = 224, 256
CHUNK = 32
KEEP_EVERY = 50  # chunks


@dataclass(frozen=True)
class ClassifierData:
    """How many views of each picture are made, by the name of its data set (1 if not said; parts by chance)."""

    batch: int = 64
    smallest: float = 0.4  # smallest share of the picture's area that a view shows
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
    picture = view.item.picture()
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
    """Symbols, logits and features of views, as .npy files that are mapped, not read.

    ::

        symbols (n, C, 28, 28) uint8      logits (n, 1000) float16      features (n, 320, 7, 7) float16
    """

    def __init__(self, folder: Path, views: list[View], codec: Codec, data: ClassifierData, schedule: Schedule) -> None:
        self.folder, self.views, self.codec, self.data, self.schedule = folder, views, codec, data, schedule
        folder.mkdir(parents=True, exist_ok=True)
        names = "".join(f"{view.item.dataset}/{view.item.name}:{view.number}" for view in views)
        facts = f"{codec.fingerprint} {schedule.seed} {data.smallest} {names}"
        self.key = hashlib.sha256(facts.encode()).hexdigest()
        known = self.done() is not None
        self.mode = "r+" if known else "w+"
        self.symbols = self.array("symbols", (len(codec.levels), SIDE // 8, SIDE // 8), np.uint8)
        self.logits = self.array("logits", (1000,), np.float16)
        self.features = self.array("features", (LATENT_STAGES[-1].channels, SIDE // 32, SIDE // 32), np.float16)
        if not known:
            self.keep(0)

    def __len__(self) -> int:
        return len(self.views)

    def done(self) -> int | None:
        """How many views an earlier call has made; None where there is no cache of these views."""
        try:
            state = json.loads((self.folder / "done.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return int(state["done"]) if state["key"] == self.key else None

    def keep(self, done: int) -> None:
        """Note how many views are there."""
        store.replace(self.folder / "done.json", json.dumps({"key": self.key, "done": done}).encode())

    def array(self, name: str, shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
        """One of the arrays, mapped."""
        path = self.folder / f"{name}.npy"
        if self.mode == "r+":
            mapped: NDArray[Any] = np.load(path, mmap_mode="r+", allow_pickle=False)
            return mapped
        return np.lib.format.open_memmap(path, "w+", dtype, (len(self.views), *shape))

    def pixels(self, chunk: int) -> NDArray[np.uint8]:
        """The pixels of a chunk of views, (n, 224, 224, 3)."""
        views = self.views[chunk * CHUNK : (chunk + 1) * CHUNK]
        return np.stack([make_view(view, self.data, self.schedule.seed) for view in views])

    def build(self, track: Track) -> None:
        """Make the views that are missing."""
        start, chunks = (self.done() or 0) // CHUNK, -(-len(self) // CHUNK)
        if (self.done() or 0) >= len(self):
            return
        device = self.codec.device
        teacher = rgb_network().to(device)
        for chunk, pixels in enumerate(track(prefetch(self.pixels, range(start, chunks)), chunks - start), start):
            batch, here = torch.from_numpy(pixels).to(device), slice(chunk * CHUNK, chunk * CHUNK + len(pixels))
            with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=self.schedule.bf16):
                features = teacher.trunk.blocks(teacher.early(F.relu6(teacher.stem(to_input(batch)))))
                logits = teacher.trunk.classifier(teacher.trunk.pool(features))
                y = self.codec.analysis(analysis_input(batch))
                self.symbols[here] = self.codec.quantizer.symbols(y.float()).cpu().numpy()
            self.logits[here], self.features[here] = logits.half().cpu().numpy(), features.half().cpu().numpy()
            if chunk % KEEP_EVERY == KEEP_EVERY - 1 or chunk == chunks - 1:
                self.keep(here.stop)
