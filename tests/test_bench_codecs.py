"""`dcu bench` of codecs by themselves: one of 64 operating points, for which there is no classifier."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from dcu import store
from dcu.bench import codecs, crops
from dcu.bench.accuracy import Accuracy, measured
from dcu.bench.points import OperatingPoint, points_of
from dcu.cards import Rates
from dcu.codec import Codec
from dcu.data import items
from dcu.errors import UsageError
from dcu.evaluate import baselines
from dcu.evaluate import classifier as evaluate_classifier
from dcu.evaluate.cost import codec_cost
from dcu.evaluate.pipeline import Pipeline
from dcu.image import ImageArray, psnr, read_image

from .conftest import Dcu, one_line, png, smooth_image, write_variable_rate_codec

RATES = Rates("waves", 2, tuple(0.04 * 1.06**q for q in range(64)), (1.0,) * 64)


@pytest.fixture(autouse=True)
def codec_2(own_models: Path) -> store.Model:
    return write_variable_rate_codec(own_models / "codec-2", RATES)


@pytest.fixture(autouse=True)
def small_hd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "HD", (300, 500))


@pytest.mark.usefixtures("random_rgb")
def test_codec_without_a_classifier(dcu: Dcu) -> None:
    call = ("bench", "--codec", "codec-2", "--rate", "0.33", "--rate", "0.635")
    answer = dcu(*call, "--seconds", "0", "--batch", "1", "--baselines", "webp", "--json")
    assert answer.code == 0, answer.err
    alone = [line for line in answer.lines if "engine" not in line]
    assert [line["quality"] for line in alone] == [36, 47]
    for line in alone:
        assert all(line[key] > 0 for key in ("bpp", "psnr", "ms_ssim", "encode_ms", "decode_ms"))
        assert all(line[key] > 0 for key in ("encode_hd_ms", "decode_hd_ms", "analysis_macs", "synthesis_macs"))
    rows = [line for line in answer.lines if "engine" in line]
    assert [row["quality"] for row in rows] == [q for q in (36, 47) for _ in range(3)]
    decoded, webp, _ = (row["name"] for row in rows[:3])
    assert decoded == "RGB on codec-2"
    assert webp.startswith("RGB on webp ")
    assert {row["codec"] for row in answer.lines} == {"codec-2"}
    assert rows[0]["bytes"] < rows[3]["bytes"]


def test_row_is_that_of_real_files(own_models: Path, tmp_path: Path, codec_2: store.Model) -> None:
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(png(smooth_image(60, 70, seed=number)))
    found, codec = items(tmp_path), Codec.from_model(codec_2)
    row = codecs.codec_row(OperatingPoint(codec_2, 30), found, iter, 100, "cpu")
    images = [read_image(path) for path in sorted(tmp_path.glob("*.png"))]
    streams = [codec.compress(image, quality=30) for image in images]
    assert row.count == 2
    assert row.bytes == sum(map(len, streams)) / 2
    reached = [psnr(image, codec.decode(data)) for image, data in zip(images, streams, strict=True)]
    assert row.psnr == pytest.approx(sum(reached) / 2, abs=1e-3)
    assert row.ms_ssim is None, "too small"
    assert "quality" in codecs.columns([row])[0]


def test_context_model_costs_less_where_channels_are_off(codec_2: store.Model) -> None:
    codec = Codec.from_model(codec_2)
    low, high = codec_cost(codec, 8), codec_cost(codec, 9)
    assert low.context < high.context == codec_cost(codec).context
    assert low.synthesis == high.synthesis


def test_hd_image_is_timed_on_one_thread(codec_2: store.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []
    compress = Codec.compress

    def watched(self: Codec, image: ImageArray, **given: Any) -> bytes:
        seen.append((image.shape, torch.get_num_threads(), given))
        return compress(self, image, **given)

    monkeypatch.setattr(Codec, "compress", watched)
    before = torch.get_num_threads()
    codecs.hd_milliseconds(Codec.from_model(codec_2), smooth_image(40, 600), 20)
    assert seen[-1] == ((300, 500, 3), 1, {"quality": 20})
    assert torch.get_num_threads() == before


def test_operating_points_by_rate_and_by_quality(codec_2: store.Model, own_models: Path) -> None:
    def qualities(rates: list[float], named: list[int]) -> list[int | None]:
        return [point.quality for point in points_of(codec_2, rates, named)]

    assert qualities([], []) == [15, 36, 47], "nearest to 0.0983, 0.330 and 0.635 bpp"
    assert qualities([99.0, 0.01, 50.0], []) == [63, 0]
    assert qualities([], [7, 5, 7]) == [7, 5]
    fixed = store.find("codec-0.0983")
    assert points_of(fixed, [], []) == [OperatingPoint(fixed)]
    for rates, named in (([0.1], []), ([], [1])):
        with pytest.raises(UsageError, match="has one rate"):
            points_of(fixed, rates, named)
    with pytest.raises(UsageError, match="0 to 63"):
        points_of(codec_2, [], [64])
    bare = write_variable_rate_codec(own_models / "codec-3")
    assert [point.name for point in points_of(bare, [], [63])] == ["codec-3 at quality 63"]
    with pytest.raises(UsageError, match="states no rates"):
        points_of(bare, [], [])


@pytest.mark.parametrize(
    "options",
    [
        ["--quality", "3", "--rate", "0.1"],
        ["--codec", "codec-2", "--rate", "0"],
        ["--codec", "codec-0.0983", "--quality", "3"],
        ["--quality", "64"],
    ],
)
def test_wrong_calls_are_one_line(dcu: Dcu, options: list[str]) -> None:
    answer = dcu("bench", *options)
    assert answer.code == 2
    assert one_line(answer.err)


@pytest.mark.usefixtures("random_rgb")
def test_accuracy_of_the_rgb_network_alone(
    tmp_path: Path, codec_2: store.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_classifier, "SIDES", (64,))
    monkeypatch.setitem(baselines.FORMATS, "jpeg", baselines.PNG)
    place = tmp_path / "set" / "n01440764" / "0.png"
    place.parent.mkdir(parents=True)
    place.write_bytes(png(smooth_image(300, 300)))
    known = measured(OperatingPoint(codec_2, 20), "set", items(tmp_path / "set"), iter, ["jpeg"], "cpu")
    assert [pipeline.name for pipeline in known.metrics] == [
        *("RGB on codec-2", "RGB on jpeg 64x64", "RGB on the original")
    ]
    assert known.source == "measured on set, 1 of 1 images"


def test_a_codec_of_many_operating_points_has_a_curve_of_its_own(codec_2: store.Model) -> None:
    pipeline = Pipeline("decoded", "codec-2")
    assert Accuracy(OperatingPoint(codec_2, 3)).curve(pipeline) == "RGB on codec-2"
    fixed = OperatingPoint(store.find("codec-0.0983"))
    assert Accuracy(fixed).curve(Pipeline("decoded", "codec-0.0983")) == "RGB on decoded images"


def test_crops_are_the_center_at_full_size(codec_2: store.Model) -> None:
    image = smooth_image(210, 300)
    rows = crops.crops({"photo": image}, [OperatingPoint(codec_2, q) for q in (10, 50)], ["webp"])
    assert [len(row) for row in rows] == [3, 3]
    data = Codec.from_model(codec_2).compress(image, quality=50)
    assert [shown.caption.partition(":")[0] for shown in rows[1]] == ["original", "codec-2 at quality 50", "webp"]
    assert rows[1][1].caption.startswith(f"codec-2 at quality 50: {len(data)} bytes, ")


@pytest.mark.slow
@pytest.mark.usefixtures("random_rgb")
def test_report(dcu: Dcu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcu.evaluate.baselines.SCALES", (1.0,))
    monkeypatch.setattr("dcu.bench.report.report_images", lambda items: {"photo": smooth_image(170, 200)})
    place = tmp_path / "report.html"
    call = ("bench", "--codec", "codec-2", "--quality", "9", "--quality", "60", "--baselines", "webp")
    answer = dcu(*call, "--seconds", "0", "--batch", "1", "--html", place)
    assert answer.code == 0, answer.err
    text = place.read_text()
    assert len(re.findall(r'alt="photo, a part of the original"', text)) == 2
    assert "codec-2 at quality 60: accuracy, cost, latency" in text
    summary = text[text.index('id="summary"') : text.index("</section>")]
    assert re.search(r"<strong>RGB on codec-2 is [\d.]+ times as fast as RGB on webp", summary)
