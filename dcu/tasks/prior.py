"""Class priors at prediction time: which classes can occur, and with which frequency.

    p'(c) = w(c) p(c) / sum over k of w(k) p(k)

with the weights w of classes relative to training, Bayes' rule for another class prior (Saerens et al., Neural
Computation 2002); classes that cannot occur have weight 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from dcu.labels import Label, indices_by_name

Class = str | int
"""A class by its label or WNID, in any case, or by its index."""


def class_weights(
    labels: Sequence[Label], classes: Iterable[Class] | None, prior: Mapping[str, float] | Mapping[int, float] | None
) -> Tensor | None:
    """The weight (n,) float64 of each class; None where neither ``classes`` nor ``prior`` is given.

    Classes that are not in ``classes`` have weight 0, those that are not in ``prior`` weight 1.

    Raises
    ------
    TypeError
        A class that is neither str nor int, a weight that is no number.
    ValueError
        What is no class; a negative or infinite weight; weights that are all 0.
    """
    if classes is None and prior is None:
        return None
    names = indices_by_name(labels)
    weights = torch.ones(len(labels), dtype=torch.float64)
    if classes is not None:
        if isinstance(classes, str):
            raise TypeError("classes must be a sequence of labels, WNIDs or indices")
        weights.zero_()[[index_of(each, names) for each in classes]] = 1
    for each, weight in (prior or {}).items():
        weights[index_of(each, names)] *= checked(weight)
    if not weights.any():
        raise ValueError("all class weights are 0")
    return weights


def index_of(name: object, names: Mapping[str, int]) -> int:
    """The index of a class; raises TypeError and ValueError."""
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise TypeError(f"a class must be str or int, not {type(name).__name__}")
    if (found := names.get(str(name).casefold())) is None:
        raise ValueError(f"{name!r} is not a class of the network")
    return found


def checked(weight: object) -> float:
    """A weight of a class; raises TypeError and ValueError."""
    if not isinstance(weight, int | float) or isinstance(weight, bool):
        raise TypeError(f"a weight must be a number, not {type(weight).__name__}")
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"a weight must be at least 0, not {weight}")
    return float(weight)


def reweighted(probabilities: Tensor, weights: Tensor) -> Tensor:
    """Probabilities (B, n) under other class weights (n,); these alone where every possible class has probability 0."""
    joint = probabilities.double() * weights
    total = joint.sum(1, keepdim=True)
    alone = (weights / weights.sum()).expand_as(joint)
    return torch.where(total > 0, joint / total.clamp(min=torch.finfo(torch.float64).tiny), alone).float()
