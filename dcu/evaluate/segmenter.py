"""Mean intersection over union on real files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from dcu import store
from dcu.cards import Card
from dcu.codec import Codec
from dcu.data import Pair
from dcu.errors import InvalidInputError, UnavailableError
from dcu.geometry import BLOCK
from dcu.image import ImageArray, pad
from dcu.nets import channels_last
from dcu.nets.resnet import DilatedResNet, shape_of
from dcu.nets.rgb import to_input
from dcu.nets.segmenter import RgbSegmenter
from dcu.tasks.segment import Segmenter, enlarged

BANDS = (4, 8, 16)
"""Distances to a boundary in pixels at which bands end; the last band is all that lies further off."""


def check_labels(pairs: Sequence[Pair], classes: int, void: int) -> NDArray[np.int64]:
    """Read every label map before anything is done with one: how many pixels of each class there are, (classes,).

    Raises
    ------
    InvalidInputError
        A map of another size than its image, or with a number that is neither a class nor void.
    """
    counts = np.zeros(256, np.int64)
    for pair in pairs:
        numbers, size = pair.classes(), pair.image.image().shape[:2]
        name = f"{pair.label.dataset}/{pair.label.name}"
        if numbers.shape != size:
            own, wanted = (f"{shape[1]}x{shape[0]}" for shape in (numbers.shape, size))
            raise InvalidInputError(f"{name}: label map is {own}, its image {wanted}")
        here = np.bincount(numbers.ravel(), minlength=256)
        if out := set(np.nonzero(here)[0].tolist()) - {*range(classes), void}:
            raise InvalidInputError(f"{name}: label {min(out)} is neither one of {classes} classes nor void ({void})")
        counts += here
    return counts[:classes]


def confusion(truth: NDArray[np.uint8], answer: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """(classes, classes): pixels of each true class, by row, and of each answered one; others are void."""
    known = truth < classes
    joint = truth[known].astype(np.int64) * classes + answer[known]
    return np.bincount(joint, minlength=classes**2).reshape(classes, classes)


def intersection_over_union(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU of each class, NaN where a class is neither there nor answered."""
    hit = np.diag(counts).astype(float)
    union = counts.sum(0) + counts.sum(1) - hit
    iou: NDArray[np.float64] = np.divide(hit, union, out=np.full(len(hit), np.nan), where=union > 0)
    return iou


def boundary_distance(truth: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The band of each pixel, (H, W): the first of ``BANDS`` within which another class lies, as a king walks."""
    x = torch.from_numpy(truth.astype(np.float32))[None, None]
    band = np.full(truth.shape, len(BANDS))
    for index, reach in reversed(list(enumerate(BANDS))):
        most, least = (sign * F.max_pool2d(sign * x, 2 * reach + 1, 1, reach) for sign in (1, -1))
        near = (most != least)[0, 0].numpy()
        band[near] = index
    return band


class RgbCounterpart:
    """The same backbone, pyramid and head on pixels: what the latent network is compared with.

    Its card says whether it was trained on a codec's decoded images or on the originals, and is asked about the same.
    """

    def __init__(self, model: store.Model, codec: Codec) -> None:
        self.name, self.codec, self.input, self.void = model.name, codec, model.card.input, model.card.void
        self.labels = tuple(entry.label for entry in model.card.classes)
        tensors = {name: tensor.float() for name, tensor in model.weights().items()}
        try:
            with torch.device("meta"):  # nothing is allocated for what the weights do not hold
                network = self.empty_network(tensors, model.card)
            network.load_state_dict(tensors, assign=True)
        except (LookupError, RuntimeError, ValueError, TypeError) as error:
            raise UnavailableError(f"{model.name}: invalid segmenter weights") from error
        self.network = channels_last(network).eval().requires_grad_(False)

    def empty_network(self, tensors: Mapping[str, torch.Tensor], card: Card) -> RgbSegmenter | DilatedResNet:
        """A network of the shape of these weights."""
        if card.network == "resnet":
            return DilatedResNet(shape_of(tensors, card.stride_in), len(self.labels))
        return RgbSegmenter(len(tensors["pyramid.mix.bias"]), len(self.labels))

    @torch.inference_mode()
    def answer(self, image: ImageArray, data: bytes) -> NDArray[np.uint8]:
        """Segmentation map of an image (H, W, 3), or of what its bitstream decodes to."""
        seen = pad(self.codec.decode(data) if self.input == "decoded" else image, BLOCK)
        logits = self.network(to_input(torch.from_numpy(seen.copy())[None]))
        classes = enlarged(logits).argmax(1)[0].to(torch.uint8).numpy()
        return classes[: image.shape[0], : image.shape[1]]


class LatentAnswer:
    """A segmenter as the evaluation asks it."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.codec, self.labels, self.void, self.segmenter = (
            segmenter.codec,
            segmenter.labels,
            segmenter.void,
            segmenter,
        )

    def answer(self, image: ImageArray, data: bytes) -> NDArray[np.uint8]:
        """Segmentation map from the bitstream."""
        return self.segmenter(data).classes


@dataclass(frozen=True)
class SegmenterMetrics:
    """Metrics on ``count`` files, over all pixels that are not void; None where there are none.

    ``miou``, with its standard error (:func:`miou_error`), and ``pixel_accuracy`` as fractions of 1; ``iou`` of each
    class; ``by_distance``: mIoU of the pixels within so many pixels of a boundary, and further off; mean ``bpp``.
    """

    count: int
    miou: float | None
    miou_se: float | None
    iou: dict[str, float | None]
    pixel_accuracy: float | None
    by_distance: dict[str, float | None]
    bpp: float


def evaluate(
    segmenter: RgbCounterpart | LatentAnswer,
    pairs: Sequence[Pair],
    progress: Iterable[Pair],
    quality: int | None = None,
    machines: bool = False,
) -> SegmenterMetrics:
    """Metrics of a data set: each image compressed as it is to a whole file, read back, segmented.

    ``quality``: the codec's operating point, by default its own; ``machines``: of streams for machines.

    Raises
    ------
    InvalidInputError
        See :func:`check_labels`.
    """
    classes = len(segmenter.labels)
    check_labels(pairs, classes, segmenter.void)
    bands = np.zeros((len(BANDS) + 1, classes, classes), np.int64)
    bits, images = 0.0, []
    for pair in progress:
        image, truth = pair.image.image(), pair.classes()
        data = segmenter.codec.compress(image, quality=quality, machines=machines)
        bits += 8 * len(data) / truth.size
        answer, band = segmenter.answer(image, data), boundary_distance(truth)
        images.append(confusion(truth, answer, classes))
        for index in range(len(bands)):
            bands[index] += confusion(np.where(band == index, truth, 255).astype(np.uint8), answer, classes)
    counts = bands.sum(0)
    iou = intersection_over_union(counts)
    lows = (0, *BANDS)
    names = [f"{low + 1}-{high}" for low, high in zip(lows, BANDS, strict=False)] + [f"over {BANDS[-1]}"]
    return SegmenterMetrics(
        count=len(pairs),
        miou=rounded(np.nanmean(iou)),
        miou_se=rounded(miou_error(images)),
        iou={label: rounded(value) for label, value in zip(segmenter.labels, iou, strict=True)},
        pixel_accuracy=rounded(np.trace(counts) / counts.sum()),
        by_distance={
            name: rounded(np.nanmean(intersection_over_union(band))) for name, band in zip(names, bands, strict=True)
        },
        bpp=round(bits / len(pairs), 5),
    )


def miou_error(images: Sequence[NDArray[np.int64]]) -> float:
    """Standard error of the mIoU over the confusion matrices of n images, by the jackknife; NaN of one image.

    sqrt((n - 1) / n sum over i of (m(i) - mean of all m)^2), m(i) the mIoU without image i. Frames of one video are
    not independent: then it is a lower bound.
    """
    count, total = len(images), np.sum(images, 0)
    if count < 2:
        return math.nan
    without = np.array([np.nanmean(intersection_over_union(total - image)) for image in images])
    return float(np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum()))


def rounded(value: Any) -> float | None:
    """Five digits; None for what does not exist."""
    return None if np.isnan(value) else round(float(value), 5)
