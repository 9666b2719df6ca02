"""Rate-distortion curves: differences at equal bits, Bjontegaard's mean saving, and their image."""

from __future__ import annotations

import datetime
import io
import math
import warnings
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from dcu.cards import Difference
from dcu.errors import UnavailableError

Points = Sequence[dict[str, Any]]
"""Metrics with ``name``, ``bpp``, ``psnr`` and ``ms_ssim``, by rising bpp."""
Curves = dict[str, dict[str, Points]]
"""Of each measure, the points of each format by name; "dcu" are our codecs."""

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f", "#9467bd", "#bcbd22")
"""Those of Okabe and Ito, which people with any color vision tell apart, and four more."""
MARKERS = "osD^vP*Xp<"
MEASURES = {"psnr": "PSNR [dB]", "ms_ssim": "MS-SSIM"}


def check_packages() -> None:
    """Raise UnavailableError where the packages that compare and draw are missing: before anything is measured."""
    for package in ("bjontegaard", "matplotlib"):
        if find_spec(package) is None:
            raise UnavailableError(f"{package} is not installed: pip install 'dcu-codec[bench]'")


def pareto_front(points: Iterable[dict[str, Any]], measure: str) -> Points:
    """The points that no other of at most as many bits beats, by rising bpp."""
    best: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda p: (p["bpp"], -p[measure])):
        if not best or point[measure] > best[-1][measure]:
            best.append(point)
    return best


def of(ours: Points, theirs: Points) -> Curves:
    """The curve of our codecs and the best that each other format does; without MS-SSIM for images too small."""
    measures = [m for m in MEASURES if all(point[m] is not None for point in (*ours, *theirs))]
    names = dict.fromkeys(point["name"] for point in theirs)
    return {
        measure: {"dcu": sorted(ours, key=lambda point: point["bpp"])}
        | {name: pareto_front((point for point in theirs if point["name"] == name), measure) for name in names}
        for measure in measures
    }


def differences(ours: Points, curves: Curves) -> Points:
    """Each of our points less each other format's curve at the same rate."""
    formats = [name for name in curves["psnr"] if name != "dcu"]
    return [
        {"name": point["name"], "bpp": point["bpp"], "against": name}
        | {
            f"{measure}_difference": round(point[measure] - quality_at(curve[name], measure, point["bpp"]), 4)
            for measure, curve in curves.items()
            if len(curve[name]) > 1
        }
        for point in ours
        for name in formats
    ]


def stated(name: str, differences: Points) -> dict[str, Difference]:
    """What a card says of :func:`differences`: of each other format, how much better a codec is at the same rate."""
    return {
        row["against"]: Difference(**{measure: row.get(f"{measure}_difference") for measure in MEASURES})
        for row in differences
        if row["name"] == name
    }


def savings(curves: Curves) -> Points:
    """Mean difference of rate of our codecs against each other format, in percent; of several codecs only."""
    if len(curves["psnr"]["dcu"]) < 2:
        return []
    return [
        {"name": "dcu", "against": name}
        | {f"bd_rate_{m}": bd_rate(curve[name], pareto_front(curve["dcu"], m), m) for m, curve in curves.items()}
        for name in curves["psnr"]
        if name != "dcu"
    ]


def quality_at(curve: Points, measure: str, bpp: float) -> float:
    """A curve's quality at a rate: straight lines over log bpp, the end segments extended; of two points and more."""
    x = np.log([point["bpp"] for point in curve])
    y = np.array([point[measure] for point in curve], dtype=float)
    right = int(np.clip(np.searchsorted(x, math.log(bpp)), 1, len(x) - 1))
    slope = (y[right] - y[right - 1]) / (x[right] - x[right - 1])
    return float(y[right] + slope * (math.log(bpp) - x[right]))


def bd_rate(anchor: Points, test: Points, measure: str) -> float | None:
    """Mean difference of rate in percent at equal quality, of ``test`` against ``anchor``; negative is fewer bits.

    Bjontegaard 2001 (VCEG-M33) by the package of that name, piecewise cubic; MS-SSIM in dB, -10 log10(1 - x).
    None where there are fewer than two points of either, or no common range of quality.
    """
    import bjontegaard

    if min(len(anchor), len(test)) < 2:
        return None
    rates = [[point["bpp"] for point in curve] for curve in (anchor, test)]
    qualities = [np.array([point[measure] for point in curve], dtype=float) for curve in (anchor, test)]
    if measure == "ms_ssim":
        qualities = [-10 * np.log10(1 - quality) for quality in qualities]
    if max(q.min() for q in qualities) >= min(q.max() for q in qualities):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = bjontegaard.bd_rate(
            rates[0], qualities[0], rates[1], qualities[1], method="pchip", require_matching_points=False, min_overlap=0
        )
    return round(float(value), 2) if math.isfinite(value) else None


def style(index: int) -> dict[str, Any]:
    """Color and marker of a series, which no other one of a plot has: there are ten."""
    return {"color": COLORS[index % len(COLORS)], "marker": MARKERS[index % len(MARKERS)]}


def draw(curves: Curves, title: str) -> Any:
    """The curves of each measure, by name, over bits per pixel, as a figure of Matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    for axes, (measure, named) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        for index, (name, points) in enumerate(named.items()):
            own = name == "dcu"
            axes.plot(
                [point["bpp"] for point in points],
                [point[measure] for point in points],
                **style(index),
                linewidth=2.4 if own else 1.2,
                markersize=7 if own else 4,
                label=name,
            )
        axes.set(xscale="log", xlabel="bits per pixel (whole files)", ylabel=MEASURES[measure])
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    figure.suptitle(f"{title}, {datetime.date.today().isoformat()}")
    return figure


def plot(curves: Curves, title: str, suffix: str) -> bytes:
    """The same as a file: ``suffix`` is png, svg or pdf."""
    buffer = io.BytesIO()
    draw(curves, title).savefig(buffer, format=suffix, dpi=120)
    return buffer.getvalue()
