"""A codec with one set of weights for every rate: transforms shared, a gain per channel and operating point.

::

    x ── analysis ── y ── * gain(q) ── round ── symbols s ── context(s, q) ── bits
    x' ── synthesis(q) ── * ungain(q) ── s

The latent that synthesis and networks read is s * ungain(q): its values mean the same at every q.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dcu.geometry import POINTS
from dcu.nets.context import UnboundedGroup
from dcu.nets.logistic_context import LogisticContext, logistic_bits
from dcu.nets.operating_point import AnchorVectors, per_channel
from dcu.nets.quantizer import SIGMA, soft_assignment
from dcu.nets.transforms import ConditionalAnalysis, ConditionalSynthesis, exact


class VariableRateCodec(nn.Module):
    """Analysis, gains, context model and synthesis, as they are trained.

    Parameters
    ----------
    groups : sequence of UnboundedGroup
        Channel groups in the order of decoding.
    width, analysis_depth, synthesis_depth, context_hidden : int
        As the parts take them.
    anchors : int
        Trained operating points, 2 or more; those between are interpolated.
    adapter : int
        Channels inside the adapter of streams for machines; 0 for a codec of streams for people alone.
    """

    sigma = SIGMA
    """Sharpness of the soft assignment whose gradients the encoder gets."""

    def __init__(
        self,
        groups: Sequence[UnboundedGroup],
        width: int,
        analysis_depth: int,
        synthesis_depth: int,
        context_hidden: int,
        anchors: int,
        adapter: int = 0,
    ) -> None:
        super().__init__()
        channels, kinds = sum(group.channels for group in groups), 2 if adapter else 1
        self.analysis = ConditionalAnalysis(channels, width, analysis_depth, anchors, adapter)
        self.log_gain = AnchorVectors(anchors, channels, kinds)
        self.log_ungain = AnchorVectors(anchors, channels, kinds)
        self.context = LogisticContext(groups, context_hidden, anchors, kinds)
        self.synthesis = ConditionalSynthesis(channels, width, synthesis_depth, anchors, kinds)

    def begin_at_steps(self, first: float, last: float) -> None:
        """Set the gains: a quantization step of ``first`` at q = 0, ``last`` at q = 63, geometric between them."""
        log_step = torch.linspace(math.log(first), math.log(last), self.log_gain.count)[:, None]
        log_step = log_step.repeat(self.log_gain.kinds, self.log_gain.anchors.shape[1])
        with torch.no_grad():
            self.log_gain.anchors.copy_(-log_step)
            self.log_ungain.anchors.copy_(log_step)

    def scaled(self, x: Tensor, q: Tensor) -> Tensor:
        """Latent in units of the quantization step, (B, C, h, w), before rounding; x may be one image for all q.

        All operating points are of one kind.
        """
        return self.analysis.latent(x, q) * per_channel(self.log_gain(q).exp())

    def reconstruct(self, symbols: Tensor, q: Tensor) -> Tensor:
        """Image (B, 3, 8h, 8w), about [-1, 1], of symbols (B, C, h, w) at operating points (B,)."""
        image: Tensor = self.synthesis(symbols * per_channel(self.log_ungain(q).exp()), q)
        return image

    def forward(self, x: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction of x (B, 3, 8h, 8w) in [-1, 1] at operating points (B,), and its bits, (B,)."""
        symbols, bits = self.coded(x, self.scaled(x, q), q)
        return self.reconstruct(symbols, q), bits

    def coded(self, x: Tensor, y: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Symbols (B, C, h, w) of the scaled latent y of images x, and their bits, (B,).

        Both are those of the rounded symbols; their gradients are those of a soft assignment to the nearest symbol and
        its two neighbors (Agustsson et al., arXiv 1704.00648), as of codecs of one rate. Noise in the place of
        rounding costs a fifth more bits at the lowest rates (experiments/2026-11-29-codec-2-assignment).
        """
        nearest = y.detach().round()
        offsets = (0, -1, 1) if torch.is_grad_enabled() else (0,)
        candidates = torch.stack([nearest + offset for offset in offsets])
        assignment = soft_assignment((y - candidates).square(), 0, self.sigma)
        symbols = (assignment * candidates).sum(0)
        with exact(x):
            mean, log2_scale = self.context(symbols, q)
            bits = (assignment * logistic_bits(candidates, mean, log2_scale)).sum((0, 2, 3, 4))
        return symbols, bits


def evenly_spaced(count: int) -> Tensor:
    """So many operating points from 0 to 63, rounded to integers, as float."""
    return torch.linspace(0, POINTS - 1, count).round()
