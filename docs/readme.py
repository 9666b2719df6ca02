"""Writes results/ from the cards, and the tables of README.md and docs/models.md from results/ and docs/bench.jsonl.

`make readme`, or ``python -m docs.readme``. A table stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``; a page has
those of ``TABLES`` that it wants.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

from dcu import store
from dcu.bench.points import RATES
from dcu.bench.table import Row, fastest
from dcu.geometry import CROP
from docs import results
from docs.results import ROOT, read

DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", DOCS / "models.md", DOCS / "joint-training.md", DOCS / "guide" / "search.md")
ORIGINAL = "RGB on the original"
KINDS = ("people", "machines")
"""Of streams."""
Cells = dict[str, str]


def table(rows: Sequence[Cells]) -> str:
    """A table of Markdown; the columns are those of the first row."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(text: str, digits: int, factor: float = 1.0, sign: bool = False) -> str:
    """A number of a CSV file, rounded; nothing where there is none."""
    return f"{factor * float(text):{'+' if sign else ''},.{digits}f}" if text else ""


def with_error(row: dict[str, str], column: str, digits: int, factor: float = 1.0) -> str:
    """A value and its standard error."""
    value, error = (number(row.get(name, ""), digits, factor) for name in (column, f"{column}_se"))
    return f"{value} ± {error}" if error else value


def pipeline(row: dict[str, str], own: str) -> str:
    """A pipeline's name, in bold and with its operating point where it is the network of column ``own``."""
    name = row["pipeline"]
    return f"**{at_point(name, row)}**" if name == row[own] else name


def by_name(name: str) -> dict[str, dict[str, str]]:
    """The rows of results/models.csv by model."""
    return {row["name"]: row for row in read("models") if row["kind"] == name}


def on(name: str, dataset: str, /, **wanted: str) -> dict[str, dict[str, str]]:
    """The rows of a file of results/ on a data set, by model and operating point."""
    rows = (row for row in read(name) if row["dataset"] == dataset)
    return {at_point(row["name"], row): row for row in rows if all(row[key] == value for key, value in wanted.items())}


def at_point(name: str, row: dict[str, str]) -> str:
    """A name with the operating point that a row is about, of codecs of many."""
    kind = " for machines" if row.get("machines") == "True" else ""
    return f"{name}, quality {row['quality']}{kind}" if row.get("quality") else name


def codecs() -> list[Cells]:
    """Rate and distortion."""
    kodak, imagenet = (on("codecs", name, quality="") for name in ("kodak-odd", "imagenet20-val"))
    return [
        {
            "name": name,
            "Kodak bpp": with_error(kodak[name], "bpp", 3),
            "PSNR (dB)": with_error(kodak[name], "psnr", 2),
            "MS-SSIM": with_error(kodak[name], "ms_ssim", 4),
            "ImageNet bpp": with_error(imagenet[name], "bpp", 4),
            "PSNR (dB) ": with_error(imagenet[name], "psnr", 2),
            "MS-SSIM ": with_error(imagenet[name], "ms_ssim", 4),
            "k MACs per pixel: analysis, synthesis, context": ", ".join(
                number(model[f"{part}_macs_per_pixel"], 1, 1e-3) for part in ("analysis", "synthesis", "context")
            ),
            "MB": number(model["bytes"], 1, 1e-6),
            "training images": number(model["training_images"], 0),
        }
        for name, model in by_name("codec").items()
        if name in kodak
    ]


def against() -> list[Cells]:
    """Other formats at equal bits."""
    return [
        {"name": name}
        | {
            f"{title}, {measure}": number(row[f"{title.lower()}_{column}"], digits, sign=True)
            for title in ("WebP", "AVIF")
            for measure, column, digits in (("PSNR (dB)", "psnr", 2), ("MS-SSIM", "ms_ssim", 4))
        }
        for name, row in on("codecs", "kodak-odd", quality="").items()
    ]


def classifiers() -> list[Cells]:
    """Accuracy, agreement and cost."""
    breadth, twenty = (on("classifiers", name, engine="pytorch") for name in ("imagenet1000-val", "imagenet20-val"))
    caltech, eight = on("classifiers", "caltech101-val"), on("classifiers", "imagenet1000-val", engine="int8")
    models = by_name("classifier")
    return [
        {
            "name": name,
            "bpp (imagenet1000-val)": number(breadth[name]["bpp"], 4),
            "top-1 (%)": with_error(breadth[name], "top1", 1, 100),
            "top-5 (%)": with_error(breadth[name], "top5", 1, 100),
            **({"int8 top-1 (%)": with_error(eight.get(name, {}), "top1", 1, 100)} if eight else {}),
            "imagenet20-val top-1 (%)": with_error(twenty.get(name, {}), "top1", 1, 100),
            "top-5 (%) ": with_error(twenty.get(name, {}), "top5", 1, 100),
            "agreement, caltech101-val (%)": with_error(caltech.get(name, {}), "agreement", 1, 100),
            "ECE (both)": ", ".join(number(each[name]["ece"], 3) for each in (breadth, twenty) if name in each),
            "M MACs": f"{number(model['macs'], 0, 1e-6)} + {(float(row['macs']) - float(model['macs'])) / 1e6:.0f}",
            "MB": number(model["bytes"], 1, 1e-6),
            "training images": number(model["training_images"], 0),
        }
        for name, row, model in ((name, row, models[row["name"]]) for name, row in breadth.items())
    ]


def segmenters() -> list[Cells]:
    """Mean intersection over union."""
    validation, test = on("segmenters", "camvid-val"), on("segmenters", "camvid-test")
    models = by_name("segmenter")
    return [
        {
            "name": name,
            "bpp (camvid-val)": number(row["bpp"], 4),
            "mIoU (%)": with_error(row, "miou", 1, 100),
            "pixel accuracy (%)": number(row["pixel_accuracy"], 1, 100),
            "camvid-test mIoU (%)": with_error(test.get(name, {}), "miou", 1, 100),
            "pixel accuracy (%) ": number(test.get(name, {}).get("pixel_accuracy", ""), 1, 100),
            "G MACs (480x360)": number(model["macs"], 1, 1e-9),
            "MB": number(model["bytes"], 1, 1e-6),
            "training images": number(model["training_images"], 0),
        }
        for name, row, model in ((name, row, models[row["name"]]) for name, row in validation.items())
    ]


def iou() -> list[Cells]:
    """Intersection over union of each class."""
    rows = [(at_point(row["name"], row), row) for row in read("classes") if row["dataset"] == "camvid-val"]
    return [
        {"name": name} | {row["label"]: number(row["iou"], 1, 100) for each, row in rows if each == name}
        for name in dict.fromkeys(name for name, _ in rows)
    ]


def compression() -> list[Cells]:
    """The README's table of the default codec: of each named rate the measured operating point nearest to it."""
    people, _ = by_streams("codecs", "kodak-odd")
    rows = (min(people, key=lambda row: abs(math.log(float(row["bpp"]) / rate))) for rate in RATES)
    return [
        {
            "codec": at_point(row["name"], row),
            "bpp": number(row["bpp"], 3),
            "PSNR (dB)": with_error(row, "psnr", 2),
            "MS-SSIM": with_error(row, "ms_ssim", 4),
            "PSNR against WebP (dB)": number(row["webp_psnr"], 2, sign=True),
            "against AVIF (dB)": number(row["avif_psnr"], 2, sign=True),
        }
        for row in rows
    ]


def comparison() -> list[Cells]:
    """The README's table of the default classifier: its files of both kinds beside the best format of equal size."""
    rows = [row for row in read("baselines") if row["classifier"] == store.DEFAULTS["classifier"]]
    qualities = dict.fromkeys(row["quality"] for row in rows)
    machines = by_streams("classifiers", "imagenet1000-val", engine="pytorch")[1]
    chosen = []
    for quality, row in zip(qualities, machines, strict=True):
        own, *others = (row for row in rows if row["quality"] == quality and row["pipeline"] != ORIGINAL)
        formats = [row for row in others if "codec-" not in row["pipeline"]]
        best = max(formats, key=lambda row: float(row["top1"]))
        chosen += [beside(own), beside(row | {"pipeline": row["name"], "classifier": row["name"]}), beside(best)]
    return [*chosen, beside(next(row for row in rows if row["pipeline"] == ORIGINAL))]


def by_streams(name: str, dataset: str, **wanted: str) -> list[list[dict[str, str]]]:
    """The rows of a file of results/ that are about the default models: of streams for people, then for machines."""
    rows = [row for row in on(name, dataset, **wanted).values() if row["name"] in store.DEFAULTS.values()]
    return [[row for row in rows if row["machines"] == machines] for machines in ("False", "True")]


def streams() -> list[Cells]:
    """Both kinds of stream at the named rates: what they cost, and what networks read from them."""
    classified = by_streams("classifiers", "imagenet1000-val", engine="pytorch")
    segmented = by_streams("segmenters", "camvid-val")
    return [
        {"rate": f"{rate:g}", "streams for": title} | accuracy(classified[kind][place], segmented[kind][place])
        for place, rate in enumerate(RATES)
        for kind, title in enumerate(KINDS)
    ]


def accuracy(classified: dict[str, str], segmented: dict[str, str]) -> Cells:
    """The default networks' accuracy at an operating point."""
    return {
        "bytes (imagenet1000-val)": number(classified["bytes"], 0),
        "top-1 (%)": with_error(classified, "top1", 1, 100),
        "top-5 (%)": with_error(classified, "top5", 1, 100),
        "bpp (camvid-val)": number(segmented["bpp"], 3),
        "mIoU (%)": with_error(segmented, "miou", 1, 100),
    }


def distortion() -> list[Cells]:
    """Both kinds of stream at each measured operating point."""
    pairs = zip(*by_streams("codecs", "imagenet20-val"), strict=True)
    return [
        {"quality": people["quality"]}
        | {
            f"{title}: {measure}": with_error(row, column, digits)
            for title, row in zip(KINDS, (people, machines), strict=True)
            for measure, column, digits in (("bpp", "bpp", 3), ("PSNR (dB)", "psnr", 2), ("MS-SSIM", "ms_ssim", 4))
        }
        for people, machines in pairs
    ]


def segmentation() -> list[Cells]:
    """The README's table of the default segmenter."""
    people, _ = by_streams("segmenters", "camvid-val")
    return [
        {
            "segmenter": at_point(row["name"], row),
            "bpp": number(row["bpp"], 3),
            "mIoU (%)": with_error(row, "miou", 1, 100),
        }
        for row in people
    ]


def baselines() -> list[Cells]:
    """Pipelines from files of about as many bytes to labels."""
    return [beside(row) for row in read("baselines")]


def beside(row: dict[str, str]) -> Cells:
    """A pipeline to a label; those of dcu's classifiers in bold."""
    return {
        "from file to label": pipeline(row, "classifier"),
        "bytes": number(row["bytes"] or str(float(row["bpp"]) * CROP**2 / 8), 0),
        "top-1 (%)": with_error(row, "top1", 1, 100),
        "top-5 (%)": with_error(row, "top5", 1, 100),
        "M MACs": number(row["macs"], 0, 1e-6),
    }


def search() -> list[Cells]:
    """Time, memory and recall of search, by docs/search.py."""
    return [
        {
            "step": f"{row['step']}, {int(row['vectors']):,} vectors",
            "seconds": row["seconds"],
            "peak memory (MiB)": number(row["peak_mib"], 0),
            "index (MB)": number(row["bytes"], 0, 1e-6),
            "recall@10": number(row["recall_at_10"], 3),
        }
        for row in read("search")
    ]


def retrieval() -> list[Cells]:
    """precision@10 of embeddings, by docs/search.py --retrieval."""
    return [
        {
            "data": row["dataset"],
            "from file to embedding": pipeline(row, "network"),
            "bytes": number(row["bytes"], 0),
            "precision@10 (%)": with_error(row, "precision", 1, 100),
        }
        for row in read("retrieval")
    ]


def latency() -> list[Cells]:
    """Milliseconds from file to label or map, each pipeline on its fastest engine, by `dcu bench --json`."""
    lines = map(json.loads, (DOCS / "bench.jsonl").read_text("utf-8").splitlines())
    bench = [Row(**line) for line in lines if "engine" in line]
    batches = sorted({row.batch for row in bench})
    rows = []
    for name in dict.fromkeys(row.name for row in bench):
        cells = {"from file to label or segmentation map": name}
        for batch in batches:
            best = fastest(bench, batch)[name]
            parts = f"{best.decode_ms:.1f} + {best.network_ms:.1f}"
            speedup = "" if best.speedup is None else f"{best.speedup:.2f}"
            cells[f"ms at batch {batch} (decode + network)"] = f"{best.ms:.1f} ({parts}), {best.engine}"
            cells[f"speed-up at batch {batch}"] = speedup
        rows.append(cells)
    return rows


TABLES: dict[str, Callable[[], list[Cells]]] = {
    make.__name__: make
    for make in (
        *(codecs, against, classifiers, segmenters, iou),
        *(compression, comparison, segmentation, baselines, latency, search, retrieval, streams, distortion),
    )
}
"""Tables by their names in pages."""


def filled(text: str) -> str:
    """A page with its tables written anew, each between its two comments."""
    for name, make in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, found, rest = text.partition(begin)
        if found:
            text = before + begin + table(make()) + "\n" + end + rest.partition(end)[2]
    return text


if __name__ == "__main__":
    results.write()
    for page in PAGES:
        page.write_text(filled(page.read_text("utf-8")), "utf-8")
