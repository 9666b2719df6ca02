"""Trained weights to models with cards."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcu import cards, store
from dcu.cards import Card, Training, largest
from dcu.codec import Codec
from dcu.data import Item
from dcu.entropy import integer_tensors, logistic
from dcu.errors import UnavailableError
from dcu.evaluate.cost import classifier_cost, codec_cost, resnet_cost, segmenter_cost
from dcu.geometry import POINTS
from dcu.labels import IMAGENET, Label, labels_of
from dcu.nets.norms import NORM_BATCHES, fold_norms, measure_norms
from dcu.nets.variable_rate import VariableRateCodec
from dcu.tasks.classify import Classifier
from dcu.train.adapter import AdapterTask
from dcu.train.checkpoint import Origin
from dcu.train.codec import CodecTask
from dcu.train.head import labels
from dcu.train.joint import JointTask
from dcu.train.loop import Run
from dcu.train.resnet import ResNetTask
from dcu.train.segmenter import SegmenterTask
from dcu.train.student import StudentTask
from dcu.train.variable_rate import VariableRateTask


def training(run: Run[Any], task: Any, items: list[Item]) -> Training:
    """What a card says of how a model came to be; it counts the images of the model that initialized it, too."""
    before, counts = training_of(run.origin), Counter(item.dataset for item in items)
    return Training(
        recipe=task.recipe.name,
        settings=settings_of(task) | {"schedule": asdict(run.schedule)},
        seed=run.schedule.seed,
        steps=run.step,
        start=origins(run.origin),
        images=largest([counts, before.images]),
        test_images=before.test_images,
        validation_duplicates=before.validation_duplicates,
    )


def training_of(origin: Origin | None) -> Training:
    """How the installed model came to be whose weights a run, or its reader, was initialized with; else empty."""
    wanted = {each.sha256 for each in origins(origin)}
    found = (model.card.training for model in store.installed() if wanted and model.card.sha256 in wanted)
    return next(filter(None, found), Training())


def settings_of(task: Any) -> dict[str, object]:
    """What a task was given by its recipe, apart from the schedule."""
    reader = {"reader": asdict(task.reader)} if isinstance(task, JointTask) else {}
    data = task.views if isinstance(task, JointTask) else task.data
    adapter = {"adapter": asdict(task.adapter)} if isinstance(task, AdapterTask) else {}
    return asdict(task.recipe) | reader | adapter | {"data": asdict(data)}


def origins(origin: Origin | None) -> tuple[cards.Origin, ...]:
    """Where initial weights come from: a run's own, and those of its reader."""
    if not origin:
        return ()
    own = cards.Origin(origin["sha256"], name=origin.get("name"), steps=origin.get("steps"))
    return own, *origins(origin.get("reader"))


def is_earlier_state(directory: Path, run: Run[Any], items: list[Item]) -> bool:
    """Whether the model in a directory is what the same run wrote when it had done fewer steps, or as many."""
    steps = steps_of(directory, run, items)
    return steps is not None and steps <= run.step


def is_its_model(directory: Path, run: Run[Any], items: list[Item]) -> bool:
    """Whether the model in a directory is what the run would write."""
    return steps_of(directory, run, items) == run.step


def steps_of(directory: Path, run: Run[Any], items: list[Item]) -> int | None:
    """After how many steps the same run wrote the model in a directory; None where there is none of it."""
    try:
        there = store.read_model(directory).card.training
    except UnavailableError:
        return None
    return there.steps if there is not None and same_run(there, training(run, run.task, items)) else None


def same_run(one: Training, other: Training) -> bool:
    """Whether two cards' trainings are of one run, teacher and steps apart."""
    return bool(cards.plain(replace(one, steps=0, teacher="")) == cards.plain(replace(other, steps=0, teacher="")))


def codec_model(run: Run[Any], task: CodecTask, items: list[Item], directory: Path) -> store.Model:
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
    card = Card(
        kind="codec",
        fingerprint=codec.fingerprint,
        rate=task.recipe.rate,
        macs_per_pixel=codec_cost(codec),
        training=training(run, task, items),
    )
    return store.write_model(directory, card, tensors)


def variable_rate_tensors(module: VariableRateCodec, coded: Tensor) -> dict[str, Tensor]:
    """The tensors of a codec's weights file: transforms in float16, gains in float32, the context model in integers.

    ``gain`` and ``ungain`` (64 * kinds, C) are those of each operating point; ``coded``, of the same shape, bool, the
    channels coded there.
    """
    points = torch.arange(POINTS * module.log_gain.kinds)
    tensors = {
        f"{part}.{name}": tensor.half()
        for part in ("analysis", "synthesis")
        for name, tensor in getattr(module, part).state_dict().items()
    }
    tensors |= {"gain": module.log_gain(points).exp(), "ungain": module.log_ungain(points).exp()}
    integers = logistic.integer_tensors(module.context, coded)
    tensors |= {f"context.{name}": in_16_bits(tensor) for name, tensor in integers.items()}
    return {name: tensor.detach() for name, tensor in tensors.items()}


def in_16_bits(integers: Tensor) -> Tensor:
    """The int32 tensor as int16 where that holds it, which halves the file's part."""
    return integers.short() if bool((integers.abs() < 2**15).all()) else integers


def joint_models(
    run: Run[Any], task: JointTask, items: list[Item], codec: Path, classifier: Path
) -> tuple[store.Model, store.Model]:
    """Write a codec that was trained with a classifier, and the classifier."""
    model = variable_rate_model(run, task, items, codec)
    reader = task.module.reader
    measure_norms(reader, task.look, NORM_BATCHES)
    reader.cpu().eval()
    fold_norms(reader)
    card = Card(
        kind="classifier",
        codec=model.name,
        fingerprint=model.fingerprint,
        labels=IMAGENET,
        training=training(run, task, items),
    )
    written = store.write_model(classifier, card, {name: tensor.half() for name, tensor in reader.state_dict().items()})
    loaded = Codec.from_model(model, precision="float32")
    return model, store.amend(written, partial(replace, macs=classifier_cost(Classifier(written, loaded))))


def variable_rate_model(run: Run[Any], task: VariableRateTask, items: list[Item], directory: Path) -> store.Model:
    """Write a trained codec of many operating points; ``dcu eval rates`` adds their rates to its card."""
    task.module.load_state_dict(run.average.tensors)
    task.module.cpu().eval()
    task.device = "cpu"
    tensors = variable_rate_tensors(task.module, task.coded_channels())
    codec = Codec(tensors, task.recipe.name)
    card = Card(
        kind="codec",
        machines=codec.kinds > 1,
        fingerprint=codec.fingerprint,
        macs_per_pixel=codec_cost(codec),
        training=training(run, task, items),
    )
    return store.write_model(directory, card, tensors)


def finished(run: Run[Any], task: StudentTask | SegmenterTask | ResNetTask) -> dict[str, Tensor]:
    """The averaged weights in float16, their norms measured anew and folded."""
    task.module.load_state_dict(run.average.tensors)
    task.measure_norms()
    task.module.cpu().eval()
    fold_norms(task.module)
    return {name: tensor.half() for name, tensor in task.module.state_dict().items()}


def classifier_model(run: Run[Any], task: StudentTask, codec: Codec, items: list[Item], directory: Path) -> store.Model:
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
    return store.amend(model, partial(replace, macs=classifier_cost(Classifier(model, codec))))


def resnet_model(run: Run[Any], task: ResNetTask, items: list[Item], directory: Path) -> store.Model:
    """Write a trained ResNet in float16, under torchvision's names; on latents it is a classifier as any other."""
    recipe, codec = task.recipe, task.codec
    tensors = {name: tensor for name, tensor in finished(run, task).items() if not name.endswith("batches_tracked")}
    card = Card(
        kind="classifier" if recipe.input == "latent" else "resnet",
        codec=codec.name,
        fingerprint=codec.fingerprint,
        input=recipe.input,
        network="resnet",
        stride_in=recipe.stride_in,
        labels=labels_of(labels(task.names)),
        int8=False,
        macs=resnet_cost(task.module),
        training=training(run, task, items),
    )
    return store.write_model(directory, card, tensors)


def segmenter_model(
    run: Run[Any], task: SegmenterTask, codec: Codec, items: list[Item], directory: Path
) -> store.Model:
    """Write a trained segmenter, or its RGB counterpart, in float16, its norms measured and folded."""
    tensors, recipe = finished(run, task), task.recipe
    card = Card(
        kind="segmenter" if recipe.input == "latent" else "rgb-segmenter",
        codec=codec.name,
        fingerprint=codec.fingerprint,
        labels=tuple(Label(label.label, color=label.color) for label in recipe.labels),
        void=recipe.void,
        input=recipe.input,
        network="efficientnet" if recipe.network == "efficientnet" else "resnet",
        stride_in=recipe.stride_in,
        macs=segmenter_cost(task.module, recipe.input, codec),
        training=training(run, task, items),
    )
    return store.write_model(directory, card, tensors)
