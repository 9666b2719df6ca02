from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dcu import store
from dcu.cards import Baseline, Difference, Result
from dcu.cli import options
from dcu.codec import Codec
from dcu.data import items
from dcu.errors import InvalidInputError
from dcu.evaluate import baselines, curves
from dcu.evaluate import classifier as evaluate_classifier
from dcu.evaluate.codec import Point, bits_per_symbol, ms_ssim
from dcu.evaluate.pipeline import Pipeline
from dcu.image import psnr, read_image, standard_crop
from dcu.labels import IMAGENET, label_set
from dcu.tasks.classify import Classifier
from dcu.tasks.rgb import RgbClassifier

from .conftest import Dcu, one_line, png, smooth_image, write_classifier, write_codec


def test_directories_are_named_by_wnid_or_label(tmp_path: Path) -> None:
    place = tmp_path / "set"
    for name in ("tench", "n01440764"):
        (place / name).mkdir(parents=True)
        (place / name / "a.png").write_bytes(png(smooth_image(8, 8)))
    known = label_set(IMAGENET)
    assert evaluate_classifier.numbers_among(known, "x", items(place)) == [0, 0]
    (place / "other").mkdir()
    (place / "other" / "a.png").write_bytes(png(smooth_image(8, 8)))
    with pytest.raises(InvalidInputError, match="'other': directory is not a class of x"):
        evaluate_classifier.numbers_among(known, "x", items(place))
    with pytest.raises(InvalidInputError, match="directories named by their class"):
        evaluate_classifier.numbers_among(known, "x", items(place / "other"))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    for index in range(4):
        path = tmp_path / "set" / f"n{index % 3:08}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(smooth_image(170, 180, seed=index)))
    return tmp_path / "set"


def test_psnr_by_hand() -> None:
    black = np.zeros((2, 2, 3), np.uint8)
    assert psnr(black, black + 1) == pytest.approx(10 * math.log10(255**2))
    assert psnr(black, black) == 100, "so that means stay finite"


def test_ms_ssim_of_equal_and_of_small_images() -> None:
    image = smooth_image(170, 180)
    assert ms_ssim(image, image) == pytest.approx(1)
    assert math.isnan(ms_ssim(image[:100], image[:100]))


def test_codec_metrics_are_those_of_real_files(dcu: Dcu, codec: Codec, dataset: Path) -> None:
    (metrics,) = dcu("eval", "codec", dataset, "--codec", "codec-0.0983", "--json").lines
    streams = {p: codec.compress(read_image(p.read_bytes())) for p in sorted(dataset.rglob("*.png"))}
    assert metrics["dataset"] == "set"
    assert metrics["count"] == 4
    assert metrics["bpp"] == pytest.approx(8 * sum(map(len, streams.values())) / (4 * 170 * 180), abs=1e-5)
    expected = np.mean([psnr(read_image(p.read_bytes()), codec.decode(s)) for p, s in streams.items()])
    assert metrics["psnr"] == pytest.approx(float(expected), abs=1e-3)


def test_classifier_metrics(dcu: Dcu, dataset: Path) -> None:
    (metrics,) = dcu("eval", "classifier", dataset, "--json").lines
    assert set(metrics) == {
        *("network", "dataset", "count", "top1", "top1_se", "top5", "top5_se", "ece", "bytes", "bpp", "temperature"),
        "engine",
    }
    classifier = Classifier.load()
    codec = classifier.codec
    best = {
        p: classifier(codec.compress(standard_crop(read_image(p.read_bytes())))).predictions[0].wnid
        for p in dataset.rglob("*.png")
    }
    assert metrics["count"] == len(best)
    assert metrics["top1"] == pytest.approx(sum(p.parent.name == wnid for p, wnid in best.items()) / len(best))
    assert metrics["top5"] == 1  # of three classes


def test_bitstreams_are_named_by_the_classifier_of_their_codec(
    dcu: Dcu, dataset: Path, own_models: Path, tmp_path: Path
) -> None:
    other = write_codec(own_models / "codec-0.330", seed=3)
    write_classifier(own_models / "classifier-0.330", other.fingerprint)
    bins = tmp_path / "bins"
    assert dcu("compress", dataset, "--codec", other.name, "-o", bins).code == 0
    (metrics,) = dcu("eval", "classifier", bins, "--json").lines
    assert metrics["network"] == "classifier-0.330"
    (bins / "n00000000" / "0.bin").write_bytes(b"no bitstream")
    answer = dcu("eval", "classifier", bins)
    assert answer.code == 65
    assert "bins/n00000000/0.bin" in answer.err


def test_broken_image_of_a_data_set_is_named(dcu: Dcu, dataset: Path) -> None:
    (dataset / "n00000000" / "9.png").write_bytes(b"no picture")
    answer = dcu("eval", "codec", dataset)
    assert answer.code == 65
    assert "n00000000/9.png" in answer.err


def test_directory_that_is_no_class(dcu: Dcu, dataset: Path) -> None:
    (dataset / "n00000000").rename(dataset / "cats")
    answer = dcu("eval", "classifier", dataset)
    assert answer.code == 65
    assert "'cats'" in answer.err
    (dataset / "cats").rename(dataset / "c\nts")
    assert "'c\\x0ats'" in dcu("eval", "classifier", dataset).err


def test_metrics_are_recorded_on_the_card(dcu: Dcu, dataset: Path, own_models: Path) -> None:
    model = own_models / "codec-0.0983"
    for _ in range(2):
        (metrics,) = dcu("eval", "codec", dataset, "--codec", model, "--json", "--record").lines
    (recorded,) = json.loads((model / "card.json").read_text())["results"]
    lasting = {key: value for key, value in metrics.items() if key not in ("name", "encode_ms", "decode_ms")}
    assert {key: recorded[key] for key in lasting} == lasting
    assert set(recorded) - set(lasting) == {"date"}
    assert dcu("models", "verify", model).code == 0


def test_blank_images_leave_means_finite(dcu: Dcu, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blank = np.full_like(smooth_image(170, 180), 255)
    monkeypatch.setattr(Codec, "decode", lambda self, data: blank)
    (dataset / "blank.png").write_bytes(png(blank))
    (line,) = dcu("eval", "codec", dataset, "--codec", "codec-0.0983", "--json").lines
    assert 0 < line["psnr"] < 100
    assert 0 < line["psnr_se"] < 100


def point(bpp: float, psnr: float) -> Point:
    return Point("some", None, None, 1, 9, bpp, None, psnr, None, None, None, 1, 1)


def test_quality_at_a_rate_is_straight_over_log_bpp() -> None:
    curve = [point(0.1, 20.0), point(1.0, 30.0), point(10.0, 32.0)]
    assert curves.quality_at(curve, "psnr", 10**-0.5) == pytest.approx(25)
    assert curves.quality_at(curve, "psnr", 10.0) == pytest.approx(32)


def test_half_the_bits_is_a_saving_of_half() -> None:
    anchor = [point(rate, 30 + 3 * math.log2(rate)) for rate in (0.1, 0.2, 0.4, 0.8)]
    half = [replace(each, bpp=each.bpp / 2) for each in anchor]
    assert curves.bd_rate(anchor, half, "psnr") == pytest.approx(-50, abs=0.1)
    assert curves.bd_rate(anchor, half[:1], "psnr") is None
    above = [replace(each, psnr=each.psnr + 50) for each in anchor]
    assert curves.bd_rate(anchor, above, "psnr") is None


def test_front_drops_what_is_beaten() -> None:
    points = [point(b, q) for b, q in ((0.1, 20), (0.3, 24), (0.2, 25), (0.2, 22), (0.4, 25))]
    assert [(p.bpp, p.psnr) for p in curves.pareto_front(points, "psnr")] == [(0.1, 20), (0.2, 25)]


def test_baselines_write_whole_files_and_come_back_at_full_size(
    dcu: Dcu, dataset: Path, own_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "SCALES", (1.0, 0.5))
    monkeypatch.setitem(baselines.FORMATS, "webp", replace(baselines.FORMATS["webp"], values=(5, 50)))
    plot = tmp_path / "rd.svg"
    model = own_models / "codec-0.0983"
    asked = ("--codec", model, "--baselines", "webp", "--plot", plot, "--json", "--record")
    lines = dcu("eval", "codec", dataset, *asked).lines
    ours, webp, against = lines[0], [line for line in lines if "setting" in line], lines[-1]
    assert {"quality 50", "quality 5, reduced to 0.5"} <= {line["setting"] for line in webp}
    first = baselines.FORMATS["webp"].encode(read_image((dataset / "n00000000/0.png").read_bytes()), 50, 1.0)
    assert Image.open(io.BytesIO(first)).size == (180, 170)
    assert all(line["count"] == 4 and line["encode_ms"] > 0 for line in webp)
    expected = ours["psnr"] - curves.quality_at(
        [point(line["bpp"], line["psnr"]) for line in webp], "psnr", ours["bpp"]
    )
    assert against["against"] == "webp"
    assert against["psnr_difference"] == pytest.approx(expected, abs=1e-3)
    (recorded,) = json.loads((model / "card.json").read_text())["results"]
    assert recorded["against"]["webp"]["psnr"] == against["psnr_difference"]
    assert plot.read_text().lstrip().startswith("<?xml")
    again = dcu("eval", "codec", dataset, "--plot", plot)
    assert again.code == 73
    assert not again.out, "it says so before it measures"


@pytest.mark.parametrize(
    "call",
    [("bench", "--baselines"), ("eval", "codec", "x", "--baselines"), ("eval", "baselines", "x", "--formats")],
)
def test_unknown_formats_are_refused_before_torch_is_imported(
    dcu: Dcu, call: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "start", None)  # the first that imports it
    answer = dcu(*call, "webp,gif")
    assert answer.code == 2
    assert answer.err == f"dcu: {call[-1]}: 'gif' is not one of {', '.join(options.FORMATS)}\n"


def test_baselines_that_are_not_there(dcu: Dcu, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dcu("eval", "codec", dataset, "--plot", tmp_path / "rd.bmp").code == 2
    monkeypatch.setitem(baselines.FORMATS, "jxl", replace(baselines.FORMATS["jxl"], plugin="no_such_plugin"))
    answer = dcu("eval", "codec", dataset, "--baselines", "jxl")
    assert answer.code == 69
    assert one_line(answer.err)


def test_largest_quality_that_fits() -> None:
    image, jpeg = smooth_image(64, 64), baselines.FORMATS["jpeg"]
    sizes = [len(jpeg.encode(image, quality, 1.0)) for quality in jpeg.fine]
    most = sizes[40]
    assert len(jpeg.fit(image, most)) == max(size for size in sizes if size <= most)
    assert len(jpeg.fit(image, 1)) == sizes[0]
    assert len(jpeg.fit(image, 10**6)) == sizes[-1]


def test_baseline_may_not_take_more_bytes() -> None:
    def contender(size: int, right: int) -> evaluate_classifier.Contender:
        return evaluate_classifier.Contender(
            Pipeline("original"), 0, lambda _: torch.zeros(1), sizes=[size] * 4, ranks=[0] * right + [1] * (4 - right)
        )

    large, good, poor = contender(700, 4), contender(600, 2), contender(100, 1)
    assert evaluate_classifier.pick([large, good, poor], 4 * 617) is good
    assert evaluate_classifier.pick([large, good, poor], 4 * 50) is poor


@pytest.mark.usefixtures("random_rgb")
def test_baselines_of_a_classifier_get_as_many_bytes(dcu: Dcu, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dcu("eval", "baselines", dataset, "--formats", "jpeg").code == 2  # three classes are not ImageNet's
    monkeypatch.setattr(evaluate_classifier, "check_imagenet", lambda _: None)
    monkeypatch.setattr(evaluate_classifier, "SIDES", (224, 64))
    monkeypatch.setitem(baselines.FORMATS, "jpeg", replace(baselines.FORMATS["jpeg"], fine=(1, 5, 10, 20, 40, 80)))
    rows = dcu("eval", "baselines", dataset, "--formats", "jpeg", "--json").lines
    names = ["classifier-0.0983", "RGB on codec-0.0983", "RGB on jpeg", "RGB on the original"]
    assert [row["name"].startswith(name) for row, name in zip(rows, names, strict=True)] == [True] * 4
    assert rows[0]["bytes"] == rows[1]["bytes"] >= rows[2]["bytes"]
    assert rows[1]["macs"] > rows[2]["macs"] == rows[3]["macs"] > rows[0]["macs"]
    assert rows[3]["bytes"] > 10 * rows[0]["bytes"]
    (plain,) = dcu("eval", "classifier", dataset, "--json").lines
    assert rows[0]["top1"] == pytest.approx(plain["top1"], abs=1e-3)


@pytest.mark.usefixtures("random_rgb", "own_models")
def test_a_recorded_comparison_stays_when_other_formats_are_measured(
    dcu: Dcu, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_classifier, "check_imagenet", lambda _: None)
    monkeypatch.setattr(evaluate_classifier, "SIDES", (64,))
    for name in ("jpeg", "webp"):
        monkeypatch.setitem(baselines.FORMATS, name, replace(baselines.FORMATS[name], fine=(1, 80)))

    def recorded(formats: str) -> tuple[Baseline, ...]:
        assert dcu("eval", "baselines", dataset, "--formats", formats, "--record").code == 0
        (found,) = store.find("classifier-0.0983").card.baselines
        assert (found.dataset, found.quality) == (dataset.name, None)
        return found.rows

    decoded, jpeg, original = recorded("jpeg")
    again, webp, kept, last = recorded("webp")
    assert (again, kept, last) == (decoded, jpeg, original)
    assert webp.source == "webp"
    assert recorded("jpeg") == (decoded, jpeg, webp, original)
    (dataset / "n00000000" / "0.png").unlink()
    assert len(recorded("jpeg")) == 3  # of fewer images


@pytest.mark.usefixtures("random_rgb")
def test_agreement_with_the_rgb_network_needs_no_labels(
    dcu: Dcu, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dcu("eval", "classifier", dataset, "--agreement").code == 2  # three classes are not ImageNet's
    monkeypatch.setattr(evaluate_classifier, "check_imagenet", lambda _: None)
    image = png(smooth_image(256, 256))
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "a.png").write_bytes(image)
    classifier = Classifier.load(engine="pytorch")
    said = (
        classifier.predict(
            classifier.look([classifier.codec.read(classifier.codec.compress(smooth_image(256, 256)[16:240, 16:240]))])
        )[0]
        .predictions[0]
        .index
    )
    view = torch.from_numpy(smooth_image(256, 256)[16:240, 16:240].copy())[None]
    teacher = int(RgbClassifier()(view).logits.argmax())
    assert evaluate_classifier.rgb_numbers(classifier, items(tmp_path / "loose")) == [teacher]
    for teacher, expected in ((said, 1.0), (said + 1, 0.0)):
        monkeypatch.setattr(evaluate_classifier, "rgb_numbers", lambda *_, teacher=teacher: [teacher])
        (metrics,) = dcu("eval", "classifier", tmp_path / "loose", "--agreement", "--json").lines
        assert metrics["agreement"] == expected
        assert "top1" not in metrics
    assert dcu("eval", "classifier", dataset, "--agreement", "--native").code == 2


def test_calibration_error_by_hand() -> None:
    confidence = torch.tensor([0.9, 0.91, 0.5, 0.5])
    right = torch.tensor([True, False, True, True])
    assert evaluate_classifier.calibration_error(confidence, right) == pytest.approx((0.81 + 1.0) / 4, abs=1e-4)
    assert evaluate_classifier.calibration_error(torch.ones(3), torch.ones(3).bool()) == 0


def test_temperature_that_makes_the_right_classes_most_probable() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4000, 5)
    numbers = torch.distributions.Categorical(logits=logits / 2.5).sample()
    answers = evaluate_classifier.Outputs(logits, numbers, 9, 0.1)
    assert evaluate_classifier.best_temperature(answers) == pytest.approx(2.5, rel=0.1)


def test_calibration_goes_on_the_card(dcu: Dcu, dataset: Path, own_models: Path) -> None:
    model = own_models / "classifier-0.0983"
    (metrics,) = dcu("eval", "calibrate", dataset, "--network", model, "--json").lines
    card = json.loads((model / "card.json").read_text())
    assert Classifier.load(model).temperature == card["temperature"] == metrics["temperature"] != 1
    assert dcu("eval", "classifier", dataset, "--record", "--native").code == 2


@pytest.mark.parametrize(
    ("call", "replacement"),
    [
        (("eval", "classifier", "x", "--calibrate"), "dcu eval calibrate"),
        (("eval", "classifier", "x", "--rivals", "webp"), "dcu eval baselines"),
        (("eval", "codec", "x", "--rivals", "webp"), "--baselines"),
        (("bench", "--rivals", "webp"), "--baselines"),
        (("train", "classifier", "--labels", "x"), "dcu train head"),
    ],
)
def test_options_of_earlier_versions_name_their_replacement(dcu: Dcu, call: tuple[str, ...], replacement: str) -> None:
    answer = dcu(*call)
    assert answer.code == 2
    assert one_line(answer.err)
    assert replacement in answer.err


def test_bits_a_symbol_of_the_same_symbols(codec: Codec, tmp_path: Path) -> None:
    """The integers cost next to nothing; the histogram is that of each channel."""
    for index in range(2):
        (tmp_path / f"{index}.png").write_bytes(png(smooth_image(160, 160, seed=index)))
    bits = bits_per_symbol(codec, items(tmp_path))
    assert bits.symbols == 2 * 3 * 20 * 20
    assert bits.integer == pytest.approx(bits.floating, rel=0.01)
    symbols = np.stack([codec.analyze(item.image()).numpy() for item in items(tmp_path)], 1).reshape(3, -1)
    shares = [np.unique(channel, return_counts=True)[1] / channel.size for channel in symbols]
    assert bits.histogram == pytest.approx(np.mean([-(p * np.log2(p)).sum() for p in shares]), abs=1e-3)


def test_ties_are_not_right() -> None:
    """One rule for what is evaluated and what is compared: an answer is right where its score is the highest alone."""
    scores = torch.tensor([[1.0, 2.0, 0.0], [2.0, 2.0, 0.0], [math.nan, 2.0, 0.0], [0.0, math.nan, 0.0]])
    numbers = torch.ones(4, dtype=torch.long)
    assert evaluate_classifier.ranks(scores, numbers).tolist() == [0, 1, 1, 2]
    metrics = evaluate_classifier.evaluate(evaluate_classifier.Outputs(scores[:2], numbers[:2], 9, 0.1), 1.0)
    contender = evaluate_classifier.Contender(Pipeline("original"), 0, lambda data: scores[int(data)])
    for row in range(4):
        contender.enter(b"%d" % row, 1)
    assert contender.result().top1 == 0.25
    assert (metrics.top1, metrics.top5) == (0.5, 1.0)


def test_what_was_compared_before_stays_on_the_card(tmp_path: Path) -> None:
    """`eval codec --record` without other formats, or with some of them."""
    model = write_codec(tmp_path / "codec")
    for against in ({"jpeg": Difference(1), "webp": Difference(2)}, {}, {"webp": Difference(3)}):
        model = store.record(model, Result("kodak", 6, against=against))
    (result,) = store.read_model(model.directory).card.results
    assert result.against == {"jpeg": Difference(1), "webp": Difference(3)}
    model = store.record(model, Result("kodak", 7))
    assert not model.card.results[0].against, "measured on other images"
