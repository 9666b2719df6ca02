"""Published rate-distortion curves of other codecs, to be drawn beside measured ones, never compared in numbers.

They are means over all 24 Kodak images by CompressAI (InterDigitalInc/CompressAI at commit 869a9f5d, folder
results/image/kodak), of which published.csv keeps bpp, PSNR and MS-SSIM of RGB, rounded.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class PublishedPoint:
    """One point of a published curve: means over ``images`` images, PSNR in dB; ``source`` is the file it is from."""

    name: str
    images: int
    bpp: float
    psnr: float
    ms_ssim: float
    source: str


def published_points() -> list[PublishedPoint]:
    """The points of all published curves, each curve by rising bpp."""
    text = resources.files("dcu.evaluate").joinpath("published.csv").read_text("utf-8")
    return [
        PublishedPoint(
            row["name"], int(row["images"]), float(row["bpp"]), float(row["psnr"]), float(row["ms_ssim"]), row["source"]
        )
        for row in csv.DictReader(text.splitlines())
    ]
