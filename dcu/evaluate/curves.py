"""Rate-distortion curves: differences at equal bits, Bjontegaard's mean saving, and their image."""

from __future__ import annotations

import datetime
import io
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from dcu.cards import BdRate, Difference
from dcu.errors import UnavailableError
from dcu.evaluate.codec import Point
from dcu.evaluate.published import PublishedPoint

Points = Sequence[Point]
"""By rising bpp."""
Curves = dict[str, dict[str, Points]]
"""Of each measure, the points of each format by name; "dcu" are our codecs of one rate, others have their names."""

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f", "#9467bd", "#bcbd22")
"""Those of Okabe and Ito, which people with any color vision tell apart, and four more."""
MARKERS = "osD^vP*Xp<"
MEASURES = {"psnr": "PSNR [dB]", "ms_ssim": "MS-SSIM"}


@dataclass(frozen=True)
class Gain:
    """How much better one of our points is than the curve of another format at the same rate."""

    point: Point
    against: str
    difference: Difference

    def row(self) -> dict[str, object]:
        """The same for a table, without what is not known."""
        row = {
            "name": self.point.name,
            "quality": self.point.quality,
            "bpp": self.point.bpp,
            "against": self.against,
            "psnr_difference": self.difference.psnr,
            "ms_ssim_difference": self.difference.ms_ssim,
        }
        return {key: value for key, value in row.items() if value is not None}


def table(gains: Sequence[Gain]) -> list[dict[str, object]]:
    """Rows of equal keys: those that any gain has."""
    rows = [gain.row() for gain in gains]
    keys = dict.fromkeys(key for row in sorted(rows, key=len, reverse=True) for key in row)
    return [{key: row.get(key) for key in keys} for row in rows]


@dataclass(frozen=True)
class Saving:
    """Mean difference of rate in percent of one of our curves against another format, for each measure."""

    name: str
    against: str
    bd_rate: dict[str, float | None]

    def row(self) -> dict[str, object]:
        """The same for a table."""
        rates = {f"bd_rate_{measure}": rate for measure, rate in self.bd_rate.items()}
        return {"name": self.name, "against": self.against, **rates}

    def on_card(self, dataset: str, count: int, machines: bool) -> BdRate:
        """The same for the codec's card."""
        return BdRate(dataset, count, self.against, self.bd_rate.get("psnr"), self.bd_rate.get("ms_ssim"), machines)


def value(point: Point, measure: str) -> float:
    """The PSNR or MS-SSIM of a point of which it is known."""
    return float(getattr(point, measure))


def check_packages() -> None:
    """Raise UnavailableError where the packages that compare and draw are missing: before anything is measured."""
    for package in ("bjontegaard", "matplotlib"):
        if find_spec(package) is None:
            raise UnavailableError(f"{package} is not installed: pip install 'dcu-codec[bench]'")


def pareto_front(points: Iterable[Point], measure: str) -> Points:
    """The points that no other of at most as many bits beats, by rising bpp."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.bpp, -value(p, measure))):
        if not best or value(point, measure) > value(best[-1], measure):
            best.append(point)
    return best


def of(ours: Points, theirs: Points) -> Curves:
    """The curves of our codecs and the best that each other format does; without MS-SSIM for images too small."""
    measures = [m for m in MEASURES if all(getattr(point, m) is not None for point in (*ours, *theirs))]
    names = dict.fromkeys(point.name for point in theirs)
    own = {
        name: sorted((point for point in ours if own_name(point) == name), key=lambda point: point.bpp)
        for name in own_names(ours)
    }
    return {
        measure: own
        | {name: pareto_front((point for point in theirs if point.name == name), measure) for name in names}
        for measure in measures
    }


def own_name(point: Point) -> str:
    """The curve of one of our points: a codec of many operating points has one of its own."""
    return "dcu" if point.quality is None else point.name


def own_names(ours: Points) -> list[str]:
    """The curves of our points."""
    return list(dict.fromkeys(map(own_name, ours)))


def gains(ours: Points, curves: Curves) -> list[Gain]:
    """Each of our points less each other format's curve at the same rate, where the curve has that rate."""
    formats = [name for name in curves["psnr"] if name not in own_names(ours)]

    def difference(point: Point, name: str) -> Difference:
        return Difference(
            **{
                measure: round(value(point, measure) - quality_at(curve[name], measure, point.bpp), 4)
                for measure, curve in curves.items()
                if len(curve[name]) > 1 and curve[name][0].bpp <= point.bpp <= curve[name][-1].bpp
            }
        )

    found = (Gain(point, name, difference(point, name)) for point in ours for name in formats)
    return [gain for gain in found if gain.difference != Difference()]


def savings(ours: Points, curves: Curves) -> list[Saving]:
    """Those of our curves against each other format; of curves of several points only."""
    names = own_names(ours)
    return [
        Saving(own, name, {m: bd_rate(curve[name], pareto_front(curve[own], m), m) for m, curve in curves.items()})
        for own in names
        if len(curves["psnr"][own]) > 1
        for name in curves["psnr"]
        if name not in names
    ]


def quality_at(curve: Points, measure: str, bpp: float) -> float:
    """A curve's quality at a rate between its first and its last: straight lines over log bpp."""
    rates = [math.log(point.bpp) for point in curve]
    return float(np.interp(math.log(bpp), rates, [value(point, measure) for point in curve]))


def bd_rate(anchor: Points, test: Points, measure: str) -> float | None:
    """Mean difference of rate in percent at equal quality, of ``test`` against ``anchor``; negative is fewer bits.

    Bjontegaard 2001 (VCEG-M33) by the package of that name, piecewise cubic; MS-SSIM in dB, -10 log10(1 - x).
    None where there are fewer than two points of either, or no common range of quality.
    """
    import bjontegaard

    if min(len(anchor), len(test)) < 2:
        return None
    rates = [[point.bpp for point in curve] for curve in (anchor, test)]
    qualities = [np.array([value(point, measure) for point in curve]) for curve in (anchor, test)]
    if measure == "ms_ssim":
        qualities = [-10 * np.log10(1 - quality) for quality in qualities]
    if max(q.min() for q in qualities) >= min(q.max() for q in qualities):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rate = bjontegaard.bd_rate(
            rates[0], qualities[0], rates[1], qualities[1], method="pchip", require_matching_points=False, min_overlap=0
        )
    return round(float(rate), 2) if math.isfinite(rate) else None


def style(index: int) -> dict[str, str]:
    """Color and marker of a series, which no other one of a plot has: there are ten."""
    return {"color": COLORS[index % len(COLORS)], "marker": MARKERS[index % len(MARKERS)]}


def draw(curves: Curves, title: str, published: Sequence[PublishedPoint] = ()) -> Any:
    """The curves of each measure, by name, over bits per pixel, as a figure; ``published`` ones dashed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    for axes, (measure, named) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        for index, (name, points) in enumerate(named.items()):
            own = name == "dcu" or points[0].quality is not None
            axes.plot(
                [point.bpp for point in points],
                [value(point, measure) for point in points],
                **style(index),
                linewidth=2.4 if own else 1.2,
                markersize=7 if own else 4,
                label=name,
            )
        axes.set(xscale="log", xlabel="bits per pixel (whole files)", ylabel=MEASURES[measure])
        draw_published(axes, measure, published, len(named))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3, which="both")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    figure.suptitle(f"{title}, {datetime.date.today().isoformat()}")
    return figure


def draw_published(axes: Any, measure: str, published: Sequence[PublishedPoint], first: int) -> None:
    """Published curves of a measure, dashed, in the colors from the ``first`` on; the axes show what they showed."""
    limits = axes.get_xlim(), axes.get_ylim()
    for index, name in enumerate(dict.fromkeys(point.name for point in published), first):
        points = [point for point in published if point.name == name]
        axes.plot(
            [point.bpp for point in points],
            [getattr(point, measure) for point in points],
            color=style(index)["color"],
            linestyle="--",
            linewidth=1,
            label=f"{name} (published, {points[0].images} Kodak images)",
        )
    axes.set(xlim=limits[0], ylim=limits[1])


def plot(curves: Curves, title: str, suffix: str, published: Sequence[PublishedPoint] = ()) -> bytes:
    """The same as a file: ``suffix`` is png, svg or pdf."""
    buffer = io.BytesIO()
    draw(curves, title, published).savefig(buffer, format=suffix, dpi=120)
    return buffer.getvalue()
