"""ONNX Runtime says what PyTorch says, in eight bits nearly; an export is kept, and made again where it is broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dcu import engines, store
from dcu.bench.pipelines import latent_pipeline
from dcu.codec import Codec
from dcu.tasks.classify import Classifier

from .conftest import Dcu, one_line, png, smooth_image

PACKAGES = engines.ONNX_PACKAGES


@pytest.fixture
def onnx(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """ONNX Runtime as it is installed, and an empty cache beside what was compiled."""
    for package in PACKAGES:
        pytest.importorskip(package)
    monkeypatch.setattr("dcu.engines.ONNX_PACKAGES", PACKAGES)
    monkeypatch.setenv("DCU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.slow
def test_engines_say_the_same(onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU6(), torch.nn.Conv2d(8, 4, 3), torch.nn.Flatten(1)]
    network, x = torch.nn.Sequential(*layers), torch.randn(5, 3, 8, 8)
    examples = torch.randn(20, 3, 8, 8)
    monkeypatch.setattr("dcu.engines.weight_bits", lambda: 7)
    assert set(engines.engines(network, examples, 1)) == {"pytorch", "onnx"}
    monkeypatch.setattr("dcu.engines.weight_bits", lambda: 8)
    found = engines.engines(network, examples, 1)
    assert set(found) == {"pytorch", "onnx", "int8"}
    expected = found["pytorch"](x)
    assert torch.allclose(found["onnx"](x), expected, atol=1e-5)
    monkeypatch.undo()  # as many bits as this processor adds up without overflow
    eight_bits = engines.onnx_runtime(engines.quantized(engines.exported(network, examples[:1]), examples), 1)
    assert torch.allclose(eight_bits(x), expected, atol=0.1 * float(expected.std()))


@pytest.mark.slow
def test_eight_bits_are_made_once(onnx: Path, codec: Codec, caplog: pytest.LogCaptureFixture) -> None:
    data = codec.compress(smooth_image(224, 224))
    exact = Classifier.load(engine="pytorch")(data, top=3)
    for note in (True, False, True):
        answer = Classifier.load(engine="int8")(data, top=3)
        assert [p.label for p in answer.predictions] == [p.label for p in exact.predictions]
        assert answer.max_probability == pytest.approx(exact.max_probability, abs=0.05)
        assert ("preparing classifier-0.0983 (" in caplog.text) == note
        caplog.clear()
        (kept,) = onnx.glob("classifier-0.0983-*.onnx")
        if not note:
            kept.write_bytes(b"broken")


@pytest.mark.slow
def test_float32_on_onnx_runtime_says_what_pytorch_says(onnx: Path, codec: Codec) -> None:
    """Within 1e-3 of probability, and its export is kept beside that in eight bits."""
    data = codec.compress(smooth_image(224, 224))
    answers = [Classifier.load(engine=engine)(data, top=3).predictions for engine in ("pytorch", "onnx")]
    exact, fast = ([p.probability for p in sorted(answer, key=lambda p: p.index)] for answer in answers)
    assert fast == pytest.approx(exact, abs=1e-3)
    assert len(list(onnx.glob("*-float32-*.onnx"))) == 1


def test_eight_bits_are_for_processors_that_have_them(onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With seven the network loses more than half a point: they are for those who ask."""
    for bits, chosen in ((8, "int8"), (7, "onnx")):
        monkeypatch.setattr("dcu.engines.weight_bits", lambda bits=bits: bits)
        assert engines.chosen("auto", "cpu") == engines.available("cpu")[-1] == chosen
        assert engines.chosen("int8", "cpu") == "int8"
        assert engines.chosen("pytorch", "cpu") == "pytorch"
        assert engines.chosen("auto", "cuda") == "pytorch"


def test_engine_that_is_not_there(dcu: Dcu, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(smooth_image(40, 40)))
    dcu("compress", tmp_path / "a.png", "-o", tmp_path / "a.bin")
    for engine, code in (("int8", 69), ("onnx", 69), ("quick", 2)):
        answer = dcu("classify", tmp_path / "a.bin", "--engine", engine)
        assert answer.code == code
        assert one_line(answer.err)


@pytest.mark.slow
def test_card_may_turn_eight_bits_off(onnx: Path, codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they lose: then they run only when they are asked for, and `dcu bench` does not time them."""
    monkeypatch.setattr("dcu.engines.weight_bits", lambda: 8)
    model = store.find("classifier-0.0983")
    assert Classifier(model, codec).engine == "int8"
    loses = store.Model(model.directory, replace(model.card, int8=False))
    assert Classifier(loses, codec).engine == "onnx"
    assert set(latent_pipeline(Classifier(loses, codec), [], 0).engines(torch.zeros(1))) == {"pytorch", "onnx"}
    assert Classifier(loses, codec, engine="int8").engine == "int8"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_network_no_files_and_no_remarks_of_others(onnx: Path, codec: Codec, models: Path, tmp_path: Path) -> None:
    """Exporting, quantizing and running on ONNX Runtime, whose wheels collect telemetry unless that is off."""
    (tmp_path / "x.bin").write_bytes(codec.compress(smooth_image(224, 224)))
    home, trace = tmp_path / "home", tmp_path / "trace"
    home.mkdir()
    command = [sys.executable, "-m", "dcu", "classify", str(tmp_path / "x.bin"), "--engine", "int8", "--top", "1"]
    environment = {n: v for n, v in os.environ.items() if n != "ORT_DISABLE_TELEMETRY" and not n.startswith("XDG_")}
    for first in (True, False):
        done = subprocess.run(
            ["strace", "-f", "-qq", "-e", "trace=network", "-e", "signal=none", "-o", str(trace), *command],
            capture_output=True,
            text=True,
            check=True,
            env=environment | {"HOME": str(home), "DCU_CACHE": str(onnx), "DCU_MODELS": str(models)},
        )
        assert "preparing" in done.stderr if first else done.stderr == ""
        assert done.stderr.count("\n") == first
        assert trace.read_text() == ""
        assert list(home.rglob("*")) == []
        assert {path.suffix for path in onnx.iterdir()} == {".onnx", ".sha256", ".lock"}
