"""PSNR that principal components of 8x8 blocks allow: `python measure.py WINDOWS.tar IMAGES.tar`."""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dcu.data import items

COUNTS = (12, 24, 36, 48, 64, 96, 128)


def blocks(tar: str) -> list[Tensor]:
    """The 8x8 blocks of each image, (n, 192) float32 in 0..255."""
    images = [torch.from_numpy(np.array(item.image())).permute(2, 0, 1)[None].float() for item in items(Path(tar))]
    whole = [image[..., : image.shape[2] // 8 * 8, : image.shape[3] // 8 * 8] for image in images]
    return [F.pixel_unshuffle(image, 8).permute(0, 2, 3, 1).flatten(0, 2) for image in whole]


def main() -> None:
    """Components of the windows; PSNR by the mean squared error of both sets when only the first ones are kept."""
    windows, others = map(blocks, sys.argv[1:])
    every = torch.cat(windows)
    mean = every.mean(0)
    vectors = torch.linalg.eigh(torch.cov((every - mean).T.double())).eigenvectors.flip(1).float()
    rows = csv.writer(sys.stdout)
    for count in COUNTS:
        basis = vectors[:, :count]
        for name, images in (("windows", windows), ("images", others)):
            errors = [float(((x - mean) - (x - mean) @ basis @ basis.T).square().mean()) for x in images]
            rows.writerow((count, name, round(10 * math.log10(255**2 / np.mean(errors)), 2)))


if __name__ == "__main__":
    main()
