"""Files and classifiers of codecs of many operating points, on labeled images.

    python measure.py TAR EVERY CLASSIFIER:people|machines:Q,Q ...

Of the images every so many, center 224x224 of short side 256. Prints CSV: means over whole files, then standard errors.
"""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import numpy as np
import torch
from pytorch_msssim import ms_ssim, ssim

from dcu import store
from dcu.codec import codec_of
from dcu.data import LABELLED, Item, items
from dcu.evaluate.classifier import class_numbers
from dcu.image import ImageArray, psnr, standard_crop
from dcu.tasks.classify import Classifier

MEASURES = ("bpp", "psnr", "ssim", "ms_ssim", "top1", "top5")


def similarities(image: ImageArray, decoded: ImageArray) -> tuple[float, float]:
    """SSIM and MS-SSIM."""
    x, y = (torch.from_numpy(each.copy()).permute(2, 0, 1)[None].float() for each in (image, decoded))
    return float(ssim(x, y, data_range=255)), float(ms_ssim(x, y, data_range=255))


def measured(classifier: Classifier, found: list[Item], point: int, machines: bool) -> list[list[float]]:
    """The measures of each image, in the order of ``MEASURES``."""
    codec, rows = classifier.codec, []
    for item, number in zip(found, class_numbers(classifier, found), strict=True):
        image = standard_crop(item.image())
        data = codec.compress(image, quality=point, machines=machines)
        decoded = codec.decode(data)
        (logits,) = classifier.through(classifier.logits, classifier.look([codec.read(data)]))
        better = int((logits >= logits[number]).sum()) - 1
        bpp = 8 * len(data) / (image.shape[0] * image.shape[1])
        rows.append([bpp, psnr(image, decoded), *similarities(image, decoded), better < 1, better < 5])
    return rows


def main(tar: Path, every: int, wanted: list[str]) -> None:
    """Print a line for each network and operating point."""
    found = items(tar, LABELLED)[::every]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    columns = [name for measure in MEASURES for name in (measure, f"{measure}_se")]
    writer.writerow(["classifier", "codec", "streams", "quality", "images", *columns])
    for each in wanted:
        name, streams, qualities = each.split(":")
        model, machines = store.find(name, "classifier"), streams == "machines"
        classifier = Classifier(model, codec_of(model.identity), engine="pytorch")
        for point in map(int, qualities.split(",")):
            table = np.array(measured(classifier, found, point, machines), float)
            errors = table.std(0, ddof=1) / math.sqrt(len(table))
            figures = [f"{value:.4f}" for pair in zip(table.mean(0), errors, strict=True) for value in pair]
            codec = classifier.codec.fingerprint[:8]
            writer.writerow([name, codec, streams, point, len(table), *figures])
            sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
