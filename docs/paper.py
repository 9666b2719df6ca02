"""Writes docs/paper.md from results/paper.csv: the source paper's comparison at a smaller scale (`make paper`).

``python -m docs.paper --data DIRECTORY`` measures results/paper.csv first, on imagenet20-val.tar and camvid-val.tar;
with ``--train`` it trains the networks that are missing, on imagenet20-train.tar and camvid-train.tar.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dcu.evaluate.curves import COLORS
from docs.paper_networks import CURVES, NETWORKS, SIDE, measured, train
from docs.readme import Cells, table
from docs.results import RESULTS, ROOT, as_csv, read

PAGE, PLOT = ROOT / "docs" / "paper.md", ROOT / "docs" / "paper.svg"
PAPER = {
    "resnet50-original": (71.06, 89.96),
    "resnet50-0.330": (65.18, 86.25),
    "cresnet51-0.330": (64.78, 85.87),
    "resnet50-0.0983": (55.30, 78.52),
    "cresnet51-0.0983": (55.18, 78.20),
    "resnet50-d-0.0983": (52.97, None),
    "cresnet51-d-0.0983": (54.62, None),
}
"""The paper's top-1 and top-5, or mIoU, in percent; from the paper's tables, not checked against its PDF."""
ERRORS = 2.0
"""Standard errors that count as a difference."""
JOINT = ROOT / "experiments" / "2026-12-01-joint-control" / "results.csv"
"""Stages of joint training of codec 2, at three rates."""
Figures = dict[str, dict[str, str]]


def percent(text: str, digits: int = 1) -> str:
    """A fraction as percent."""
    return f"{100 * float(text):.{digits}f}" if text else ""


def results(rows: Figures) -> list[Cells]:
    """The networks beside the paper's."""
    found = []
    for compared in NETWORKS:
        row, (value, top5) = rows[compared.name], PAPER.get(compared.name, (None, None))
        found.append(
            {
                "network": compared.network,
                "reads": f"{compared.input}{'' if compared.input == 'original' else f', codec at {compared.rate}'}",
                "bpp": "" if compared.input == "original" else row["bpp"],
                "top-1, mIoU (%)": f"{percent(row['value'])} ± {percent(row['se'])}",
                "top-5 (%)": percent(row["top5"]),
                "paper: top-1, mIoU (%)": "" if value is None else f"{value:.1f}",
                "paper: top-5 (%)": "" if top5 is None else f"{top5:.1f}",
            }
        )
    return found


def costs(rows: Figures) -> list[Cells]:
    """Accuracy beside what the path from the file to the answer costs."""
    chosen = [compared for compared in NETWORKS if not compared.segments]
    return [
        {
            "network": compared.name,
            "MACs of the network (M)": f"{float(rows[compared.name]['macs']) / 1e6:.0f}",
            "MACs from file to label (M)": f"{float(rows[compared.name]['path_macs']) / 1e6:.0f}",
            "top-1 (%)": percent(rows[compared.name]["value"]),
        }
        for compared in sorted(chosen, key=lambda compared: float(rows[compared.name]["path_macs"]))
    ]


def plot(rows: Figures) -> bytes:
    """Accuracy with standard errors over what the path from the file to the label costs, as SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for index, compared in enumerate(compared for compared in NETWORKS if not compared.segments):
        row = rows[compared.name]
        top1, error = 100 * float(row["value"]), 100 * float(row["se"])
        look: Any = {"color": COLORS[index], "fmt": "o" if compared.input == "latent" else "s", "label": compared.name}
        axes.errorbar(float(row["path_macs"]) / 1e6, top1, error, capsize=3, markersize=8, **look)
    axes.set(xscale="log", xlabel=f"million MACs from file to label, {SIDE}x{SIDE}", ylabel="top-1 (%)")
    axes.grid(alpha=0.3, which="both")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    figure.legend(loc="outside right center")
    out = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "dcu", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def gap(rows: Figures, name: str) -> tuple[float, float]:
    """A network's difference to the one that it is compared with, and its standard error, in points."""
    return 100 * float(rows[name]["difference"]), 100 * float(rows[name]["difference_se"])


def said(difference: float, error: float) -> str:
    """A difference with its error."""
    return f"{round(difference, 1) or 0.0:+.1f} ± {error:.1f} points"


def equal(rows: Figures, name: str) -> tuple[str, str]:
    """Whether two networks are equally accurate, and by how much they differ."""
    difference, error = gap(rows, name)
    alike = abs(difference) < ERRORS * error
    verdict = "agrees" if alike else f"does not agree: {'ahead' if difference > 0 else 'behind'}"
    return verdict, f"{rows[name]['name']} against {rows[name]['against']}: {said(difference, error)}"


def better_at_low_rates(rows: Figures) -> tuple[str, str]:
    """Whether the latent does better against decoded images at the lower rate."""
    low, high = gap(rows, "cresnet51-0.0983"), gap(rows, "cresnet51-0.330")
    difference, error = low[0] - high[0], (low[1] ** 2 + high[1] ** 2) ** 0.5
    verdict = "agrees" if difference > ERRORS * error else "not decided"
    if difference < -ERRORS * error:
        verdict = "does not agree"
    return verdict, f"the latent's lead at 0.0983 less that at 0.330: {said(difference, error)}"


def segments_better(rows: Figures) -> tuple[str, str]:
    """Whether segmentation from the latent is ahead at the lowest rate."""
    difference, error = gap(rows, "cresnet51-d-0.0983")
    verdict = "agrees" if difference > ERRORS * error else "not decided"
    if difference < -ERRORS * error:
        verdict = "does not agree"
    return verdict, f"cresnet51-d against resnet50-d: {said(difference, error)}"


def half_the_cost(rows: Figures) -> tuple[str, str]:
    """What cResNet-39 costs, beside decoding and ResNet-50."""
    here, full = (
        float(rows["cresnet39-0.0983"][macs]) / float(rows["resnet50-0.0983"][macs])
        for macs in ("path_macs", "full_path_macs")
    )
    verdict = "agrees" if max(here, full) <= 0.5 else "agrees at this scale" if here <= 0.5 else "does not agree"
    return verdict, f"{here:.2f} times the MACs; {full:.2f} times at full width and 224x224"


def joint_training() -> tuple[str, str]:
    """What joint training of codec 2 and a classifier gave, against as many steps without, at equal rates."""
    with JOINT.open(newline="", encoding="utf-8") as file:
        found = [row for row in csv.DictReader(file) if (row["data"], row["stage"]) == ("imagenet1000-val", "d")]
    gains = [(-100 * float(row["top1_difference"]), 100 * float(row["top1_difference_se"])) for row in found]
    verdict = "agrees" if all(gain > ERRORS * error for gain, error in gains) else "not decided"
    if any(gain < -ERRORS * error for gain, error in gains):
        verdict = "does not agree"
    shown = ", ".join(
        said(gain, error) + f" at {float(row['bpp']):.2f}" for (gain, error), row in zip(gains, found, strict=True)
    )
    return verdict, f"codec 2, 1000 classes: {shown} bpp ([stages]({link(JOINT.with_name('notes.md'))}))"


def link(path: Path) -> str:
    """A file of the repository, from the page."""
    return f"../{path.relative_to(ROOT).as_posix()}"


def claims(rows: Figures) -> list[Cells]:
    """What the paper claims, and what was measured."""
    judged = [
        ("Equal accuracy from the latent at equal cost of the network (0.0983)", equal(rows, "cresnet51-0.0983")),
        ("The same at 0.330", equal(rows, "cresnet51-0.330")),
        ("The latent is relatively better at lower rates", better_at_low_rates(rows)),
        ("Segmentation from the latent is ahead at the lowest rate", segments_better(rows)),
        ("cResNet-39 halves the cost of decoding and ResNet-50", half_the_cost(rows)),
        ("It is as accurate as ResNet-50 on decoded images", equal(rows, "cresnet39-0.0983")),
        ("Joint training improves accuracy at equal rate", joint_training()),
    ]
    return [{"claim": claim, "measured": text, "result": verdict} for claim, (verdict, text) in judged]


def budgets(rows: Figures) -> list[Cells]:
    """The training budget of each network."""
    return [
        {
            "network": name,
            "images seen in training": f"{int(row['images_seen']):,}",
            "minutes": row["minutes"],
            "parameters": f"{int(row['parameters']):,}",
        }
        for name, row in rows.items()
    ]


def page(rows: Figures) -> str:
    """docs/paper.md."""
    return f"""# The source paper's comparison

<!-- Written by docs/paper.py from results/paper.csv. -->

Torfason et al. ([arXiv 1803.06131](https://arxiv.org/abs/1803.06131)) compare ResNets on decoded images with cResNets
on latents. `dcu` has these networks in one definition, [dcu/nets/resnet.py](../dcu/nets/resnet.py), and repeats the
comparison at a scale that two CPU cores afford: a quarter of the width, images of {SIDE}x{SIDE}, the 20 classes of
`imagenet20`, one seed. Within a comparison, all networks see the same images in the same order, the same views, and as
many steps.

{table(results(rows))}

Top-1 and top-5 are measured on `imagenet20-val` ({int(rows["resnet50-original"]["images"]):,} images), mIoU on
`camvid-val` ({rows["resnet50-d-0.0983"]["images"]} images), with standard errors; bits per pixel are those of whole
files of these images. The paper's results are from ImageNet and PASCAL VOC 2012, at 224x224 and full width, with its
own codec; they were not checked against the PDF.

## Claims

A difference counts from {ERRORS:g} standard errors on, of a paired test on the same images.

{table(claims(rows))}

## Cost

MACs from file to label include the context model and, for decoded images, the synthesis; decoding the original's file
is not counted.

![Top-1 accuracy of each classifier over its MACs from file to label]({PLOT.name})

{table(costs(rows))}

## Setting

- **Codecs**: at 0.0983 bpp the first `codec-0.0983`, from before it was trained with a classifier; `codec-0.330`.
- **Training**: recipe [paper-small](../configs/paper-small.toml). Learning curves:
  [curves.csv]({link(CURVES)}). Minutes are of one core, with the codec's transforms; cresnet39 used the kept crops of
  cresnet51, and with them their latents.
- **Segmentation**: recipe [segmenter](../configs/segmenter.toml), from the weights of the classifier of the same input.
- **Differences from the paper**: 20 classes instead of 1000, from fewer images; a quarter of the width, so that
  decoding is most of the cost; 128x128; CamVid instead of PASCAL VOC; this project's codecs, which need fewer bits for
  equal distortion; one seed, so that the errors are those of the images, not of the training.

{table(budgets(rows))}

`make paper` writes this page from [results/paper.csv](../results/paper.csv). With `DATA=DIRECTORY` it measures the
networks first; the data sets are those of [data.md](data.md). `make paper-train DATA=DIRECTORY` trains those that are
missing, and continues where it was interrupted. With ImageNet and GPUs, use the recipe
[paper](../configs/paper.toml).
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure and write what is asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="directory of imagenet20-*.tar and camvid-*.tar")
    parser.add_argument("--train", action="store_true", help="train the networks that are missing")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="directory of checkpoints")
    parser.add_argument("--minutes", type=float, help="stop after so many minutes of training")
    given = parser.parse_args(arguments)
    if given.train:
        if not given.data:
            parser.error("--train requires --data")
        train(given.data, given.runs, given.minutes)
        return
    if given.data:
        (RESULTS / "paper.csv").write_text(as_csv(list(measured(given.data))), "utf-8")
    if not (RESULTS / "paper.csv").exists():
        parser.error("results/paper.csv is missing: measure it with --data")
    rows = {row["name"]: row for row in read("paper")}
    PLOT.write_bytes(plot(rows))
    PAGE.write_text(page(rows), "utf-8")
    print(table(results(rows)))


if __name__ == "__main__":
    main()
