"""The optimizers that recipes may name."""

from __future__ import annotations

from typing import Any

import torch

from dcu.errors import UnavailableError
from dcu.train.recipe import Schedule

LARGEST_PRECONDITIONER = 600
"""Dimensions above this many entries are not preconditioned."""
PRECONDITION_EVERY = 10
"""Steps between two eigenbases of SOAP."""


def make_optimizer(groups: list[dict[str, Any]], schedule: Schedule) -> torch.optim.Optimizer:
    """The schedule's optimizer of parameter groups; raises UnavailableError where its package is missing."""
    if schedule.optimizer == "adam":
        return torch.optim.Adam(groups, lr=schedule.learning_rate, betas=(0.9, 0.99))
    try:
        from pytorch_optimizer import SOAP
    except ImportError as error:
        raise UnavailableError("SOAP is not installed: pip install 'dcu-codec[train]'") from error
    soap: torch.optim.Optimizer = SOAP(
        groups,
        lr=schedule.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=0.0,
        precondition_frequency=PRECONDITION_EVERY,
        max_precondition_dim=LARGEST_PRECONDITIONER,
    )
    return soap
