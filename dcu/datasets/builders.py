"""Makes the files of every data set out of clones: which images, in which order, under which names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from PIL import Image

from dcu.datasets.files import Clones
from dcu.datasets.images import jpeg, label_map, read_image
from dcu.datasets.table import (
    CALTECH,
    FIFTY_PER_CLASS,
    IMAGENETTE,
    IMAGEWOOF,
    IMAGEWOOF320,
    KODAK,
    SAMPLES,
    SEGNET,
    Repository,
)
from dcu.errors import InvalidInputError

VALIDATION_PER_CLASS = 120
CAMVID_PALETTE = (
    ("Sky", (128, 128, 128)),
    ("Building", (128, 0, 0)),
    ("Pole", (192, 192, 128)),
    ("Road", (128, 64, 128)),
    ("Pavement", (60, 40, 222)),
    ("Tree", (128, 128, 0)),
    ("SignSymbol", (192, 128, 128)),
    ("Fence", (64, 64, 128)),
    ("Car", (64, 0, 128)),
    ("Pedestrian", (64, 64, 0)),
    ("Bicyclist", (0, 128, 192)),
    ("Void", (0, 0, 0)),
)
"""Name and color of each class of CamVid; its position is the value in label maps. Void is not evaluated."""


VALIDATION_DUPLICATES = frozenset(
    {
        "n02086240_4256.JPEG",
        "n02087394_7459.JPEG",
        "n02089973_2308.JPEG",
        "n02089973_5656.JPEG",
        "n02096294_781.JPEG",
        "n02096294_8649.JPEG",
        "n02102040_4704.JPEG",
        "n02105641_14665.JPEG",
        "n02115641_42170.JPEG",
        "n03000684_924.JPEG",
        "n03028079_63677.JPEG",
        "n03417042_2236.JPEG",
        "n03888257_3637.JPEG",
    }
)
"""Images of imagenette and imagewoof that show the same photograph as one of imagenet1000-val or imagenet20-val."""
RESEMBLING_VALIDATION = frozenset({"n02692877_10850.JPEG", "n03759954_10318.JPEG", "n04562935_10328.JPEG"})
"""First images of classes that are within 40 of 256 bits of an image of imagenet1000-val or imagenet20-val."""
TWENTY = frozenset(
    {"n01440764", "n02086240", "n02087394", "n02088364", "n02089973", "n02093754", "n02096294", "n02099601"}
    | {"n02102040", "n02105641", "n02111889", "n02115641", "n02979186", "n03000684", "n03028079", "n03394916"}
    | {"n03417042", "n03425413", "n03445777", "n03888257"}
)
"""The classes of imagenette and imagewoof."""


class Member(NamedTuple):
    """A file of a data set: the tar it belongs to, its name there, and its content."""

    tar: str
    name: str
    data: bytes


def is_ilsvrc_validation(path: str) -> bool:
    """Whether a file has the name of an image of the ILSVRC2012 validation set: never trained on."""
    return "ILSVRC2012_val" in path


def may_be_trained_on(name: str) -> bool:
    """Whether a file of imagenette or imagewoof is no validation image, by its name."""
    return not is_ilsvrc_validation(name) and name not in VALIDATION_DUPLICATES


def imagenet20(clones: Clones) -> Iterator[Member]:
    """The first 120 images of each class of both ``val`` directories validate; the rest trains."""
    validation: Counter[str] = Counter()
    for repository in (IMAGENETTE, IMAGEWOOF):
        for split, path, data in class_images(clones, repository):
            wnid = path.parts[1]
            if split == "val" and validation[wnid] < VALIDATION_PER_CLASS:
                validation[wnid] += 1
                yield Member("imagenet20-val.tar", f"{wnid}/{path.name}", data)
            elif may_be_trained_on(path.name):
                yield Member("imagenet20-train.tar", f"{wnid}/{path.name}", data)


def imagewoof320(clones: Clones) -> Iterator[Member]:
    """The dogs at a larger size, without the images that ``imagenet20-val`` holds at 224x224."""
    seen: Counter[str] = Counter()
    for split, path, data in class_images(clones, IMAGEWOOF320):
        wnid = path.parts[1]
        seen[wnid] += split == "val"
        validates = split == "val" and seen[wnid] <= VALIDATION_PER_CLASS
        if not validates and may_be_trained_on(path.name):
            yield Member("imagewoof320-train.tar", f"{wnid}/{path.name}", data)


def class_images(clones: Clones, repository: Repository) -> Iterator[tuple[str, PurePosixPath, bytes]]:
    """Split, path and content of the JPEG files of SPLIT/WNID/, those of ``val`` first."""
    for split in ("val", "train"):
        for name, data in clones.files(repository, split):
            if name.lower().endswith((".jpeg", ".jpg")):
                yield split, PurePosixPath(name), data


def imagenet1000(clones: Clones) -> Iterator[Member]:
    """One image per class: even class numbers train, odd ones validate. Short side at most 256, JPEG."""
    images = sorted((path, data) for path, data in clones.files(SAMPLES) if path.endswith(".JPEG"))
    for number, (path, data) in enumerate(images):
        wnid = path.split("_")[0]
        tar = "imagenet1000-val.tar" if number % 2 else "imagenet1000-train.tar"
        yield Member(tar, f"{wnid}/{wnid}.jpg", jpeg(opened(path, data), 256))


def imagenet1000_held(clones: Clones) -> Iterator[Member]:
    """The first training image of each class by name, without ``TWENTY``, whose images are in imagenet20."""
    seen = set(TWENTY)
    for name, data in clones.files(FIFTY_PER_CLASS, "data/train"):
        path = PurePosixPath(name)
        if path.suffix == ".JPEG" and path.parts[2] not in seen:
            seen.add(path.parts[2])
            if path.name not in RESEMBLING_VALIDATION:
                yield Member("imagenet1000-held.tar", f"{path.parts[2]}/{path.name}", data)


def caltech101(clones: Clones) -> Iterator[Member]:
    """Every fifth image of each category validates, the rest trains."""
    seen: Counter[str] = Counter()
    for name, data in clones.files(CALTECH, "101_ObjectCategories"):
        path = PurePosixPath(name)
        category = path.parts[1]
        if path.suffix.lower() != ".jpg" or category in ("BACKGROUND_Google", "Faces_easy"):
            continue
        seen[category] += 1
        tar = "caltech101-train.tar" if seen[category] % 5 else "caltech101-val.tar"
        yield Member(tar, f"{category}/{path.name}", data)


def camvid(clones: Clones) -> Iterator[Member]:
    """JPEG images in ``images/``, indexed label maps in ``labels/``, in the usual three splits."""
    palette = [value for _, color in CAMVID_PALETTE for value in color]
    for split in ("train", "val", "test"):
        tar = f"camvid-{split}.tar"
        for name, data in clones.files(SEGNET, f"CamVid/{split}", f"CamVid/{split}annot"):
            stem = PurePosixPath(name).stem
            image = opened(name, data)
            if "annot" in name:
                yield Member(tar, f"labels/{stem}.png", label_map(image, palette))
            else:
                yield Member(tar, f"images/{stem}.jpg", jpeg(image))


def kodak(clones: Clones) -> Iterator[Member]:
    """The odd-numbered half of Kodak's 24 images, as they are."""
    for path, data in sorted(clones.files(KODAK, "PhotoCD_PCD0992")):
        stem = PurePosixPath(path).stem
        if stem.isdecimal() and int(stem) % 2:
            yield Member("kodak-odd.tar", f"kodim{int(stem):02}.png", data)


def opened(path: str, data: bytes) -> Image.Image:
    """The image of a file; raises InvalidInputError with its path."""
    try:
        return read_image(data)[0]
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error}") from error


Builder = Callable[[Clones], Iterator[Member]]
LABELED: dict[str, Builder] = {
    "imagenet20": imagenet20,
    "imagewoof320": imagewoof320,
    "imagenet1000": imagenet1000,
    "imagenet1000-held": imagenet1000_held,
    "caltech101": caltech101,
    "camvid": camvid,
    "kodak": kodak,
}
