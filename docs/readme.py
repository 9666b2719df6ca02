"""Writes the README's tables: metrics from the cards, times from bench.jsonl beside this file (`make readme`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dcu.bench.table import fastest

ROOT = Path(__file__).resolve().parent.parent
DATASETS = {
    "kodak-odd": "`kodak-odd` (768x512)",
    "imagenet20-val": "`imagenet20-val` (224x224, 20 classes, answers among 1000)",
    "imagenet1000-val": "`imagenet1000-val` (224x224, 500 classes, answers among 1000)",
    "caltech101-val": "`caltech101-val` (right is what the RGB network says of the original)",
    "camvid-val": "`camvid-val` (480x360, 11 classes)",
}
FORMATS = {"webp": "WebP", "avif": "AVIF"}
Cards = Sequence[dict[str, Any]]
Row = Sequence[str]


def cards() -> list[dict[str, Any]]:
    """What the shipped models say of themselves."""
    return [json.loads(path.read_text()) for path in sorted((ROOT / "models").glob("*/card.json"))]


def table(head: Row, rows: Sequence[Row]) -> str:
    """A table of Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def percent(value: float | None) -> str:
    """A fraction of 1, as people read it; nothing where it is not known."""
    return "" if value is None else f"{100 * value:.1f} %"


def of_kind(every: Cards, kind: str, dataset: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(card, metrics) of each model of a kind that was measured on a data set."""
    return [(c, f) for c in every if c["kind"] == kind for f in c["figures"] if f["dataset"] == dataset]


def images(every: Cards) -> str:
    """How good the images are, at each rate; beside other formats at the same bits where a card says it."""
    rows = []
    for dataset in ("kodak-odd", "imagenet20-val"):
        for card, metrics in of_kind(every, "codec", dataset):
            against = metrics.get("against", {})
            beside = [
                f"{against[f]['psnr']:+.2f} dB, {against[f]['ms_ssim']:+.4f}" if f in against else "" for f in FORMATS
            ]
            row = [DATASETS[dataset], str(metrics["count"]), card["name"], f"{metrics['bpp']:.4f}"]
            rows.append([*row, f"{metrics['psnr']:.2f} dB", f"{metrics['ms_ssim']:.4f}", *beside])
    beside = [f"against {name}" for name in FORMATS.values()]
    return table(["data", "pictures", "codec", "bpp", "PSNR", "MS-SSIM", *beside], rows)


def names(every: Cards) -> str:
    """How often the first and the first five names are right."""
    rows = [
        [DATASETS[d], f"{f['count']:,}", c["name"], f"{f['bpp']:.4f}", percent(f["top1"]), percent(f["top5"])]
        for d in ("imagenet20-val", "imagenet1000-val")
        for c, f in of_kind(every, "classifier", d)
    ]
    rows += [
        [DATASETS["caltech101-val"], f"{f['count']:,}", c["name"], f"{f['bpp']:.4f}", percent(f["agreement"]), ""]
        for c, f in of_kind(every, "classifier", "caltech101-val")
        if "agreement" in f
    ]
    return table(["data", "pictures", "network", "bpp", "top-1", "top-5"], rows)


def masks(every: Cards) -> str:
    """Mean intersection over union of the segmenters."""
    rows = [
        [DATASETS["camvid-val"], str(f["count"]), c["name"], f"{f['bpp']:.4f}", percent(f["miou"])]
        for c, f in of_kind(every, "segmenter", "camvid-val")
    ]
    return table(["data", "pictures", "network", "bpp", "mIoU"], rows)


def baselines(every: Cards) -> str:
    """Ways to a name from as many bytes."""
    rows = []
    for card in every:
        for row in card.get("rivals", {}).get("rows", []):
            name = f"**{row['name']}**" if row["name"] == card["name"] else row["name"]
            macs = f"{row['macs'] / 1e6:,.0f}"
            rows.append([name, f"{row['bytes']:,.0f}", percent(row["top1"]), percent(row["top5"]), macs])
    return table(["from file to label", "bytes", "top-1", "top-5", "M MACs"], rows)


def times(bench: Sequence[dict[str, Any]]) -> str:
    """Milliseconds from file to label, each way on its fastest engine."""
    rows = []
    batches = sorted({row["batch"] for row in bench})
    for name in dict.fromkeys(row["name"] for row in bench):
        cells = []
        for batch in batches:
            best = fastest(bench, batch)[name]
            parts = f"{best['decode_ms']:.1f} + {best['network_ms']:.1f}"
            speedup = "" if best["speedup"] is None else f"{best['speedup']:.2f}"
            cells += [f"{best['ms']:.1f} ({parts}), {best['engine']}", speedup]
        rows.append([name, *cells])
    head = [cell for batch in batches for cell in (f"ms at batch {batch} (decode + network)", "speed-up")]
    return table(["from file to label or mask", *head], rows)


def filled(text: str, every: Cards, bench: Sequence[dict[str, Any]]) -> str:
    """The README with its tables written anew, each between its two comments."""
    made = {
        "pictures": images(every),
        "names": names(every),
        "masks": masks(every),
        "rivals": baselines(every),
        "times": times(bench),
    }
    for name, content in made.items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
        before, _, rest = text.partition(begin)
        text = before + begin + content + end + rest.partition(end)[2]
    return text


def bench_rows() -> list[dict[str, Any]]:
    """What `dcu bench --json` printed last time."""
    return [json.loads(line) for line in (ROOT / "docs" / "bench.jsonl").read_text().splitlines()]


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text(), cards(), bench_rows()))
