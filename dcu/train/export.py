"""Trained weights to models with cards."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from dcu import cards, store
from dcu.codec import Codec
from dcu.data import Item
from dcu.entropy import integer_tensors
from dcu.errors import UnavailableError
from dcu.evaluate.cost import classifier_cost, codec_cost, segmenter_cost
from dcu.nets.norms import fold_norms
from dcu.tasks.classify import Classifier
from dcu.train.adapter import AdapterTask
from dcu.train.codec import RateTask
from dcu.train.joint import JointTask
from dcu.train.loop import Run
from dcu.train.segmenter import SegmenterTask
from dcu.train.student import StudentTask

LICENSE = "Apache-2.0; trained on images for research"


def provenance(run: Run[Any], recipe: dict[str, Any], items: list[Item]) -> dict[str, Any]:
    """What a card says of how a model came to be; ``start`` is where its initial weights are from."""
    counts: dict[str, int] = {}
    for item in items:
        counts[item.dataset] = counts.get(item.dataset, 0) + 1
    return {
        "recipe": recipe | {"schedule": asdict(run.schedule)},
        "seed": run.schedule.seed,
        "steps": run.step,
        "start": run.origin,
        "data": counts,
        "licence": LICENSE,
        "figures": [],
    }


def recipe_of(task: Any) -> dict[str, Any]:
    """What a task was given by its recipe, apart from the schedule."""
    reader = {"reader": asdict(task.reader)} if isinstance(task, JointTask) else {}
    adapter = {"adapter": asdict(task.adapter)} if isinstance(task, AdapterTask) else {}
    return asdict(task.recipe) | reader | adapter | {"data": asdict(task.data)}


def is_earlier_state(directory: Path, run: Run[Any], items: list[Item]) -> bool:
    """Whether the model in a directory is what the same run wrote when it had done fewer steps, or as many."""
    try:
        card = store.read_model(directory).card
    except UnavailableError:
        return False
    ours = cards.parse(cards.written(provenance(run, recipe_of(run.task), items)))
    same = all(card.get(key) == ours[key] for key in ("recipe", "seed", "start", "data"))
    return same and card.get("steps", 0) <= run.step


def codec_model(run: Run[Any], task: RateTask, items: list[Item], directory: Path) -> store.Model:
    """Write a trained codec: transforms in float16, centers in float32, the context model in integers."""
    module = task.module
    module.load_state_dict(run.average.tensors)
    module.cpu().eval()
    tensors = {
        f"{part}.{name}": tensor.half()
        for part in ("analysis", "synthesis")
        for name, tensor in getattr(module, part).state_dict().items()
    }
    tensors["quantizer.centers"] = module.quantizer.centers.detach().float()
    tensors |= {f"context.{name}": tensor for name, tensor in integer_tensors(module.context).items()}
    codec = Codec(tensors, task.recipe.name)
    card = {"name": directory.name, "kind": "codec", "rate": task.recipe.rate, "fingerprint": codec.fingerprint}
    card |= codec_cost(codec)
    return store.write_model(directory, card | provenance(run, recipe_of(task), items), tensors)


def finished(run: Run[Any], task: StudentTask | SegmenterTask) -> dict[str, Tensor]:
    """The averaged weights in float16, their norms measured anew and folded."""
    task.module.load_state_dict(run.average.tensors)
    task.measure_norms()
    task.module.cpu().eval()
    fold_norms(task.module)
    return {name: tensor.half() for name, tensor in task.module.state_dict().items()}


def network_card(directory: Path, kind: str, input: str, codec: Codec) -> dict[str, Any]:
    """What the card of a network that reads a codec's latents begins with; or of its RGB counterpart."""
    name = kind if input == "latent" else f"rgb-{kind}"
    return {"name": directory.name, "kind": name, "codec": codec.name, "fingerprint": codec.fingerprint}


def classifier_model(run: Run[Any], task: StudentTask, codec: Codec, items: list[Item], directory: Path) -> store.Model:
    """Write a trained classifier, or its RGB counterpart, in float16; norms are measured for the average and folded."""
    tensors = finished(run, task)
    card = network_card(directory, "classifier", task.recipe.input, codec)
    card |= {"teacher": f"EfficientNet-Lite0 on the original image, Lite2 with a share of {task.recipe.lite2:g}"}
    card |= provenance(run, recipe_of(task), items) | {"labels": store.imagenet_labels()}
    model = store.write_model(directory, card, tensors)
    return model if model.kind in cards.COUNTERPARTS else store.amend(model, classifier_cost(Classifier(model, codec)))


def segmenter_model(
    run: Run[Any], task: SegmenterTask, codec: Codec, items: list[Item], directory: Path
) -> store.Model:
    """Write a trained segmenter, or its RGB counterpart, in float16, its norms measured and folded."""
    tensors = finished(run, task)
    recipe = recipe_of(task)
    card = network_card(directory, "segmenter", task.recipe.input, codec)
    facts = {name: recipe[name] for name in ("labels", "void", "input")}
    facts["macs"] = segmenter_cost(task.module, task.recipe.input, codec)
    return store.write_model(directory, card | facts | provenance(run, recipe, items), tensors)
