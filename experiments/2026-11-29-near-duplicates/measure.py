"""Measures the similarity of near-duplicates: images beside altered copies, and beside each other.

``PYTHONPATH=. python experiments/2026-11-29-near-duplicates/measure.py DATA --images N`` writes results.csv beside it.
DATA are held-out training images, never a validation set.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from dcu.data import dataset_name, items, shown
from dcu.image import ImageArray
from dcu.search.index import NEAR_DUPLICATE
from dcu.store import codec_of_rate, find_network
from dcu.tasks.classify import Classifier
from docs.results import Row, as_csv

PLACE = Path(__file__).with_name("results.csv")
RATES = (0.0983, 0.330, 0.635)
THRESHOLDS = (0.8, 0.85, 0.9, 0.925, 0.95, 0.975)


def jpeg(image: Image.Image) -> Image.Image:
    """A JPEG file of quality 50."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=50)
    return Image.open(buffer).convert("RGB")


def half(image: Image.Image) -> Image.Image:
    """Half as wide and high, enlarged again."""
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS).resize(image.size)


def cropped(image: Image.Image) -> Image.Image:
    """Without a margin of 5 % on each side."""
    x, y = image.width // 20, image.height // 20
    return image.crop((x, y, image.width - x, image.height - y))


ALTERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 50": jpeg,
    "half size": half,
    "crop of 90 %": cropped,
    "brighter by 20 %": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "gray": lambda image: ImageOps.grayscale(image).convert("RGB"),
    "mirrored": ImageOps.mirror,
}


def embedded(classifier: Classifier, images: list[ImageArray]) -> NDArray[np.float32]:
    """Unit vectors (n, 1280) from bitstreams of images."""
    streams = [classifier.codec.read(classifier.codec.compress(image)) for image in images]
    found: NDArray[np.float32] = classifier.embed(classifier.look(streams)).numpy()
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def measured(data: Path, most: int) -> Iterator[Row]:
    """A row per network and kind of pair: quantiles of the cosine similarity, and the shares at each threshold."""
    images = [item.image() for item in shown(items(data), most)]
    for rate in RATES:
        classifier = Classifier.load(find_network("classifier", codec_of_rate(rate).fingerprint).name, engine="pytorch")
        own = embedded(classifier, images)
        pairs = (own @ own.T)[np.triu_indices(len(own), 1)]
        kinds = {"different images": pairs}
        for name, alter in ALTERED.items():
            copies = [np.asarray(alter(Image.fromarray(image))) for image in images]
            kinds[name] = (own * embedded(classifier, copies)).sum(1)
        for name, found in kinds.items():
            row: Row = {"network": classifier.name, "dataset": dataset_name(data), "pair": name, "count": len(found)}
            row |= {f"p{q:g}": round(float(np.percentile(found, q)), 4) for q in (1, 50, 99, 99.9)}
            yield row | {f"at_least_{t}": round(float((found >= t).mean()), 6) for t in THRESHOLDS}


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="directory or tar of images")
    parser.add_argument("--images", type=int, default=300)
    given = parser.parse_args()
    assert NEAR_DUPLICATE in THRESHOLDS
    PLACE.write_text(as_csv(list(measured(given.data, given.images))), "utf-8")


if __name__ == "__main__":
    main()
