"""Writes docs/codec-2.md from the card of codec-2: its rates, and other formats at equal bytes.

``python -m docs.codec2 --crops`` draws docs/codec-2.jpg first: parts of the photographs of samples/.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import astuple

from PIL import Image, ImageDraw, ImageFont

from dcu import store
from dcu.bench.crops import SIDE, center
from dcu.bench.gallery import best_within
from dcu.bench.points import RATES
from dcu.cards import Card, Difference, Result
from dcu.codec import Codec
from dcu.image import ImageArray, psnr, read_image
from dcu.paths import shipped
from docs.readme import Cells, table
from docs.results import ROOT

NAME = "codec-2"
PAGE, PICTURE = ROOT / "docs" / "codec-2.md", ROOT / "docs" / "codec-2.jpg"
TITLES = {
    "avif": "AVIF",
    "avif-psnr": "AVIF, tuned for PSNR",
    "avif-psnr-444": "AVIF 4:4:4, tuned for PSNR",
    "webp": "WebP",
    "jxl": "JPEG XL",
}
"""Formats as tables call them."""
SETS = {"kodak-odd": "768x512", "imagenet20-val": "224x224"}
"""Data sets, and the size of their images."""
MARGIN, LINE = 4, 16
"""Pixels around a crop, and of its caption."""


def with_error(value: float | None, error: float | None, digits: int) -> str:
    """A value and its standard error; nothing where it was not measured."""
    if value is None:
        return ""
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def curve(card: Card, dataset: str) -> list[Result]:
    """The results at each operating point, by rising rate."""
    results = (result for result in card.results if result.dataset == dataset and not result.machines)
    return sorted(results, key=lambda result: result.quality or 0)


def points(results: Sequence[Result]) -> list[Cells]:
    """Rate and distortion at each operating point."""
    return [
        {
            "quality": str(result.quality),
            "bpp": with_error(result.bpp, result.bpp_se, 3),
            "PSNR (dB)": with_error(result.psnr, result.psnr_se, 2),
            "MS-SSIM": with_error(result.ms_ssim, result.ms_ssim_se, 4),
        }
        for result in results
    ]


def against(results: Sequence[Result]) -> list[Cells]:
    """PSNR less that of other formats at equal bytes."""
    names = [name for name in TITLES if any(name in result.against for result in results)]

    def difference(result: Result, name: str) -> str:
        found = result.against.get(name, Difference()).psnr
        return "" if found is None else f"{found:+.2f}"

    return [
        {"quality": str(result.quality), "bpp": f"{result.bpp:.3f}"}
        | {TITLES[name]: difference(result, name) for name in names}
        for result in results
    ]


def compared(card: Card) -> list[str]:
    """The formats that the codec was compared with."""
    return [name for name in TITLES if any(name in result.against for result in card.results)]


def savings(card: Card) -> list[Cells]:
    """Bjontegaard's mean differences of rate."""
    return [
        {
            "data set": rate.dataset,
            "against": TITLES.get(rate.against, rate.against),
            "at equal PSNR (%)": "" if rate.psnr is None else f"{rate.psnr:+.1f}",
            "at equal MS-SSIM (%)": "" if rate.ms_ssim is None else f"{rate.ms_ssim:+.1f}",
        }
        for dataset in SETS
        for name in TITLES
        for rate in card.bd_rates
        if (rate.dataset, rate.against, rate.machines) == (dataset, name, False)
    ]


def page(card: Card) -> str:
    """docs/codec-2.md."""
    assert card.rates
    assert card.macs_per_pixel
    assert card.training
    cost = [f"{value / 1e3:.1f}" for value in astuple(card.macs_per_pixel)]
    sections = []
    for dataset, size in SETS.items():
        results = curve(card, dataset)
        sections.append(
            f"## {dataset}\n\n{results[0].count} images of {size}, whole files.\n\n{table(points(results))}\n\n"
            f"PSNR less that of other formats at equal bytes, in dB; the other format is downscaled first where that\n"
            f"is better for it. Empty: the format has no file of this size.\n\n{table(against(results))}"
        )
    measured = "\n\n".join(sections)
    return f"""# Codec 2

<!-- Written by docs/codec2.py from the card of codec-2. -->

One set of weights for 64 operating points ([architecture](architecture.md#operating-points)). `--quality` names one,
`--rate` the one whose mean rate over {card.rates.count} images of 224x224 is nearest; `--target-bytes` and
`--target-psnr` choose one for each image.

{card.bytes / 1e6:.1f} MB in float16, trained on {card.training.count:,} images. Analysis, synthesis and context model
take {", ".join(cost[:-1])} and {cost[-1]} thousand MACs per pixel.

![Parts of six photographs: the original, then codec-2 and AVIF in as many bytes at three rates](codec-2.jpg)

Each row: the original, then codec-2 and AVIF (Pillow's default) in as many bytes, at {", ".join(map(str, RATES))} bpp.
Captions state the PSNR of the whole image.

![PSNR and MS-SSIM against bits per pixel: codec-2, AVIF, WebP, JPEG XL, and published curves](codec-2.svg)

On kodak-odd. The curves of BPG and VTM are published means over all 24 Kodak images, and not comparable to the others.

{measured}

## Mean savings

Difference of rate at equal quality (Bjontegaard), negative where codec-2 needs fewer bits.

{table(savings(card))}

Measured by `dcu eval codec DATA --codec codec-2 --baselines {",".join(compared(card))}`, of imagenet20-val with
`--images {curve(card, "imagenet20-val")[0].count}`, and printed from the model card (`dcu models show codec-2`).
"""


def cell(image: ImageArray, caption: str) -> Image.Image:
    """The center of an image above its caption."""
    out = Image.new("RGB", (SIDE + MARGIN, SIDE + MARGIN + LINE), "white")
    out.paste(Image.fromarray(center(image)), (0, 0))
    ImageDraw.Draw(out).text((0, SIDE + 1), caption, "black", ImageFont.load_default(12))
    return out


def crops() -> Image.Image:
    """Six photographs by row: the original, then codec-2 and AVIF in as many bytes at each of ``RATES``."""
    codec = Codec.load(NAME)
    rows = []
    for path in sorted(shipped("samples").glob("*.jpg")):
        image = read_image(path.read_bytes())
        row = [cell(image, path.stem)]
        for rate in RATES:
            data = codec.compress(image, quality=codec.point_of_rate(rate))
            decoded = codec.decode(data)
            _, theirs = best_within("avif", image, len(data))
            row.append(cell(decoded, f"codec-2 {len(data):,} bytes, {psnr(image, decoded):.1f} dB"))
            row.append(cell(theirs, f"AVIF {psnr(image, theirs):.1f} dB"))
        rows.append(row)
    width, height = rows[0][0].size
    out = Image.new("RGB", (width * len(rows[0]), height * len(rows)), "white")
    for top, row in enumerate(rows):
        for left, each in enumerate(row):
            out.paste(each, (left * width, top * height))
    return out


def main() -> None:
    """Write the page, and with --crops its picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", action="store_true", help="draw docs/codec-2.jpg, too")
    if parser.parse_args().crops:
        crops().save(PICTURE, quality=90, subsampling=0)
    PAGE.write_text(page(store.find(NAME, "codec").card), "utf-8")


if __name__ == "__main__":
    main()
