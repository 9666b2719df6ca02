"""The Python API: its names, what it accepts, and what it says of everything else."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import dcu
from dcu import bitstream, errors, paths, store
from dcu.cards import Card
from dcu.codec import Codec
from dcu.image import read_image
from dcu.labels import Label
from dcu.nets.segmenter import LatentSegmenter
from dcu.tasks.classify import Classifier
from dcu.tasks.segment import Segmenter

from .conftest import png, smooth_image, write_codec


@pytest.fixture
def segmenter(own_models: Any, codec: Codec) -> Segmenter:
    torch.manual_seed(3)
    labels = (Label("sky", color="#0000ff"), Label("road", color="#102030"))
    card = Card("segmenter", codec.fingerprint, codec=codec.name, labels=labels, void=7)
    network = LatentSegmenter(3, 4, 1, 0, 8, 2)
    return Segmenter(store.write_model(own_models / "segmenter-0.0983", card, network.state_dict()), codec)


def test_names() -> None:
    """Every public name can be imported and is listed; the errors are all there are."""
    assert dcu.__all__ == [
        "Classifier",
        "Codec",
        "DcuError",
        "InvalidInputError",
        "MissingInputError",
        "OutputError",
        "Prediction",
        "Predictions",
        "SegmentationMap",
        "Segmenter",
        "UnavailableError",
        "UsageError",
        "__version__",
        "classify",
        "decode",
        "read_image",
        "register_pillow",
    ]
    assert set(dcu.__all__) <= set(dir(dcu))
    for name in dcu.__all__:
        assert getattr(dcu, name) is not None
    assert {name for name in dcu.__all__ if name.endswith("Error")} == {
        name for name, value in vars(errors).items() if isinstance(value, type)
    }
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = dcu.no_such_name


@pytest.mark.parametrize("code", ["dir(dcu)", "dcu.DcuError", "dcu.read_image"])
def test_names_that_need_no_torch(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import sys, dcu; {code}; sys.exit('torch' in sys.modules)"])
    assert done.returncode == 0


def test_one_call_finds_the_codec(codec: Codec) -> None:
    image = smooth_image(64, 80)
    data = codec.compress(dcu.read_image(png(image)))
    assert np.array_equal(dcu.decode(data), codec.decode(data))
    assert dcu.classify(data) == Classifier.load()(data)
    assert len(dcu.classify(data, top=2).predictions) == 2
    with pytest.raises(dcu.UnavailableError):
        dcu.decode(bitstream.write(bitstream.Header(b"none"), 8, 8, [[b""]]))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_every_kind(codec: Codec, segmenter: Segmenter, kind: Callable[[bytes], Any]) -> None:
    whole = codec.compress(smooth_image(40, 56))
    data = kind(whole)
    assert np.array_equal(codec.decode(data), codec.decode(whole))
    assert torch.equal(codec.latent(data), codec.latent(whole))
    assert codec.read(data) == codec.read(whole)
    assert Classifier.load()(data) == Classifier.load()(whole)
    assert np.array_equal(segmenter(data).classes, segmenter(whole).classes)
    assert np.array_equal(dcu.decode(data), codec.decode(whole))
    assert dcu.classify(data) == dcu.classify(whole)


def calls(codec: Codec, classifier: Classifier, segmenter: Segmenter) -> dict[str, Callable[[Any], Any]]:
    """What takes a bitstream."""
    return {
        "decode": codec.decode,
        "latent": codec.latent,
        "latents": lambda data: codec.latents([data]),
        "read": codec.read,
        "classifier": classifier,
        "look": lambda data: classifier.look([data]),
        "segmenter": segmenter,
    }


def test_streams_of_another_codec(codec: Codec, segmenter: Segmenter) -> None:
    """Whether parsed or not: they would give an image, but a wrong one."""
    models = paths.user_models()
    assert models is not None
    other = Codec.from_model(write_codec(models / "other", seed=7))
    data = other.compress(smooth_image(40, 56))
    for name, call in calls(codec, Classifier.load(), segmenter).items():
        for given in (data, bitstream.read(data)):
            with pytest.raises(dcu.UnavailableError, match=r"made by other, not by codec-0\.0983"):
                pytest.fail(f"{name} gave {call(given)}")
    assert np.array_equal(dcu.decode(data), other.decode(data))


@pytest.mark.parametrize("data", ["photo.bin", 7, None, [1, 2], np.zeros(9, np.uint8), io.BytesIO(b"x")])
def test_what_is_no_bitstream(codec: Codec, segmenter: Segmenter, data: object) -> None:
    for name, call in (calls(codec, Classifier.load(), segmenter) | {"dcu": dcu.decode, "do": dcu.classify}).items():
        with pytest.raises(TypeError, match=f"bytearray or memoryview, not {type(data).__name__}"):
            pytest.fail(f"{name} gave {call(data)}")


@pytest.mark.parametrize(
    ("image", "error", "said"),
    [
        (smooth_image(16, 16) / 255, TypeError, "float64"),
        ((smooth_image(16, 16) / 255).astype(np.float32), TypeError, "float32"),
        (smooth_image(16, 16).astype(np.int64), TypeError, "int64"),
        (smooth_image(16, 16) > 100, TypeError, "bool"),
        (smooth_image(16, 16)[..., 0], ValueError, r"\(16, 16\)"),
        (smooth_image(16, 16).transpose(2, 0, 1), ValueError, r"\(3, 16, 16\)"),
        (np.zeros((16, 16, 4), np.uint8), ValueError, r"\(16, 16, 4\)"),
        (smooth_image(16, 16)[None], ValueError, r"\(1, 16, 16, 3\)"),
        (np.zeros((0, 16, 3), np.uint8), ValueError, r"\(0, 16, 3\)"),
        (np.broadcast_to(np.zeros(3, np.uint8), (2**14, 2**14 + 1, 3)), ValueError, "pixels"),
        (torch.zeros(16, 16, 3, dtype=torch.uint8), TypeError, "Tensor"),
        (smooth_image(16, 16).tolist(), TypeError, "list"),
        ("photo.jpg", TypeError, "str"),
        (png(smooth_image(16, 16)), TypeError, "bytes"),
        (None, TypeError, "NoneType"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_no_image(codec: Codec, segmenter: Segmenter, image: Any, error: type[Exception], said: str) -> None:
    for call in (codec.compress, codec.analyze, segmenter(codec.compress(smooth_image(16, 16))).over):
        with pytest.raises(error, match=said) as caught:
            call(image)
        assert "uint8" in str(caught.value) or "pixels" in str(caught.value)


def test_images_need_not_be_contiguous_or_writable(codec: Codec) -> None:
    image = smooth_image(48, 64)
    turned = np.ascontiguousarray(image[::-1, ::2])
    image.flags.writeable = False
    assert codec.compress(image[::-1, ::2]) == codec.compress(turned)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "LA", "RGBA", "CMYK", "1", "I;16"])
def test_images_of_pillow(codec: Codec, mode: str) -> None:
    """As their files are read: the orientation of EXIF applied, transparency on white."""
    image = Image.fromarray(smooth_image(24, 40)).convert("I" if mode == "I;16" else mode)
    image = Image.fromarray((np.asarray(image) * 257).astype(np.uint16)) if mode == "I;16" else image
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(smooth_image(24, 40)[..., 0]))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.save(file, "TIFF" if mode == "CMYK" else "PNG", exif=exif)
    expected = read_image(file.getvalue())
    with Image.open(io.BytesIO(file.getvalue())) as opened:
        assert codec.compress(opened) == codec.compress(expected)
    assert expected.shape == (40, 24, 3)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"name": 7}, TypeError),
        ({"name": b"codec"}, TypeError),
        ({"name": ""}, ValueError),
        ({"name": "no-such-model"}, dcu.UnavailableError),
        ({"device": 0}, TypeError),
        ({"device": "gpu"}, ValueError),
        ({"device": "cuda:x"}, ValueError),
    ],
)
@pytest.mark.parametrize("kind", [Codec, Classifier, Segmenter])
@pytest.mark.usefixtures("segmenter")
def test_arguments_of_load(kind: Any, arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        kind.load(**arguments)


def test_other_arguments(codec: Codec, segmenter: Segmenter) -> None:
    data, classifier = codec.compress(smooth_image(40, 56)), Classifier.load()
    for top, error in ((0, ValueError), (-1, ValueError), (True, TypeError), (2.0, TypeError), ("5", TypeError)):
        for call in (classifier, dcu.classify):
            with pytest.raises(error, match="top"):
                call(data, top=top)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="left"):
        classifier(data, view="left")
    with pytest.raises(TypeError, match="view"):
        classifier(data, view=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fastest"):
        Classifier.load(engine="fastest")
    with pytest.raises(TypeError, match="full"):
        segmenter(data, full="yes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(40, 56\)"):
        segmenter(data).over(smooth_image(40, 40))
    for latent, error in ((np.zeros((1, 3, 4, 4)), TypeError), (torch.zeros(1, 3, 4, 4).byte(), TypeError)):
        with pytest.raises(error):
            codec.synthesize(latent)  # type: ignore[arg-type]
    for shape in ((3, 4, 4), (1, 4, 4, 4), (2, 3, 4, 4), (1, 3, 0, 4)):
        with pytest.raises(ValueError, match=r"\(1, 3, h, w\)"):
            codec.synthesize(torch.zeros(shape))


def test_what_it_looks_like(codec: Codec, segmenter: Segmenter) -> None:
    data = codec.compress(smooth_image(40, 56))
    assert repr(codec) == f"<Codec codec-0.0983, fingerprint {codec.fingerprint[:8]}, on cpu>"
    assert repr(Classifier.load()) == "<Classifier classifier-0.0983, 3 classes, pytorch on cpu>"
    assert repr(segmenter) == "<Segmenter segmenter-0.0983, 2 classes, on cpu>"
    assert len(repr(bitstream.read(data))) < 300


def test_pickles(codec: Codec, segmenter: Segmenter) -> None:
    """For processes that are spawned."""
    data, classifier = codec.compress(smooth_image(40, 56)), Classifier.load()
    assert np.array_equal(pickle.loads(pickle.dumps(codec)).decode(data), codec.decode(data))
    assert pickle.loads(pickle.dumps(classifier))(data) == classifier(data)
    assert np.array_equal(pickle.loads(pickle.dumps(segmenter))(data).classes, segmenter(data).classes)
