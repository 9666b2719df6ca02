"""Files and classifiers of codecs of many operating points, on labeled images.

    python measure.py TAR CLASSIFIER:people|machines:Q,Q ...

Center 224x224 of short side 256. Prints CSV: means over whole files with their standard errors; the KL
divergence is from the answers of the RGB network on the original. The last columns are differences to the first
classifier on the same images, at the operating point in the same place.
"""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_msssim import ms_ssim, ssim
from torch.nn import functional as F

from dcu import store
from dcu.codec import codec_of
from dcu.data import LABELLED, Item, items
from dcu.evaluate.classifier import class_numbers, standard_view
from dcu.image import ImageArray, psnr, standard_crop
from dcu.tasks.classify import Classifier
from dcu.tasks.rgb import RgbClassifier

MEASURES = ("bpp", "psnr", "ssim", "ms_ssim", "top1", "top5", "kl")
COMPARED = ("top1", "kl")


def similarities(image: ImageArray, decoded: ImageArray) -> tuple[float, float]:
    """SSIM and MS-SSIM."""
    x, y = (torch.from_numpy(each.copy()).permute(2, 0, 1)[None].float() for each in (image, decoded))
    return float(ssim(x, y, data_range=255)), float(ms_ssim(x, y, data_range=255))


def measured(
    classifier: Classifier, found: list[Item], answers: torch.Tensor, point: int, machines: bool
) -> NDArray[np.float64]:
    """The measures of each image, (n, 7), in the order of ``MEASURES``."""
    codec, rows = classifier.codec, []
    for item, number, answer in zip(found, class_numbers(classifier, found), answers, strict=True):
        image = standard_crop(item.image())
        data = codec.compress(image, quality=point, machines=machines)
        decoded = codec.decode(data)
        (logits,) = classifier.through(classifier.logits, classifier.look([codec.read(data)]))
        better = int((logits >= logits[number]).sum()) - 1
        divergence = float(F.kl_div(logits.log_softmax(0), answer.softmax(0), reduction="sum"))
        bpp = 8 * len(data) / (image.shape[0] * image.shape[1])
        rows.append([bpp, psnr(image, decoded), *similarities(image, decoded), better < 1, better < 5, divergence])
    return np.array(rows, float)


def pairs_of(table: NDArray[np.float64]) -> list[str]:
    """Mean and standard error of each column, as text."""
    errors = table.std(0, ddof=1) / math.sqrt(len(table))
    return [f"{value:.4f}" for pair in zip(table.mean(0), errors, strict=True) for value in pair]


def main(tar: Path, wanted: list[str]) -> None:
    """Print a line for each network and operating point."""
    found = items(tar, LABELLED)
    rgb = RgbClassifier()
    answers = torch.cat([rgb(standard_view(item.image())).logits for item in found])
    writer = csv.writer(sys.stdout, lineterminator="\n")
    names = [*MEASURES, *(f"{measure}_difference" for measure in COMPARED)]
    writer.writerow(
        ["data", "classifier", "codec", "streams", "quality", "images", *(n for m in names for n in (m, f"{m}_se"))]
    )
    first: list[NDArray[np.float64]] = []
    for each in wanted:
        path, streams, qualities = each.split(":")
        model = store.find(path, "classifier")
        classifier = Classifier(model, codec_of(model.identity), engine="pytorch")
        tables = [measured(classifier, found, answers, int(q), streams == "machines") for q in qualities.split(",")]
        first = first or tables
        for point, table, other in zip(qualities.split(","), tables, first, strict=True):
            columns = [MEASURES.index(measure) for measure in COMPARED]
            figures = pairs_of(np.hstack([table, table[:, columns] - other[:, columns]]))
            codec = classifier.codec.fingerprint[:8]
            writer.writerow([tar.stem, Path(path).name, codec, streams, point, len(table), *figures])
            sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
