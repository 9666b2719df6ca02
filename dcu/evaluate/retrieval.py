"""Retrieval: how many of the nearest neighbors by embeddings are of the query's class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dcu.cards import DIGITS
from dcu.data import Item
from dcu.errors import InvalidInputError
from dcu.evaluate.baselines import FORMATS, PNG, at_side
from dcu.evaluate.pipeline import Pipeline
from dcu.geometry import CROP
from dcu.image import ImageArray, standard_crop
from dcu.tasks.classify import Classifier
from dcu.tasks.rgb import RgbClassifier

NEAREST = 10


@dataclass(frozen=True)
class Retrieval:
    """precision@10 of a pipeline: its mean over ``count`` queries and standard error; mean ``bytes`` of files.

    ``network`` is that whose files' bytes the pipeline has: its own, or the one that it is compared with.
    """

    network: str | None
    pipeline: str
    count: int
    bytes: float
    precision: float
    precision_se: float


@dataclass
class Entrant:
    """A pipeline from files to embeddings, and those of the images so far."""

    network: str | None
    pipeline: Pipeline
    embed: Callable[[bytes], Tensor]  # a file to (1280,)
    sizes: list[int] = field(default_factory=list)
    vectors: list[Tensor] = field(default_factory=list)

    def enter(self, data: bytes) -> None:
        """Embed a file."""
        self.sizes.append(len(data))
        self.vectors.append(self.embed(data))

    def result(self, labels: Sequence[str]) -> Retrieval:
        """Its metrics, where labels are those of the files."""
        found = precisions(torch.stack(self.vectors), labels)
        error = round(float(found.std() / len(found) ** 0.5), DIGITS)
        mean = round(float(found.mean()), DIGITS)
        size = round(float(np.mean(self.sizes)), 1)
        return Retrieval(self.network, self.pipeline.name, len(found), size, mean, error)


def precisions(vectors: Tensor, labels: Sequence[str]) -> Tensor:
    """(n,) the share of each vector's 10 nearest others, by cosine, that have its label; of vectors (n, d)."""
    units = torch.nn.functional.normalize(vectors.float(), dim=1)
    similarities = (units @ units.T).fill_diagonal_(-torch.inf)
    numbers = torch.tensor([sorted(set(labels)).index(label) for label in labels])
    nearest = similarities.topk(NEAREST, 1).indices
    return (numbers[nearest] == numbers[:, None]).float().mean(1)


def retrieval(
    classifiers: Sequence[Classifier],
    items: Sequence[Item],
    progress: Iterable[Item],
    formats: Mapping[str, Sequence[tuple[str, int]]],
) -> list[Retrieval]:
    """Networks on latents, and the RGB network on other files of the same images and as many bytes each.

    Every image is a query among the others, shown as by the field's protocol (center 224 of a short side of 256).

    Parameters
    ----------
    classifiers : sequence of Classifier
        Networks on latents.
    items : sequence of Item
        Images; their directories are the classes.
    progress : iterable of Item
        The same, one by one.
    formats : mapping
        For each network by name the other formats, (format, side to which images are reduced).

    Raises
    ------
    InvalidInputError
        Fewer than 11 images.
    UnavailableError
        No RGB network.
    """
    if len(items) <= NEAREST:
        raise InvalidInputError(f"{len(items)} images: precision@{NEAREST} needs {NEAREST + 1}")
    rgb = RgbClassifier(classifiers[0].device if classifiers else "cpu")
    original = Entrant(None, Pipeline("original"), lambda data: rgb_embedding(rgb, PNG.decode(data, CROP, CROP)))
    ours = [(each, entrant_of(each), entrants_of(each.name, rgb, formats.get(each.name, ()))) for each in classifiers]
    for item in progress:
        image = standard_crop(item.image())
        original.enter(PNG.encode(image, 1, 1.0))
        for classifier, own, others in ours:
            data = classifier.codec.compress(image)
            own.enter(data)
            for other in others:
                format, side = FORMATS[other.pipeline.source], other.pipeline.side
                other.enter(format.fit(at_side(image, side), len(data)))
    labels = [item.label for item in items]
    found = [entrant for _, own, others in ours for entrant in (own, *others)]
    return [entrant.result(labels) for entrant in (*found, original)]


def entrant_of(classifier: Classifier) -> Entrant:
    """A network on latents."""

    def embed(data: bytes) -> Tensor:
        return classifier.embed(classifier.look([classifier.codec.read(data)]))[0]

    return Entrant(classifier.name, Pipeline("latent", classifier.name), embed)


def entrants_of(network: str, rgb: RgbClassifier, formats: Sequence[tuple[str, int]]) -> list[Entrant]:
    """The RGB network on files of other formats."""

    def by_format(name: str) -> Callable[[bytes], Tensor]:
        return lambda data: rgb_embedding(rgb, FORMATS[name].decode(data, CROP, CROP))

    return [Entrant(network, Pipeline("format", name, side), by_format(name)) for name, side in formats]


@torch.no_grad()
def rgb_embedding(rgb: RgbClassifier, image: ImageArray) -> Tensor:
    """(1280,) the RGB network's pooled features of an image (224, 224, 3) uint8."""
    features = rgb(torch.from_numpy(image.copy())[None].to(rgb.device)).features
    return rgb.network.backbone.pool(features)[0].float().cpu()
