"""Trained weights to models with cards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcu import cards, install, store
from dcu.codec import Codec
from dcu.data import Item
from dcu.entropy import integer_tensors, logistic
from dcu.errors import UnavailableError, UsageError
from dcu.evaluate.cost import classifier_cost, codec_cost, segmenter_cost
from dcu.nets.efficientnet import LATENT_STAGES
from dcu.nets.norms import fold_norms
from dcu.nets.operating_point import POINTS
from dcu.nets.variable_rate import VariableRateCodec
from dcu.tasks import rgb
from dcu.tasks.classify import Classifier
from dcu.train.classifier import ClassifierTask
from dcu.train.codec import CodecTask
from dcu.train.joint import JointTask
from dcu.train.loop import Run
from dcu.train.segmenter import SegmenterTask
from dcu.train.variable_rate import VariableRateTask

LICENSE = "Apache-2.0; trained on images for research"
OF_ONE_MODEL = (
    "figures",
    "temperature",
    "calibrated_on",
    "rivals",
    "history",
    "int8",
    "kept_aside",
    "took",
    "rgb_share",
    "expects",
)
"""What a card says of these very weights, and of no mean in which they are a part."""
LATE = sum(stage.blocks for stage in LATENT_STAGES[:-2])
"""The backbone's first block at 7x7."""


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
        "licence": LICENSE,
        "figures": [],
    }


def recipe_of(task: Any) -> dict[str, Any]:
    """What a task was given by its recipe, data and schedule apart."""
    reader = {"reader": asdict(task.reader)} if isinstance(task, JointTask) else {}
    return asdict(task.recipe) | reader


def is_earlier_state(directory: Path, run: Run, items: list[Item]) -> bool:
    """Whether the model in a directory is what the same run wrote when it had done fewer steps, or as many."""
    try:
        card = store.read_model(directory).card
    except UnavailableError:
        return False
    ours = cards.parse(cards.written(origin(run, recipe_of(run.task), items)))
    same = all(card.get(key) == ours[key] for key in ("recipe", "seed", "start", "data"))
    return same and card.get("steps", 0) <= run.step


def codec_model(run: Run, task: CodecTask, items: list[Item], directory: Path) -> store.Model:
    """Write a trained codec: transforms in float16, centers in float32, the context model in integers."""
    module = task.module
    module.load_state_dict(run.average)
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
    return store.write_model(directory, card | origin(run, recipe_of(task), items), tensors)


def variable_rate_tensors(module: VariableRateCodec, coded: Tensor) -> dict[str, Tensor]:
    """The tensors of a codec's weights file: transforms in float16, gains in float32, the context model in integers.

    ``gain`` and ``ungain`` (64, C) are those of each operating point; ``coded`` (64, C) bool, the channels coded there.
    """
    points = torch.arange(POINTS)
    tensors = {
        f"{part}.{name}": tensor.half()
        for part in ("analysis", "synthesis")
        for name, tensor in getattr(module, part).state_dict().items()
    }
    tensors |= {"gain": module.log_gain(points).exp(), "ungain": module.log_ungain(points).exp()}
    integers = logistic.integer_tensors(module.context, coded)
    return {name: t.detach() for name, t in (tensors | {f"context.{n}": t for n, t in integers.items()}).items()}


def variable_rate_model(run: Run, task: VariableRateTask, items: list[Item], directory: Path) -> store.Model:
    """Write a trained codec of many operating points; ``dcu eval rates`` adds their rates to its card."""
    task.module.load_state_dict(run.average)
    task.module.cpu().eval()
    task.device = "cpu"
    tensors = variable_rate_tensors(task.module, task.coded_channels())
    codec = Codec(tensors, task.recipe.name)
    card = {"name": directory.name, "kind": "codec", "fingerprint": codec.fingerprint, "preview": True}
    card |= codec_cost(codec)
    return store.write_model(directory, card | origin(run, recipe_of(task), items), tensors)


def finished(run: Run, task: ClassifierTask | SegmenterTask) -> dict[str, Tensor]:
    """The averaged weights in float16, their norms measured anew and folded."""
    task.module.load_state_dict(run.average)
    task.measure_norms()
    task.module.cpu().eval()
    fold_norms(task.module)
    return {name: tensor.half() for name, tensor in task.module.state_dict().items()}


def network_card(directory: Path, kind: str, input: str, codec: Codec) -> dict[str, Any]:
    """What the card of a network that reads a codec's latents begins with; or of its RGB counterpart."""
    name = kind if input == "latent" else f"rgb-{kind}"
    return {"name": directory.name, "kind": name, "codec": codec.name, "fingerprint": codec.fingerprint}


def classifier_model(run: Run, task: ClassifierTask, codec: Codec, items: list[Item], directory: Path) -> store.Model:
    """Write a trained classifier, or its RGB counterpart, in float16; norms are measured for the average and folded."""
    tensors = finished(run, task)
    card = network_card(directory, "classifier", task.recipe.input, codec)
    card |= {"teacher": f"EfficientNet-Lite0 on the original image, Lite2 with a share of {task.recipe.lite2:g}"}
    card |= origin(run, recipe_of(task), items) | {"labels": store.imagenet_labels()}
    model = store.write_model(directory, card, tensors)
    return model if model.kind in cards.COUNTERPARTS else store.amend(model, classifier_cost(Classifier(model, codec)))


def segmenter_model(run: Run, task: SegmenterTask, codec: Codec, items: list[Item], directory: Path) -> store.Model:
    """Write a trained segmenter, or its RGB counterpart, in float16, its norms measured and folded."""
    tensors = finished(run, task)
    recipe = recipe_of(task)
    card = network_card(directory, "segmenter", task.recipe.input, codec)
    facts = {name: recipe[name] for name in ("labels", "void", "input")}
    facts["macs"] = segmenter_cost(task.module, task.recipe.input, codec)
    return store.write_model(directory, card | facts | origin(run, recipe, items), tensors)


def towards_rgb(tensors: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """A classifier's weights, its backbone from ``LATE`` on, head and last layer a share of the RGB network's own."""
    ours = tuple(f"backbone.blocks.{block}." for block in range(LATE))
    theirs = {
        name: tensor
        for part, tensor in rgb.rgb_network().backbone.state_dict().items()
        if (name := f"backbone.{part}") in tensors and not name.startswith(ours)
    }
    return tensors | {name: torch.lerp(tensors[name], theirs[name].double(), share) for name in theirs}


def numbers_of(model: store.Model, names: Sequence[str]) -> list[int]:
    """The numbers of classes of a classifier by WNID or label.

    Raises
    ------
    UsageError
        Not a classifier; a name that is no class of it.
    """
    if model.kind != "classifier":
        raise UsageError(f"{model.name}: a {model.kind}; only classifiers expect classes")
    numbers = store.numbers_by_name(model.card["labels"])
    if missing := sorted(set(names) - set(numbers)):
        raise UsageError(f"{missing[0]!r}: no class of {model.name}")
    return [numbers[name] for name in names]


def expecting(tensors: dict[str, Tensor], numbers: Sequence[int], odds: float) -> dict[str, Tensor]:
    """A classifier's weights with the odds of the classes of these numbers, against all others, so many times higher.

    Logit adjustment (Menon et al., ICLR 2021, arXiv 2007.07314): a logarithm added to their biases.
    """
    bias = tensors["backbone.classifier.bias"].clone()
    bias[list(numbers)] += math.log(odds)
    return tensors | {"backbone.classifier.bias": bias}


def mean_model(
    models: Sequence[store.Model],
    shares: Sequence[float],
    directory: Path,
    rgb_share: float = 0.0,
    expected: Sequence[str] = (),
    odds: float = 1.0,
    force: bool = False,
) -> store.Model:
    """Write the mean of several runs' classifiers, or segmenters, each with its share; the card is the first's.

    Runs that began with the same weights end where their mean is better than each (Wortsman et al., Model soups,
    ICML 2022, arXiv 2203.05482). A share of the RGB network's own late layers brings back what the
    backbone of classifiers has forgotten of it (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022,
    arXiv 2109.01903). Norms are folded in models, so nothing has to be measured anew. At last classes that are
    ``expected`` (WNIDs or labels) more often than training had them get their odds raised.

    Raises
    ------
    UsageError
        Not two at least, or one with a share of the RGB network's or expected classes; not a positive share each;
        networks of different kind, codec, shape or classes; a share of the RGB network's in what does not name the
        1000 classes; expected classes that are not the classifier's; odds that are not positive.
    UnavailableError, OutputError
        Weights that are not there; a directory that cannot be written.
    """
    first = models[0]
    if not 0 <= rgb_share <= 1:
        raise UsageError(f"{rgb_share:g} of the RGB network: not a share")
    if rgb_share and (first.kind, first.card.get("labels")) != ("classifier", store.imagenet_labels()):
        raise UsageError(f"{first.name}: the RGB network has a share only in classifiers of its own 1000 classes")
    numbers = numbers_of(first, expected) if expected else []
    if not 0 < odds < float("inf"):
        raise UsageError(f"odds of {odds:g}: not positive")
    enough = len(models) >= (1 if rgb_share or expected else 2)
    if not enough or len(shares) != len(models) or not all(0 < share < float("inf") for share in shares):
        raise UsageError("a mean is of two models at least, each with a positive share")
    if first.kind == "codec":
        raise UsageError(f"{first.name}: a codec; the integers of context models have no mean")
    everyone = [model.weights() for model in models]
    shapes = {name: tensor.shape for name, tensor in everyone[0].items()}
    for model, tensors in zip(models, everyone, strict=True):
        same = all(model.card.get(key) == first.card.get(key) for key in ("kind", "fingerprint", "labels"))
        if not same or {name: tensor.shape for name, tensor in tensors.items()} != shapes:
            raise UsageError(f"{model.name}: of another kind, codec, shape or other classes than {first.name}")
    parts = [share / sum(shares) for share in shares]
    mean = {
        name: torch.stack([part * tensors[name].double() for part, tensors in zip(parts, everyone, strict=True)]).sum(0)
        for name in shapes
    }
    if rgb_share:
        mean = towards_rgb(mean, rgb_share)
    if expected:
        mean = expecting(mean, numbers, odds)
    card = {key: value for key, value in first.card.items() if key not in OF_ONE_MODEL}
    of = [
        {"name": m.name, "sha256": m.card["sha256"], "share": round(p, 4)} for m, p in zip(models, parts, strict=True)
    ]
    card |= {"name": directory.name, "mean_of": of, "figures": []} | ({"rgb_share": rgb_share} if rgb_share else {})
    card |= {"expects": {"classes": list(expected), "odds": odds}} if expected else {}
    install.check_free(directory, force)
    return store.write_model(
        directory, card, {name: tensor.to(everyone[0][name].dtype) for name, tensor in mean.items()}
    )
