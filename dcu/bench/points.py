"""What is benchmarked: codecs of one rate, or operating points of one codec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dcu import rate_control, store
from dcu.errors import UsageError

RATES = (rate_control.RATE, 0.330, 0.635)
"""Bits per pixel for which operating points are benchmarked by default: those of the codecs of one rate."""


@dataclass(frozen=True)
class OperatingPoint:
    """A codec, and at which of its operating points; None for the only one of a codec of one rate."""

    model: store.Model
    quality: int | None = None

    @property
    def name(self) -> str:
        """As tables call it."""
        return self.model.name if self.quality is None else f"{self.model.name} at quality {self.quality}"


def points_of(model: store.Model, rates: Sequence[float], qualities: Sequence[int]) -> list[OperatingPoint]:
    """The operating points of a codec that are named by their qualities, else those whose mean rates are nearest.

    Raises
    ------
    UsageError
        The codec has one rate and others are named; its card states no rates, or a rate is not positive.
    """
    if model.card.points == 1:
        if rates or qualities:
            raise UsageError(f"{model.name}: has one rate: --rate and --quality select no other")
        return [OperatingPoint(model)]
    if not qualities:
        if model.card.rates is None:
            raise UsageError(f"the card of {model.name} states no rates: name the quality, or run 'dcu eval rates'")
        try:
            qualities = [rate_control.nearest(model.card.rates.bpp, rate) for rate in rates or RATES]
        except ValueError as error:
            raise UsageError(str(error)) from error
    if max(qualities) >= model.card.points:
        raise UsageError(f"{model.name}: quality is 0 to {model.card.points - 1}, not {max(qualities)}")
    return [OperatingPoint(model, quality) for quality in dict.fromkeys(qualities)]


def default_point(model: store.Model) -> OperatingPoint:
    """The operating point at which a codec compresses by default; raises UsageError as :func:`points_of`."""
    (point,) = points_of(model, RATES[:1] if model.card.points > 1 else (), ())
    return point
