"""Averages of weights: the moving average over a run's steps, and means of the models of several runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dcu import install, store
from dcu.cards import Card, Origin, Training, largest
from dcu.errors import UsageError
from dcu.labels import IMAGENET
from dcu.nets.efficientnet import LATENT_STAGES
from dcu.tasks import rgb

LATE = sum(stage.blocks for stage in LATENT_STAGES[:-2])
"""The backbone's first block at 7x7."""


class MovingAverage:
    """average <- d average + (1 - d) weights,  d = min(decay, (1 + step) / (10 + step)); counters are copied."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after a step, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                self.tensors[name].lerp_(tensor, 1 - decay)
            else:
                self.tensors[name].copy_(tensor)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Put the average into the module, which has its own weights again at the end."""
        weights = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        module.load_state_dict(self.tensors)
        try:
            yield
        finally:
            module.load_state_dict(weights)


def weight_mean(models: Sequence[Mapping[str, Tensor]], fractions: Sequence[float]) -> dict[str, Tensor]:
    """The weighted mean of the tensors of several models of one shape, float64; fractions add up to 1."""
    return {
        name: torch.stack([part * model[name].double() for part, model in zip(fractions, models, strict=True)]).sum(0)
        for name in models[0]
    }


def towards_rgb(tensors: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """A classifier's weights, its backbone from ``LATE`` on, head and last layer a share of the RGB network's own."""
    ours = tuple(f"backbone.blocks.{block}." for block in range(LATE))
    theirs = {
        name: tensor
        for part, tensor in rgb.rgb_network().backbone.state_dict().items()
        if (name := f"backbone.{part}") in tensors and not name.startswith(ours)
    }
    return tensors | {name: torch.lerp(tensors[name], theirs[name].double(), share) for name in theirs}


def check_alike(models: Sequence[store.Model], weights: Sequence[Mapping[str, Tensor]]) -> None:
    """Refuse a mean of codecs and of networks that differ in kind, codec, shape or classes; raises UsageError."""
    first, shapes = models[0], {name: tensor.shape for name, tensor in weights[0].items()}
    if first.kind == "codec" or "resnet" in (first.kind, first.card.network):
        raise UsageError(f"{first.name}: codecs and ResNets cannot be averaged")
    for model, tensors in zip(models, weights, strict=True):
        same = reads_and_tells(model.card) == reads_and_tells(first.card)
        if not same or {name: tensor.shape for name, tensor in tensors.items()} != shapes:
            raise UsageError(f"{model.name}: differs from {first.name} in kind, codec, shape or classes")


def reads_and_tells(card: Card) -> tuple[object, ...]:
    """Of what kind a network is, which latents it reads, and which classes it tells."""
    return card.kind, card.fingerprint, card.classes


def of_mean(models: Sequence[store.Model], of: tuple[Origin, ...], rgb_share: float) -> Card:
    """The card of a mean: the first model's without what holds for its weights only, and the images of all."""
    trainings = [model.card.training or Training() for model in models]
    how = replace(
        trainings[0],
        mean_of=of,
        rgb_share=rgb_share,
        minutes=None,
        images=largest(each.images for each in trainings),
        test_images=largest(each.test_images for each in trainings),
        validation_duplicates=largest(each.validation_duplicates for each in trainings),
    )
    card = models[0].card
    return replace(card, training=how, results=(), baselines=(), temperature=1.0, calibration=None, int8=True)


def mean_model(
    models: Sequence[store.Model], shares: Sequence[float], directory: Path, rgb_share: float, force: bool
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
        raise UsageError(f"--rgb must be between 0 and 1, not {rgb_share:g}")
    if rgb_share and (first.kind, first.card.labels) != ("classifier", IMAGENET):
        raise UsageError(f"{first.name}: --rgb requires a classifier of the 1000 ImageNet classes")
    enough = len(models) >= (1 if rgb_share else 2)
    if not enough or len(shares) != len(models) or not all(0 < share < float("inf") for share in shares):
        raise UsageError("averaging requires at least two models, each with a positive weight")
    weights = [model.weights() for model in models]
    check_alike(models, weights)
    fractions = [share / sum(shares) for share in shares]
    mean = weight_mean(weights, fractions)
    if rgb_share:
        mean = towards_rgb(mean, rgb_share)
    of = tuple(
        Origin(model.sha256, name=model.name, share=round(fraction, 4))
        for model, fraction in zip(models, fractions, strict=True)
    )
    install.check_free(directory, force)
    tensors = {name: tensor.to(weights[0][name].dtype) for name, tensor in mean.items()}
    return store.write_model(directory, of_mean(models, of, rgb_share), tensors)
