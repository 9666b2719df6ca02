"""A tiny codec and classifier with random weights, images, and the command line in this process."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image

from dcu import store
from dcu.cards import Baseline, Baselines, Card, Rates
from dcu.cards import Result as CardResult
from dcu.cli import app
from dcu.codec import Codec, codec_of
from dcu.coding import FixedRate
from dcu.entropy import _native, integer_tensors
from dcu.evaluate.cost import codec_cost, macs
from dcu.image import ImageArray
from dcu.labels import Label
from dcu.nets.context import Group, UnboundedGroup
from dcu.nets.efficientnet import EfficientNetLite
from dcu.nets.latent import LatentClassifier
from dcu.nets.rgb import VARIANTS
from dcu.nets.segmenter import LatentSegmenter
from dcu.nets.variable_rate import VariableRateCodec
from dcu.tasks import rgb
from dcu.tasks.classify import Classifier, classifier_for
from dcu.tasks.segment import segmenter_for
from dcu.train.codec import CodecNetwork, CodecRecipe
from dcu.train.export import variable_rate_tensors
from dcu.train.init import use_components

settings.register_profile("dcu", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dcu")  # how long an example takes says how busy the machine is

SHIPPED_DEFAULTS = store.DEFAULTS
"""The models that users get where they name none."""
SEGMENTER_LABELS = (Label("sky", color="#0000ff"), Label("road", color="#102030"))
GROUPS = (Group(1, 9, 3), Group(2, 5, 2))
RECIPE = CodecRecipe("codec-0.0983", 0.0983, GROUPS, width=8, analysis_depth=1, synthesis_depth=1, context_hidden=8)


def random_codec(seed: int) -> dict[str, torch.Tensor]:
    """Weights of an untrained codec whose symbols vary."""
    torch.manual_seed(seed)
    network = CodecNetwork(RECIPE)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        network.analysis.linear.weight.mul_(4)
        for name, parameter in network.analysis.named_parameters():
            parameter.mul_(8 if name.endswith("conv2.weight") else 1)
    tensors = {f"analysis.{n}": t.half() for n, t in network.analysis.state_dict().items()}
    tensors |= {f"synthesis.{n}": t.half() for n, t in network.synthesis.state_dict().items()}
    tensors["quantizer.centers"] = network.quantizer.centers.detach().clone()
    return tensors | {f"context.{n}": t for n, t in integer_tensors(network.context).items()}


def fixed(codec: Codec) -> FixedRate:
    """What a codec of one rate has beyond other codecs."""
    assert isinstance(codec.coding, FixedRate)
    return codec.coding


def random_variable_rate_codec(seed: int = 0, adapter: int = 0) -> dict[str, torch.Tensor]:
    """Weights of an untrained codec of 64 operating points whose bytes rise with them; its last channel starts late.

    With an ``adapter`` it makes streams for machines, too.
    """
    torch.manual_seed(seed)
    network = VariableRateCodec((UnboundedGroup(1, 3), UnboundedGroup(2, 2)), 8, 1, 1, 8, 3, adapter)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    unlimited = torch.full((3,), torch.inf)
    crops = torch.from_numpy(smooth_image(64, 64))[None]
    use_components(network.analysis, network.synthesis, crops, unlimited, 1.0)
    network.begin_at_steps(2.0, 0.05)
    coded = torch.ones(64 * (2 if adapter else 1), 3, dtype=torch.bool)
    coded[:9, 2] = False
    return variable_rate_tensors(network.eval(), coded)


def write_variable_rate_codec(directory: Path, rates: Rates | None = None, adapter: int = 0) -> store.Model:
    tensors = random_variable_rate_codec(adapter=adapter)
    codec = Codec(tensors, directory.name)
    card = Card(
        kind="codec",
        rates=rates,
        machines=adapter > 0,
        fingerprint=codec.fingerprint,
        macs_per_pixel=codec_cost(codec),
    )
    return store.write_model(directory, card, tensors)


def write_codec(directory: Path, seed: int = 0) -> store.Model:
    tensors = random_codec(seed)
    codec = Codec(tensors, directory.name)
    card = Card(kind="codec", rate=0.0983, fingerprint=codec.fingerprint, macs_per_pixel=codec_cost(codec))
    return store.write_model(directory, card, tensors)


def write_classifier(directory: Path, fingerprint: str) -> store.Model:
    """Three classes; macs as `dcu.evaluate.cost` counts them, which `dcu models verify` compares."""
    torch.manual_seed(1)
    network = LatentClassifier(3, 4, 1, 0, 3)
    card = Card(
        kind="classifier",
        codec="codec-0.0983",
        fingerprint=fingerprint,
        labels=tuple(Label(name, f"n{i:08}") for i, name in enumerate(("cat", "dog", "tea"))),
        macs=macs(network, torch.zeros(1, 3, 28, 28)),
    )
    tensors = {name: tensor.half() for name, tensor in network.state_dict().items()}
    return store.write_model(directory, card, tensors)


def state_accuracy(model: store.Model) -> None:
    """Write on a classifier's card that it and the RGB network on WebP were measured on 9 images."""
    result = CardResult("some-val", 9, engine="pytorch", bytes=600.0, bpp=0.1, top1=0.5, top5=0.7)
    webp = Baseline("format", 64, 599.0, 0.1, 0.25, 0.14, 0.5, 0.17, 10**6, source="webp")
    stated = partial(replace, results=(result,), baselines=(Baselines("some-val", 9, (webp,)),))
    store.amend(model, stated)


def write_segmenter(directory: Path, fingerprint: str) -> store.Model:
    torch.manual_seed(3)
    network = LatentSegmenter(3, 4, 1, 0, 8, 2)
    card = Card("segmenter", fingerprint, codec="codec-0.0983", labels=SEGMENTER_LABELS, void=7)
    return store.write_model(directory, card, network.state_dict())


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    codec = write_codec(directory / "codec-0.0983")
    write_classifier(directory / "classifier-0.0983", codec.fingerprint)
    return directory


@pytest.fixture(autouse=True)
def models(model_directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Every test sees the tiny models first, as the default, no models of a user, and one engine: exporting is slow."""
    monkeypatch.setattr("dcu.engines.ONNX_PACKAGES", ("no_such_package",))
    monkeypatch.setenv("DCU_MODELS", str(model_directory))
    monkeypatch.setattr(store, "DEFAULTS", {kind: f"{kind}-0.0983" for kind in SHIPPED_DEFAULTS})
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data-home"))
    codec_of.cache_clear()
    classifier_for.cache_clear()
    segmenter_for.cache_clear()
    return model_directory


@pytest.fixture
def own_models(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny models that a test may harm."""
    directory = tmp_path / "models"
    shutil.copytree(models, directory)
    monkeypatch.setenv("DCU_MODELS", str(directory))
    return directory


@pytest.fixture(scope="session")
def codec(model_directory: Path) -> Codec:
    return Codec.load(model_directory / "codec-0.0983")


def backbone_classifier(classifier: Classifier) -> LatentClassifier:
    """The network of a classifier that is not a ResNet."""
    assert isinstance(classifier.network, LatentClassifier)
    return classifier.network


@pytest.fixture
def segmenter(own_models: Path, codec: Codec) -> Path:
    return write_segmenter(own_models / "segmenter-0.0983", codec.fingerprint).directory


class OurTables:
    """Our own arithmetic coder with torchac's interface: tables in the place of the context model."""

    def encode(self, tables: torch.Tensor, symbols: torch.Tensor) -> bytes:
        return _native.encode_tables(tables.view(torch.uint16).numpy(), symbols.numpy())

    def decode(self, tables: torch.Tensor, payload: bytes) -> torch.Tensor:
        return torch.from_numpy(_native.decode_tables(tables.view(torch.uint16).numpy(), payload))


def smooth_image(height: int, width: int, seed: int = 0) -> ImageArray:
    """Colored waves with some noise: no photograph, but not white noise either."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / rng.uniform(5, 40) + rng.uniform(0, 6)) + np.cos(y / rng.uniform(5, 40)) for _ in range(3)]
    return np.clip(np.stack(waves, 2) * 50 + 128 + rng.normal(0, 4, (height, width, 3)), 0, 255).astype(np.uint8)


def tar(members: list[tuple[str, bytes]]) -> bytes:
    """A tar of members in this order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def png(image: ImageArray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def write_classes(directory: Path, names: Sequence[str], count: int = 12) -> Path:
    """So many images, in a directory per class in turn."""
    for index in range(count):
        path = directory / names[index % len(names)] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(smooth_image(40 + index, 48, seed=index)))
    return directory


@pytest.fixture
def street(tmp_path: Path) -> Path:
    """Three images with label maps of eleven classes and void."""
    for index in range(3):
        for kind in ("images", "labels"):
            (tmp_path / "street" / kind).mkdir(parents=True, exist_ok=True)
        (tmp_path / "street" / "images" / f"{index}.png").write_bytes(png(smooth_image(64, 64, seed=index)))
        classes = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) // 16 % 12
        Image.fromarray(classes.astype(np.uint8)).save(tmp_path / "street" / "labels" / f"{index}.png")
    return tmp_path / "street"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(png(smooth_image(40, 52)))
    return path


@dataclass
class Result:
    """What a call of the command line left."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Dcu = Callable[..., Result]


@pytest.fixture
def dcu(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Dcu:
    """The command line in this process: ``dcu("info", path)``; text only."""

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["dcu", *map(str, arguments)])
        code = app.run()
        sys.stdout.flush()
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return call


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The warnings that the library logs, whatever the command line has installed."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    monkeypatch.setattr(handler, "emit", lambda record: messages.append(record.getMessage()))
    logger = logging.getLogger("dcu")
    monkeypatch.setattr(logger, "handlers", [handler])
    before = logger.level
    logger.setLevel(logging.WARNING)
    yield messages
    logger.setLevel(before)


def process(*arguments: object, data: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command line as a process of its own, for pipes and binary output."""
    return subprocess.run(
        [sys.executable, "-m", "dcu", *map(str, arguments)],
        input=data,
        capture_output=True,
        env=os.environ | environment,
        timeout=120,
        check=False,
    )


def one_line(err: str | bytes) -> bool:
    """Whether an error is one line of dcu's, and no traceback."""
    text = err.decode() if isinstance(err, bytes) else err
    return text.startswith("dcu: ") and text.count("\n") == 1


@pytest.fixture
def random_rgb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random RGB networks in the place of the trained ones."""

    def network(variant: str = "lite0") -> EfficientNetLite:
        torch.manual_seed(0)
        return EfficientNetLite(VARIANTS[variant]).eval().requires_grad_(False)

    monkeypatch.setattr(rgb, "rgb_network", network)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """PyTorch computes on two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
