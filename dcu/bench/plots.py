"""The report's plots, as inline SVG: text is text, lines take the page's own color."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dcu.bench.accuracy import Accuracy, Metrics
from dcu.bench.table import Row, fastest
from dcu.evaluate.curves import COLORS, Curves, draw, style

INK = "#0b0c0d"
"""Stands for the page's color of text until the plot is in the page."""
STAGE_LABELS = {"read_ms": "read", "decode_ms": "decode", "network_ms": "network"}


@contextmanager
def page_style() -> Iterator[None]:
    """What is drawn within takes its colors and its letters from the page."""
    import matplotlib as mpl
    from cycler import cycler

    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
    clear = ("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor")
    settings: Any = dict.fromkeys(inked, INK) | dict.fromkeys(clear, "none")
    settings |= {"svg.fonttype": "none", "font.size": 11, "legend.fontsize": 9, "legend.edgecolor": "none"}
    settings |= {"axes.prop_cycle": cycler(color=COLORS), "axes.spines.top": False, "axes.spines.right": False}
    with mpl.rc_context(settings):
        yield


def svg(figure: Any, alt: str) -> str:
    """A plot as an element of a page, with a text for those who do not see it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    element = buffer.getvalue()
    element = element[element.index("<svg") :].replace(INK, "currentColor")
    element = re.sub(r'font: ([^;"]*?)[\'"]?DejaVu Sans.*?(?=[;"])', r"font: \1sans-serif", element)
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    return element.replace("<svg", f'<svg role="img" aria-label="{html.escape(alt)}"', 1)


def rate_distortion(curves: Curves, title: str) -> str:
    """Quality over bits per pixel, of dcu and of other formats."""
    with page_style():
        return svg(draw(curves, title), f"Rate-distortion curves: {title}")


def accuracy(known: Sequence[Accuracy]) -> list[str]:
    """Top-1 over bytes and over MACs, a curve for each pipeline through its rates; nothing where nothing is known."""
    from matplotlib.figure import Figure

    points = [
        (rate.curve(pipeline), pipeline.name, row)
        for rate in known
        for pipeline, row in rate.metrics.items()
        if row.top1 is not None
    ]
    lines: dict[str, list[Metrics]] = {}
    for curve, _, row in sorted(points, key=lambda point: point[2].bytes or 0):
        lines.setdefault(curve, []).append(row)
    if not points:
        return []
    with page_style():
        figure = Figure(figsize=(9.6, 4.6), layout="constrained")
        by_bytes, by_macs = figure.subplots(1, 2, sharey=True)
        order = sorted(lines, key=lambda name: (name.startswith("RGB"), name))
        for index, name in enumerate(order):
            look: Any = style(index) | {"zorder": 20 - index, "markersize": 7}
            rates = lines[name]
            right = [100 * (row.top1 or 0) for row in rates]
            by_bytes.plot([row.bytes for row in rates], right, label=name, **look)
            by_macs.plot([(row.macs or 0) / 1e6 for row in rates], right, **look)
        by_bytes.set(xscale="log", xlabel="bytes per file", ylabel="top-1 [%]", ylim=(0, 100))
        by_macs.set(xscale="log", xlabel="million MACs, decoder included")
        for axes in (by_bytes, by_macs):
            axes.grid(alpha=0.25)
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("")
        figure.legend(loc="outside lower center", ncols=2)
        text = "; ".join(
            f"{name}: {100 * (row.top1 or 0):.1f} % at {row.bytes or 0:.0f} bytes" for _, name, row in points
        )
        return [svg(figure, f"Top-1 over bytes and over MACs. {text}")]


def timing(rows: Sequence[Row], batch: int) -> str:
    """From file to label, a bar for each pipeline on its fastest engine, by stage."""
    from matplotlib.figure import Figure

    bars = list(fastest(rows, batch).values())[::-1]
    with page_style():
        figure = Figure(figsize=(9.6, 0.9 + 0.42 * len(bars)), layout="constrained")
        axes = figure.subplots()
        left = [0.0] * len(bars)
        for stage, label in STAGE_LABELS.items():
            widths = [getattr(row, stage) for row in bars]
            axes.barh([f"{row.name} ({row.engine})" for row in bars], widths, left=left, label=label, height=0.6)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        axes.set(xlabel=f"milliseconds per image, batch of {batch}")
        axes.grid(alpha=0.25, axis="x")
        axes.legend(loc="lower right")
        text = "; ".join(f"{row.name}: {row.ms} ms" for row in bars[::-1])
        return svg(figure, f"Milliseconds from file to label, batch of {batch}. {text}")
