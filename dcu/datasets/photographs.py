"""Photographs to train on: readable, large enough, in no validation set, each one once; windows of them for codecs."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from multiprocessing.pool import ThreadPool
from pathlib import PurePosixPath
from typing import NamedTuple, TypeVar

from dcu.datasets.builders import LABELED, Member, imagenet1000_held, is_ilsvrc_validation
from dcu.datasets.files import Clones
from dcu.datasets.fingerprint import NEAR_DUPLICATE_BITS, Hashes, HashIndex, fingerprint, mirrored_fingerprint
from dcu.datasets.images import png, read_image
from dcu.datasets.table import FIFTY_SOURCE, PhotoSource
from dcu.datasets.windows import MAX_WINDOWS, MIN_SHORT_SIDE, digest, windows
from dcu.errors import InvalidInputError

log = logging.getLogger(__name__)

VALIDATION = {
    "imagenet1000": "imagenet1000-val.tar",
    "imagenet20": "imagenet20-val.tar",
    "kodak": "kodak-odd.tar",
    "camvid": "camvid-val.tar",
}
"""The data sets, and their tars, that no photograph may be a near-duplicate of an image of."""
ADVERSARIAL = re.compile(r"[0-9a-f]{16}")
"""Names of the images of the NIPS 2017 adversarial competition: never trained on."""
HASH_SIDE = 64
BATCH = 512
T = TypeVar("T")
R = TypeVar("R")
Photograph = tuple[str, bytes]
"""Path in the repository, and content."""


def training_windows(
    clones: Clones, name: str, sources: Sequence[PhotoSource], known: Sequence[PhotoSource] = ()
) -> Iterator[Member]:
    """Windows of the photographs of all sources, for the tars NAME-train.tar and NAME-held.tar.

    Photographs that are also among those of the ``known`` sources are left out. Of each source come first the windows
    that train, then those that are held out: one of each photograph with the smallest digests.
    """
    chosen = select(clones, [*known, *sources])
    for source in sources:
        for held_out, path, number, window in source_windows(clones, source, chosen[source.name]):
            tar = f"{name}-held.tar" if held_out else f"{name}-train.tar"
            yield Member(tar, window_name(source, path, number), window)


def imagenet50(clones: Clones) -> Iterator[Member]:
    """Up to 50 training images of each of the 1000 classes, without those of ``imagenet1000-held``."""
    held_out = {member.name for member in imagenet1000_held(clones)}
    chosen = select(clones, [FIFTY_SOURCE])[FIFTY_SOURCE.name]
    for path, data in photographs(clones, FIFTY_SOURCE):
        name = "/".join(PurePosixPath(path).parts[-2:])
        if path in chosen and name not in held_out:
            yield Member("imagenet50-train.tar", name, data)


def source_windows(
    clones: Clones, source: PhotoSource, digests: dict[str, str]
) -> Iterator[tuple[bool, str, int, bytes]]:
    """Windows of the chosen photographs of one source: whether held out, path, number and PNG."""
    spare = source.held_out // 4  # some photographs have no window of enough contrast
    candidates = set(sorted(digests, key=digests.__getitem__)[: source.held_out + spare])
    held: list[tuple[str, str, bytes]] = []

    def cut(photograph: Photograph) -> tuple[str, list[bytes]]:
        path, data = photograph
        try:
            image = read_image(data)[0].convert("RGB")
        except InvalidInputError:
            return path, []
        limit = 1 if path in candidates else MAX_WINDOWS
        return path, [png(window) for window in windows(image, digests[path], limit)]

    chosen = ((path, data) for path, data in photographs(clones, source) if path in digests)
    for path, cuts in parallel(cut, chosen):
        if path in candidates:
            held += [(digests[path], path, window) for window in cuts]
        else:
            for number, window in enumerate(cuts):
                yield False, path, number, window
    for _, path, window in sorted(sorted(held)[: source.held_out], key=lambda one: one[1]):
        yield True, path, 0, window


def window_name(source: PhotoSource, path: str, number: int) -> str:
    """The name of a photograph's window in a tar: SOURCE/STEM-NUMBER.png."""
    below = next(PurePosixPath(path).relative_to(d) for d in source.directories if path.startswith(f"{d}/"))
    return f"{source.name}/{below.with_suffix('').as_posix().replace('/', '-')}-{number}.png"


def select(clones: Clones, sources: Sequence[PhotoSource]) -> dict[str, dict[str, str]]:
    """The photographs to use of each source, path to digest; of near-duplicates among them, the first.

    Logs how many are left out, and why.
    """
    validation, validation_names = validation_fingerprints(clones)
    kept = HashIndex()
    chosen: dict[str, dict[str, str]] = {}
    for source in sources:
        digests: dict[str, str] = {}
        reasons: Counter[str] = Counter()
        for path, look in parallel(partial(inspect, names=validation_names), photographs(clones, source)):
            unfit = left_out(look, validation, kept) if isinstance(look, Look) else look
            if unfit or isinstance(look, str):
                reasons[str(unfit)] += 1
                continue
            kept.add(look.hashes[:1])
            digests[path] = look.digest
        log.info("%s: %d photographs chosen; left out: %s", source.name, len(digests), dict(reasons))
        chosen[source.name] = digests
    return chosen


class Look(NamedTuple):
    """What decides whether a photograph is chosen."""

    digest: str
    hashes: Hashes


def inspect(photograph: Photograph, names: frozenset[str]) -> tuple[str, Look | str]:
    """A photograph's path, and its digest and hashes or, where it cannot be used, the reason."""
    path, data = photograph
    stem = PurePosixPath(path).stem
    if is_ilsvrc_validation(path):
        return path, "ILSVRC2012 validation image"
    if stem in names or ADVERSARIAL.fullmatch(stem):
        return path, "name of a validation image"
    try:
        image, size = read_image(data, draft=HASH_SIDE)
    except InvalidInputError:
        return path, "not readable"
    if min(size) < MIN_SHORT_SIDE:
        return path, "too small"
    return path, Look(digest(data), fingerprint(image.convert("RGB")))


def left_out(look: Look, validation: HashIndex, kept: HashIndex) -> str | None:
    """Why a readable photograph is not chosen; None where it is."""
    if validation.distance(look.hashes) <= NEAR_DUPLICATE_BITS:
        return "near-duplicate of a validation image"
    if kept.distance(look.hashes[:1]) <= NEAR_DUPLICATE_BITS:
        return "near-duplicate of another photograph"
    return None


def validation_fingerprints(clones: Clones) -> tuple[HashIndex, frozenset[str]]:
    """Hashes of all validation images and their mirror images, and the names of those of ``imagenet20``."""
    index, names = HashIndex(), set()
    for dataset, tar in VALIDATION.items():
        images = (m for m in LABELED[dataset](clones) if m.tar == tar and not m.name.startswith("labels/"))
        for name, hashes in parallel(validation_hashes, images):
            index.add(hashes)
            if dataset == "imagenet20":
                names.add(PurePosixPath(name).stem)
    return index, frozenset(names)


def validation_hashes(member: Member) -> tuple[str, Hashes]:
    """Name and hashes of a validation image."""
    return member.name, mirrored_fingerprint(read_image(member.data, draft=HASH_SIDE)[0].convert("RGB"))


def photographs(clones: Clones, source: PhotoSource) -> Iterator[Photograph]:
    """Path and content of every photograph of a source."""
    for path, data in clones.files(source.repository, *source.directories):
        if re.fullmatch(source.pattern, path):
            yield path, data


def parallel(work: Callable[[T], R], found: Iterable[T]) -> Iterator[R]:
    """The results of ``work`` in order, computed by one thread per core, a bounded number of inputs at a time."""
    iterator = iter(found)
    with ThreadPool(os.cpu_count() or 1) as pool:
        while batch := list(islice(iterator, BATCH)):
            yield from pool.map(work, batch)
