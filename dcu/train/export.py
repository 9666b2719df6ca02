"""Trained weights to models with cards."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from dcu import store
from dcu.codec import Codec
from dcu.data import Item
from dcu.entropy import integer_tensors
from dcu.evaluate.cost import classifier_cost, codec_cost, segmenter_cost
from dcu.nets.norms import fold_norms
from dcu.tasks.classify import Classifier
from dcu.train.classifier import ClassifierTask
from dcu.train.codec import CodecTask
from dcu.train.joint import JointTask
from dcu.train.loop import Run
from dcu.train.segmenter import SegmenterTask

LICENCE = "GPL-3.0-or-later; trained on pictures for research"


def origin(run: Run, recipe: dict[str, Any], items: list[Item]) -> dict[str, Any]:
    """What a card says of how a model came to be; ``start`` are the steps of the run that it began with."""
    counts: dict[str, int] = {}
    for item in items:
        counts[item.dataset] = counts.get(item.dataset, 0) + 1
    return {
        "recipe": recipe | {"data": asdict(run.task.data), "schedule": asdict(run.schedule)},  # type: ignore[attr-defined]
        "seed": run.schedule.seed,
        "steps": run.step,
        "start": run.started_from,
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
    card = {"name": folder.name, "kind": "codec", "rate": task.recipe.rate, "fingerprint": codec.fingerprint}
    card |= codec_cost(codec)
    recipe = asdict(task.recipe) | ({"reader": asdict(task.reader)} if isinstance(task, JointTask) else {})
    return store.write_model(folder, card | origin(run, recipe, items), tensors)


def finished(run: Run, task: ClassifierTask | SegmenterTask) -> dict[str, Tensor]:
    """The averaged weights in float16, their norms measured anew and folded."""
    task.module.load_state_dict(run.average)
    task.measure_norms()
    task.module.cpu().eval()
    fold_norms(task.module)
    return {name: tensor.half() for name, tensor in task.module.state_dict().items()}


def network_card(folder: Path, kind: str, sees: str, codec: Codec) -> dict[str, Any]:
    """What the card of a network that reads a codec's latents begins with; or of its RGB counterpart."""
    name = kind if sees == "latent" else f"rgb-{kind}"
    return {"name": folder.name, "kind": name, "codec": codec.name, "fingerprint": codec.fingerprint}


def classifier_model(run: Run, task: ClassifierTask, codec: Codec, items: list[Item], folder: Path) -> store.Model:
    """Write a trained classifier, or its RGB counterpart, in float16; norms are measured for the average and folded."""
    tensors = finished(run, task)
    card = network_card(folder, "classifier", task.recipe.sees, codec)
    card |= {"teacher": "EfficientNet-Lite0 on the original picture"}
    card |= origin(run, asdict(task.recipe), items) | {"labels": store.imagenet_labels()}
    model = store.write_model(folder, card, tensors)
    return model if model.kind in store.COUNTERPARTS else store.amend(model, classifier_cost(Classifier(model, codec)))


def segmenter_model(run: Run, task: SegmenterTask, codec: Codec, items: list[Item], folder: Path) -> store.Model:
    """Write a trained segmenter, or its RGB counterpart, in float16, its norms measured and folded."""
    tensors = finished(run, task)
    recipe = asdict(task.recipe)
    card = network_card(folder, "segmenter", task.recipe.sees, codec)
    facts = {name: recipe[name] for name in ("labels", "void", "sees")}
    facts["macs"] = segmenter_cost(task.module, task.recipe.sees, codec)
    return store.write_model(folder, card | facts | origin(run, recipe, items), tensors)
