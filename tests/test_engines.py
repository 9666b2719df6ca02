"""ONNX Runtime says what PyTorch says, in eight bits nearly; an export is kept, and made again where it is broken."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dcu import engines, store
from dcu.bench.ways import latent_way
from dcu.codec import Codec
from dcu.tasks.classify import Classifier

from .conftest import Dcu, one_line, png, smooth_picture

PACKAGES = engines.ONNX_PACKAGES


@pytest.fixture
def onnx(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """ONNX Runtime as it is installed, and an empty cache beside what was compiled."""
    for package in PACKAGES:
        pytest.importorskip(package)
    monkeypatch.setattr("dcu.engines.ONNX_PACKAGES", PACKAGES)
    monkeypatch.setattr("dcu.engines.cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def test_engines_say_the_same(onnx: Path) -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU6(), torch.nn.Conv2d(8, 4, 3), torch.nn.Flatten(1)]
    network, x = torch.nn.Sequential(*layers), torch.randn(5, 3, 8, 8)
    examples = torch.randn(20, 3, 8, 8)
    assert set(engines.engines(network, examples, 1, int8=False)) == {"PyTorch", "ONNX Runtime"}
    found = engines.engines(network, examples, 1, int8=True)
    assert set(found) == {"PyTorch", "ONNX Runtime", "ONNX Runtime int8"}
    expected = found["PyTorch"](x)
    assert torch.allclose(found["ONNX Runtime"](x), expected, atol=1e-5)
    assert torch.allclose(found["ONNX Runtime int8"](x), expected, atol=0.1 * float(expected.std()))


def test_eight_bits_are_made_once(onnx: Path, codec: Codec, capfd: pytest.CaptureFixture[str]) -> None:
    data = codec.compress(smooth_picture(224, 224))
    exact = Classifier.load(engine="pytorch")(data, top=3)
    for note in (True, False, True):
        answer = Classifier.load(engine="int8")(data, top=3)
        assert [p.label for p in answer.predictions] == [p.label for p in exact.predictions]
        assert answer.best.probability == pytest.approx(exact.best.probability, abs=0.05)
        assert ("preparing the network" in capfd.readouterr().err) == note
        (kept,) = onnx.glob("classifier-0.0983-*.onnx")
        if not note:
            kept.write_bytes(b"broken")


def test_eight_bits_are_for_processors_that_have_them(onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With seven the network loses more than half a point: they are for those who ask."""
    for bits, chosen in ((8, True), (7, False)):
        monkeypatch.setattr("dcu.engines.weight_bits", lambda bits=bits: bits)
        assert engines.uses_int8("auto", "cpu") == chosen
        assert engines.uses_int8("int8", "cpu")
        assert not engines.uses_int8("pytorch", "cpu")


def test_engine_that_is_not_there(dcu: Dcu, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(smooth_picture(40, 40)))
    dcu("compress", tmp_path / "a.png", "-o", tmp_path / "a.bin")
    for engine, code in (("int8", 69), ("quick", 2)):
        answer = dcu("classify", tmp_path / "a.bin", "--engine", engine)
        assert answer.code == code
        assert one_line(answer.err)


def test_card_may_turn_eight_bits_off(onnx: Path, codec: Codec) -> None:
    """Where they lose: then they run only when they are asked for."""
    model = store.find("classifier-0.0983")
    assert Classifier(model, codec).int8
    loses = store.Model(model.folder, model.card | {"int8": False})
    assert not Classifier(loses, codec).int8
    assert not latent_way(Classifier(loses, codec), [], 0).int8, "dcu bench times no engine that it does not use"
    assert Classifier(loses, codec, engine="int8").int8
