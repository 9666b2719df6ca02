"""Parameter groups, and the optimizers that recipes may name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from dcu.errors import UnavailableError
from dcu.train.recipe import Schedule

LARGEST_PRECONDITIONER = 600
"""Dimensions above this many entries are not preconditioned."""
PRECONDITION_EVERY = 30
"""Steps between two eigenbases of SOAP."""


class ParameterGroup(NamedTuple):
    """Parameters whose learning rate is ``scale`` times the schedule's."""

    params: list[nn.Parameter]
    scale: float = 1.0


def make_optimizer(groups: Sequence[ParameterGroup], schedule: Schedule) -> torch.optim.Optimizer:
    """The schedule's optimizer of parameter groups; raises UnavailableError where its package is missing."""
    named = [group._asdict() for group in groups]
    if schedule.optimizer == "adam":
        return torch.optim.Adam(named, lr=schedule.learning_rate, betas=(0.9, 0.99))
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(
            named, lr=schedule.learning_rate, momentum=0.9, nesterov=True, weight_decay=schedule.weight_decay
        )
    try:
        from pytorch_optimizer import SOAP
    except ImportError as error:
        raise UnavailableError("SOAP is not installed: pip install 'dcu-codec[train]'") from error
    soap: torch.optim.Optimizer = SOAP(
        named,
        lr=schedule.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=0.0,
        precondition_frequency=PRECONDITION_EVERY,
        max_precondition_dim=LARGEST_PRECONDITIONER,
    )
    return soap
