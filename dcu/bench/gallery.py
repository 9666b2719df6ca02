"""The report's images: each original beside images decoded from dcu and other formats of equal size, with labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from PIL import Image

from dcu import store
from dcu.bench.points import OperatingPoint
from dcu.codec import Codec
from dcu.errors import UnavailableError
from dcu.evaluate.baselines import FORMATS, SCALES, reduced
from dcu.evaluate.classifier import standard_view
from dcu.image import ImageArray, jpeg_url, psnr
from dcu.labels import IMAGENET, label_set
from dcu.tasks.classify import Classifier
from dcu.tasks.rgb import RgbClassifier
from dcu.tasks.segment import Segmenter

TOP = 3
SHOWN_SIDE = 384
"""Pixels of the longer side of an image on the page: the report as PDF stays below 5 MB."""
Names = list[tuple[str, float]]
"""The most probable classes and their probabilities."""


@dataclass(frozen=True)
class Shown:
    """An image of the gallery, ready for a page."""

    source: str  # data: URL
    alt: str
    caption: str
    names: Names


def show(image: ImageArray, alt: str, caption: str, names: Names) -> Shown:
    """An image as a small JPEG file, for the page only."""
    small = Image.fromarray(image)
    small.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    return Shown(jpeg_url(small, quality=85, optimize=True), alt, caption, names)


def best_within(format: str, image: ImageArray, most: int) -> tuple[bytes, ImageArray]:
    """The file of a format within so many bytes that looks most like the image, reduced first where that is better.

    The smallest file where none fits.
    """
    height, width = image.shape[:2]
    files = []
    for scale in SCALES:
        data = FORMATS[format].fit(reduced(image, scale), most)
        decoded = FORMATS[format].decode(data, width, height)
        files.append((len(data) <= most, psnr(image, decoded) if len(data) <= most else -len(data), data, decoded))
    _, _, data, decoded = max(files, key=lambda file: file[:2])
    return data, decoded


def rgb_names() -> Callable[[ImageArray], Names]:
    """What the RGB network says of an image; nothing where it is not installed."""
    try:
        network = RgbClassifier()
    except UnavailableError:
        return lambda image: []
    labels = label_set(IMAGENET)

    def names(image: ImageArray) -> Names:
        best = network(standard_view(image)).logits[0].softmax(0).topk(TOP)
        return [(labels[i].label, p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]

    return names


def gallery(
    images: dict[str, ImageArray], points: Sequence[OperatingPoint], formats: Sequence[str]
) -> list[list[Shown]]:
    """A row for each image and operating point: original, dcu, other formats in as many bytes; classes if known."""
    names, rows, readers = rgb_names(), [], []
    for point in points:
        codec = Codec.from_model(point.model)
        named, mapped = (store.default_network(kind, codec.fingerprint) for kind in ("classifier", "segmenter"))
        classifiers = [Classifier(named, codec)] if named else []
        readers.append((point, codec, classifiers, [Segmenter(mapped, codec)] if mapped else []))
    for title, image in images.items():
        for point, codec, classifiers, segmenters in readers:
            data = codec.compress(image, quality=point.quality)
            decoded = codec.decode(data)
            ours = [(p.label, p.probability) for each in classifiers for p in each(data, TOP).predictions]
            described = partial(caption, image)
            row = [
                show(image, f"{title}, the original", "original", names(image)),
                show(decoded, f"{title} after {point.name}", described(point.name, len(data), decoded), ours),
            ]
            for format in formats:
                theirs, rebuilt = best_within(format, image, len(data))
                said = described(format, len(theirs), rebuilt)
                row.append(show(rebuilt, f"{title} after {format}", said, names(rebuilt)))
            for segmenter in segmenters:
                over = segmenter(data).over(decoded)
                row.append(show(over, f"{title}, its classes by {segmenter.name}", segmenter.name, []))
            rows.append(row)
    return rows


def caption(image: ImageArray, name: str, size: int, decoded: ImageArray) -> str:
    """What stands under an image."""
    return f"{name}: {size} bytes, {psnr(image, decoded):.1f} dB"
