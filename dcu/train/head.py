"""One's own classes: a new last layer for an installed classifier, fitted to labeled images or bitstreams.

Everything before the last layer stays as it is; what is trained is a logistic regression on the 1280 features (a linear
probe, Kornblith et al., CVPR 2019, arXiv 1805.08974). Its weight decay and the temperature of its probabilities are
chosen on a held-out fifth of the images; then it is fitted to all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dcu import install, store
from dcu.cards import Card, Origin, Result, Training, held_out
from dcu.data import Item
from dcu.errors import DcuError, InvalidInputError, MissingInputError, UnavailableError, UsageError
from dcu.evaluate.classifier import Outputs, best_temperature, evaluate, stream_of
from dcu.evaluate.cost import classifier_cost
from dcu.image import standard_crop
from dcu.labels import IMAGENET, Label, label_set, labels_of
from dcu.tasks.classify import Classifier, Views
from dcu.train.inputs import default_point
from dcu.train.views import random_view

LOOKS = 3
"""Views of each image that the layer learns from: the center and random parts, or squares of a bitstream."""
MOST_LOOKS = 200_000
"""Views of a whole data set: bounds memory to a gigabyte of features."""
SMALLEST = 0.35
"""Smallest share of an image's area that a random part shows."""
FIFTH = 5
DECAYS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
"""Weight decays that are tried, strongest first."""
ITERATIONS = 60

Layer = tuple[Tensor, Tensor]
Report = Callable[[DcuError], None]
"""What hears of images that were left out."""


@dataclass(frozen=True)
class Examples:
    """Features of views (n, 1280), whose image each is (n,), whether its center (n,); the images' classes (p,)."""

    features: Tensor
    owners: Tensor
    center: Tensor
    numbers: Tensor

    def of(self, images: Tensor, center: bool = False) -> tuple[Tensor, Tensor]:
        """Features and classes of some images, (images,) bool; only their centers where that is said."""
        chosen = images[self.owners]
        if center:
            chosen = chosen & self.center
        return self.features[chosen], self.numbers[self.owners[chosen]]


def class_names(items: Sequence[Item]) -> list[str]:
    """The directories that hold the images, sorted: the classes.

    Raises
    ------
    UsageError
        Fewer than two, a class of a single image, or images outside of any directory.
    """
    if not items:
        raise UsageError("no images")
    counts: dict[str, int] = {}
    for item in items:
        counts[item.label] = counts.get(item.label, 0) + 1
    if "" in counts:
        raise UsageError(f"{items[0].dataset}: images outside of class directories; expected CLASS/IMAGE")
    if len(counts) < 2:
        raise UsageError(f"{items[0].dataset}: at least two class directories are required; found only {min(counts)}")
    if rare := [name for name, count in counts.items() if count < 2]:
        raise UsageError(f"{items[0].dataset}/{min(rare)}: a class requires at least two images")
    return sorted(counts)


def views_of(classifier: Classifier, item: Item, count: int, rng: np.random.Generator) -> Views:
    """Views of an image, the center first, the others at random operating points.

    A bitstream gives its own latent; no image is computed.
    """
    if item.is_bitstream:
        return classifier.look([stream_of(classifier.codec, item, native=True)], "five")[0][:count]
    image, codec = item.image(), classifier.codec
    views = [standard_crop(image), *(random_view(image, SMALLEST, rng) for _ in range(count - 1))]
    points = [default_point(codec), *rng.integers(codec.points, size=count - 1).tolist()]
    symbols = [codec.analyze(view, point)[None] for view, point in zip(views, points, strict=True)]
    return codec.dequantize(symbols, points, classifier.planes)


def examples(
    classifier: Classifier, items: Sequence[Item], progress: Iterable[Item], report: Report
) -> tuple[Examples, list[Item], list[str]]:
    """Look at every image of a data set, a few times; what was seen, of which images, and the names of their classes.

    Raises
    ------
    UsageError, InvalidInputError, UnavailableError
        What :func:`class_names` raises; the latter two where images that cannot be read are to blame.
    """
    class_names(items)
    count = max(1, min(LOOKS, MOST_LOOKS // len(items)))
    rng = np.random.default_rng(0)
    features, owners = [], []
    read: list[Item] = []
    failed: DcuError | None = None
    for item in progress:
        try:
            seen = classifier.embed([[view] for view in views_of(classifier, item, count, rng)])
        except (InvalidInputError, MissingInputError, UnavailableError) as error:
            report(error)
            failed = failed or error
            continue
        features.append(seen)
        owners += [len(read)] * len(seen)
        read.append(item)
    try:
        names = class_names(read)
    except UsageError as error:
        raise type(failed)(f"too few images are left: {error}") if failed else error from error
    owner_of = torch.tensor(owners)
    first = torch.cat([torch.ones(1, dtype=torch.bool), owner_of[1:] != owner_of[:-1]])
    numbers = torch.tensor([names.index(item.label) for item in read])
    return Examples(torch.cat(features), owner_of, first, numbers), read, names


def hold_out(numbers: Tensor) -> Tensor:
    """(images,) bool, which images are held out: a fifth of each class, at least one image of it."""
    aside = torch.zeros(len(numbers), dtype=torch.bool)
    rng = np.random.default_rng(1)
    for number in numbers.unique():
        members = rng.permutation(torch.nonzero(numbers == number)[:, 0].numpy())
        aside[torch.from_numpy(members[: max(1, len(members) // FIFTH)])] = True
    return aside


def fit(features: Tensor, numbers: Tensor, classes: int, decay: float) -> Layer:
    """Logistic regression by L-BFGS: the layer's weights (classes, 1280) and bias (classes,).

    ``decay`` is the weight of half the squared weights beside the mean cross-entropy, for features of variance 1.
    """
    mean, deviation = features.mean(0), features.std(0).clamp(min=1e-6)
    features = (features - mean) / deviation
    weight, bias = torch.zeros(classes, features.shape[1]), torch.zeros(classes)
    parameters = [weight.requires_grad_(True), bias.requires_grad_(True)]
    optimizer = torch.optim.LBFGS(parameters, max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = F.cross_entropy(F.linear(features, weight, bias), numbers) + decay / 2 * weight.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    weight = weight.detach() / deviation
    return weight, bias.detach() - weight @ mean


def own_classifier(
    classifier: Classifier,
    items: Sequence[Item],
    progress: Iterable[Item],
    directory: Path,
    report: Report,
    force: bool,
) -> store.Model:
    """Fit a new last layer and write the model; its card has the results on the held-out images.

    An image or stream that cannot be read, or is of another codec, is handed to ``report`` and left out.

    Raises
    ------
    UsageError
        Not two classes of two images each.
    InvalidInputError, MissingInputError, UnavailableError
        So many were left out that too few remain.
    OutputError
        The model cannot be written, or is not to overwrite what is there (:func:`dcu.install.check_free`).
    """
    started = time.monotonic()
    seen, items, names = examples(classifier, items, progress, report)
    aside = hold_out(seen.numbers)
    features, numbers = seen.of(~aside)
    judged, right = seen.of(aside, center=True)
    best: tuple[float, float, Outputs] | None = None
    for decay in DECAYS:
        outputs = Outputs(F.linear(judged, *fit(features, numbers, len(names), decay)), right, math.nan, math.nan)
        loss = float(F.cross_entropy(outputs.logits, right))
        if best is None or loss < best[0]:
            best = (loss, decay, outputs)
    assert best is not None
    _, decay, outputs = best
    temperature = best_temperature(outputs)
    metrics = asdict(evaluate(outputs, temperature))
    del metrics["bytes"], metrics["bpp"]
    weight, bias = fit(*seen.of(torch.ones_like(aside)), len(names), decay)
    model = classifier.model
    tensors = model.weights() | {"backbone.classifier.weight": weight, "backbone.classifier.bias": bias}
    images = {items[0].dataset: len(items)}
    card = Card(
        kind="classifier",
        codec=classifier.codec.name,
        fingerprint=classifier.codec.fingerprint,
        int8=classifier.keeps_int8,
        temperature=temperature,
        labels=labels_of(labels(names)),
        results=(Result(held_out(images), **metrics, temperature=temperature),),
        training=Training(
            recipe="logistic regression",
            settings={"looks": LOOKS, "decay": decay},
            start=(Origin(model.sha256, name=model.name),),
            minutes=round((time.monotonic() - started) / 60, 1),
            images=images,
        ),
    )
    install.check_free(directory, force)
    written = store.write_model(directory, card, tensors)
    return store.amend(written, partial(replace, macs=classifier_cost(Classifier(written, classifier.codec))))


def labels(names: Sequence[str]) -> tuple[Label, ...]:
    """Classes by the names of their directories; WNIDs of ImageNet get their label."""
    known = {label.wnid: label for label in label_set(IMAGENET)}
    return tuple(known.get(name, Label(name)) for name in names)
