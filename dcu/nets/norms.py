"""Batch norms that are there while a network trains, and folded into its convolutions when it is done.

Ioffe and Szegedy, arXiv 1502.03167. Networks here are defined without them (they are what ships and runs); training
without them is far slower, since every layer must wait for the one before to reach the scale that it knows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

EPSILON = 1e-3
NORM_BATCHES = 40
"""Batches on which the norms of an averaged network are measured."""


def normed_convolutions(module: nn.Module) -> list[tuple[nn.Module, str, nn.Conv2d]]:
    """Every convolution of a network with the module that holds it and its name there."""
    return [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Conv2d) and not isinstance(parent, NormedConv)
    ]


class NormedConv(nn.Module):
    """A convolution and the batch norm behind it."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = nn.BatchNorm2d(convolution.out_channels, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.convolution(x))
        return y


def add_norms(module: nn.Module) -> None:
    """Put a batch norm behind each convolution of a network, in place."""
    for parent, name, convolution in normed_convolutions(module):
        setattr(parent, name, NormedConv(convolution))


def measure_norms(module: nn.Module, see: Callable[[int], object], batches: int) -> None:
    """Set the norms' statistics to plain means over so many batches, for the weights as they are now.

    The running ones are those of noisy batches and of earlier weights: up to 5 points of a classifier's agreement.
    ``see(index)`` sends a batch through the module; where there are no norms nothing is sent.
    """
    norms = [child for child in module.modules() if isinstance(child, nn.BatchNorm2d)]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    module.train()
    with torch.no_grad():
        for index in range(batches):
            see(index)
    for norm in norms:
        norm.momentum = 0.1


@torch.no_grad()
def restore_norms(module: nn.Module, see: Callable[[int], object], batches: int) -> None:
    """Give norms that are new the means and spreads of what comes in, and have them put both back in.

    So the network is, until it learns, what its convolutions make it, which are those of a network whose norms were
    folded. ``see(index)`` sends a batch through the module.
    """
    norms = [child for child in module.modules() if isinstance(child, nn.BatchNorm2d)]
    hooks = [norm.register_forward_hook(lambda _, args, y: args[0]) for norm in norms]  # measured, not yet applied
    measure_norms(module, see, batches)
    for norm, hook in zip(norms, hooks, strict=True):
        hook.remove()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.weight.copy_((norm.running_var + EPSILON).sqrt())
        norm.bias.copy_(norm.running_mean)


def fold_norms(module: nn.Module) -> None:
    """Fold each batch norm into the convolution before it, in place: the reverse of :func:`add_norms`.

    w' = w g / sqrt(v + e),  b' = (b - m) g / sqrt(v + e) + beta
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, NormedConv):
                continue
            convolution, state = child.convolution, child.norm.state_dict()
            gain = state["weight"] / (state["running_var"] + EPSILON).sqrt()
            convolution.weight.data.mul_(gain[:, None, None, None])
            assert convolution.bias is not None
            convolution.bias.data.copy_((convolution.bias.data - state["running_mean"]) * gain + state["bias"])
            setattr(parent, name, convolution)
