"""Trained weights to models with cards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcu import cards, install, store
from dcu.cards import Card, Origin, Training
from dcu.codec import Codec
from dcu.data import Item
from dcu.entropy import integer_tensors
from dcu.errors import UnavailableError, UsageError
from dcu.evaluate.cost import classifier_cost, codec_cost, segmenter_cost
from dcu.labels import IMAGENET, Label
from dcu.nets.efficientnet import LATENT_STAGES
from dcu.nets.norms import fold_norms
from dcu.tasks import rgb
from dcu.tasks.classify import Classifier
from dcu.train.classifier import ClassifierTask
from dcu.train.codec import CodecTask
from dcu.train.joint import JointTask
from dcu.train.loop import Run
from dcu.train.segmenter import SegmenterTask

LATE = sum(stage.blocks for stage in LATENT_STAGES[:-2])
"""The backbone's first block at 7x7."""


def training(run: Run, task: Any, items: list[Item]) -> Training:
    """What a card says of how a model came to be."""
    counts: dict[str, int] = {}
    for item in items:
        counts[item.dataset] = counts.get(item.dataset, 0) + 1
    reader = {"reader": asdict(task.reader)} if isinstance(task, JointTask) else {}
    parts = {"data": asdict(run.task.data), "schedule": asdict(run.schedule)}  # type: ignore[attr-defined]
    return Training(
        recipe=task.recipe.name,
        settings=asdict(task.recipe) | reader | parts,
        seed=run.schedule.seed,
        steps=run.step,
        start=origins(run.started_from),
        images=counts,
    )


def origins(started_from: dict[str, Any] | None) -> tuple[Origin, ...]:
    """The checkpoints that a run began with: its own, and that of the reader."""
    if not started_from:
        return ()
    own = Origin(started_from["sha256"], steps=started_from["steps"])
    return own, *origins(started_from.get("reader"))


def is_earlier_state(directory: Path, run: Run, items: list[Item]) -> bool:
    """Whether the model in a directory is what the same run wrote when it had done fewer steps, or as many."""
    try:
        there = store.read_model(directory).card.training
    except UnavailableError:
        return False
    ours = training(run, run.task, items)
    return there is not None and there.steps <= run.step and same_run(there, ours)


def same_run(one: Training, other: Training) -> bool:
    """Whether two cards' trainings are of one run, teacher and steps apart."""
    return bool(cards.plain(replace(one, steps=0, teacher="")) == cards.plain(replace(other, steps=0, teacher="")))


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
    card = Card(
        kind="codec",
        fingerprint=codec.fingerprint,
        rate=task.recipe.rate,
        macs_per_pixel=codec_cost(codec),
        training=training(run, task, items),
    )
    return store.write_model(directory, card, tensors)


def finished(run: Run, task: ClassifierTask | SegmenterTask) -> dict[str, Tensor]:
    """The averaged weights in float16, their norms measured anew and folded."""
    task.module.load_state_dict(run.average)
    task.measure_norms()
    task.module.cpu().eval()
    fold_norms(task.module)
    return {name: tensor.half() for name, tensor in task.module.state_dict().items()}


def classifier_model(run: Run, task: ClassifierTask, codec: Codec, items: list[Item], directory: Path) -> store.Model:
    """Write a trained classifier, or its RGB counterpart, in float16; norms are measured for the average and folded."""
    teacher = f"EfficientNet-Lite0 on the original image, Lite2 with a share of {task.recipe.lite2:g}"
    card = Card(
        kind="classifier" if task.recipe.input == "latent" else "rgb-classifier",
        codec=codec.name,
        fingerprint=codec.fingerprint,
        labels=IMAGENET,
        training=replace(training(run, task, items), teacher=teacher),
    )
    model = store.write_model(directory, card, finished(run, task))
    if model.kind in cards.COUNTERPARTS:
        return model
    return store.amend(model, replace(model.card, macs=classifier_cost(Classifier(model, codec))))


def segmenter_model(run: Run, task: SegmenterTask, codec: Codec, items: list[Item], directory: Path) -> store.Model:
    """Write a trained segmenter, or its RGB counterpart, in float16, its norms measured and folded."""
    tensors, recipe = finished(run, task), task.recipe
    card = Card(
        kind="segmenter" if recipe.input == "latent" else "rgb-segmenter",
        codec=codec.name,
        fingerprint=codec.fingerprint,
        labels=tuple(Label(label.label, color=label.color) for label in recipe.labels),
        void=recipe.void,
        input=recipe.input,
        macs=segmenter_cost(task.module, recipe.input, codec),
        training=training(run, task, items),
    )
    return store.write_model(directory, card, tensors)


def towards_rgb(tensors: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """A classifier's weights, its backbone from ``LATE`` on, head and last layer a share of the RGB network's own."""
    ours = tuple(f"backbone.blocks.{block}." for block in range(LATE))
    theirs = {
        name: tensor
        for part, tensor in rgb.rgb_network().backbone.state_dict().items()
        if (name := f"backbone.{part}") in tensors and not name.startswith(ours)
    }
    return tensors | {name: torch.lerp(tensors[name], theirs[name].double(), share) for name in theirs}


def mean_model(
    models: Sequence[store.Model], shares: Sequence[float], directory: Path, rgb_share: float = 0.0, force: bool = False
) -> store.Model:
    """Write the mean of several runs' classifiers, or segmenters, each with its share; the card is the first's.

    Runs that began with the same weights end where their mean is better than each (Wortsman et al., Model soups,
    ICML 2022, arXiv 2203.05482). A share of the RGB network's own late layers brings back what the
    backbone of classifiers has forgotten of it (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022,
    arXiv 2109.01903). Norms are folded in models, so nothing has to be measured anew.

    Raises
    ------
    UsageError
        Not two at least, or one with a share of the RGB network's; not a positive share each; networks of different
        kind, codec, shape or classes; a share of the RGB network's in what does not name the 1000 classes.
    UnavailableError, OutputError
        Weights that are not there; a directory that cannot be written.
    """
    first = models[0]
    if not 0 <= rgb_share <= 1:
        raise UsageError(f"{rgb_share:g} of the RGB network: not a share")
    if rgb_share and (first.kind, first.card.labels) != ("classifier", IMAGENET):
        raise UsageError(f"{first.name}: the RGB network has a share only in classifiers of its own 1000 classes")
    enough = len(models) >= (1 if rgb_share else 2)
    if not enough or len(shares) != len(models) or not all(0 < share < float("inf") for share in shares):
        raise UsageError("a mean is of two models at least, each with a positive share")
    if first.kind == "codec":
        raise UsageError(f"{first.name}: a codec; the integers of context models have no mean")
    everyone = [model.weights() for model in models]
    shapes = {name: tensor.shape for name, tensor in everyone[0].items()}
    for model, tensors in zip(models, everyone, strict=True):
        same = reads_and_tells(model.card) == reads_and_tells(first.card)
        if not same or {name: tensor.shape for name, tensor in tensors.items()} != shapes:
            raise UsageError(f"{model.name}: of another kind, codec, shape or other classes than {first.name}")
    parts = [share / sum(shares) for share in shares]
    mean = {
        name: torch.stack([part * tensors[name].double() for part, tensors in zip(parts, everyone, strict=True)]).sum(0)
        for name in shapes
    }
    if rgb_share:
        mean = towards_rgb(mean, rgb_share)
    of = tuple(
        Origin(sha256_of(model), name=model.name, share=round(part, 4))
        for model, part in zip(models, parts, strict=True)
    )
    install.check_free(directory, force)
    tensors = {name: tensor.to(everyone[0][name].dtype) for name, tensor in mean.items()}
    return store.write_model(directory, of_mean(first.card, of, rgb_share), tensors)


def reads_and_tells(card: Card) -> tuple[object, ...]:
    """Of what kind a network is, which latents it reads, and which classes it tells."""
    return card.kind, card.fingerprint, card.classes


def sha256_of(model: store.Model) -> str:
    """The SHA-256 of a model's weights; raises UnavailableError where its card states none."""
    if model.card.sha256 is None:
        raise UnavailableError(f"{model.name}: its card states no SHA-256 of its weights")
    return model.card.sha256


def of_mean(card: Card, of: tuple[Origin, ...], rgb_share: float) -> Card:
    """The card of a mean, from that of one of its models, without what holds for the weights of that one only."""
    how = replace(card.training or Training(), mean_of=of, rgb_share=rgb_share, minutes=None)
    return replace(card, training=how, results=(), baselines=None, temperature=1.0, calibration=None, int8=True)
