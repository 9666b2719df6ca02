"""Top-1 and top-5 on real files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import torch

from dcu.data import Item
from dcu.errors import BrokenInputError
from dcu.image import field_crop
from dcu.tasks.classify import Classifier

SIDE, SHORT = 224, 256
BATCH = 32


def class_numbers(classifier: Classifier, items: Sequence[Item]) -> list[int]:
    """The class of each item by the folder that holds it: a WNID, or a label of the network's.

    Raises
    ------
    BrokenInputError
        A folder that is no class of the network.
    """
    numbers = {entry.get("wnid") or entry["label"]: index for index, entry in enumerate(classifier.labels)}
    if missing := {item.label for item in items} - set(numbers):
        raise BrokenInputError(f"{min(missing)!r}: a folder that is no class of {classifier.name}")
    return [numbers[item.label] for item in items]


def evaluate(classifier: Classifier, items: Sequence[Item], progress: Iterable[Item], native: bool) -> dict[str, Any]:
    """The field's protocol: centre 224 of short side 256, compressed to a whole file, read back, classified.

    With ``native`` the picture is compressed as it is.

    Returns
    -------
    dict
        ``count``; ``top1``, ``top5`` as fractions of 1; mean ``bpp`` of the files.
    """
    numbers = class_numbers(classifier, items)
    bits = first = fifth = 0.0
    remaining, done = iter(progress), 0
    while batch := list(islice(remaining, BATCH)):
        views = []
        for item in batch:
            picture = item.picture()
            picture = picture if native else field_crop(picture, SIDE, SHORT)
            data = classifier.codec.compress(picture)
            bits += 8 * len(data) / (picture.shape[0] * picture.shape[1])
            views.append(classifier.look(classifier.codec.read(data)))
        probabilities = classifier.probabilities(views)
        best = probabilities.topk(min(5, probabilities.shape[1]), dim=1).indices
        hits = best == torch.tensor(numbers[done : done + len(batch)])[:, None]
        first, fifth, done = first + float(hits[:, 0].sum()), fifth + float(hits.any(1).sum()), done + len(batch)
    return {
        "count": done,
        "top1": round(first / done, 5),
        "top5": round(fifth / done, 5),
        "bpp": round(bits / done, 5),
    }
