from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from dcu.codec import Codec
from dcu.evaluate.codec import ms_ssim, psnr
from dcu.image import field_crop, read_picture
from dcu.tasks.classify import Classifier

from .conftest import Dcu, png, smooth_picture


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    for index in range(4):
        path = tmp_path / "set" / f"n{index % 3:08}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(smooth_picture(170, 180, seed=index)))
    return tmp_path / "set"


def test_psnr_by_hand() -> None:
    black = np.zeros((2, 2, 3), np.uint8)
    assert psnr(black, black + 1) == pytest.approx(10 * math.log10(255**2))
    assert psnr(black, black) == math.inf


def test_ms_ssim_of_equal_and_of_small_pictures() -> None:
    picture = smooth_picture(170, 180)
    assert ms_ssim(picture, picture) == pytest.approx(1)
    assert math.isnan(ms_ssim(picture[:100], picture[:100]))


def test_codec_figures_are_those_of_real_files(dcu: Dcu, codec: Codec, dataset: Path) -> None:
    (figures,) = dcu("eval", "codec", dataset, "--json").lines
    streams = {p: codec.compress(read_picture(p.read_bytes())) for p in sorted(dataset.rglob("*.png"))}
    assert figures["dataset"] == "set"
    assert figures["count"] == 4
    assert figures["bpp"] == pytest.approx(8 * sum(map(len, streams.values())) / (4 * 170 * 180), abs=1e-5)
    expected = np.mean([psnr(read_picture(p.read_bytes()), codec.decode(s)) for p, s in streams.items()])
    assert figures["psnr"] == pytest.approx(float(expected), abs=1e-3)


def test_classifier_figures(dcu: Dcu, dataset: Path) -> None:
    (figures,) = dcu("eval", "classifier", dataset, "--json").lines
    assert set(figures) == {"dataset", "count", "top1", "top5", "bpp"}
    classifier = Classifier.load()
    codec = classifier.codec
    best = {
        p: classifier(codec.compress(field_crop(read_picture(p.read_bytes()), 224, 256))).best.wnid
        for p in dataset.rglob("*.png")
    }
    assert figures["count"] == len(best)
    assert figures["top1"] == pytest.approx(sum(p.parent.name == wnid for p, wnid in best.items()) / len(best))
    assert figures["top5"] == 1  # of three classes


def test_broken_picture_of_a_data_set_is_named(dcu: Dcu, dataset: Path) -> None:
    (dataset / "n00000000" / "9.png").write_bytes(b"no picture")
    answer = dcu("eval", "codec", dataset)
    assert answer.code == 65
    assert "n00000000/9.png" in answer.err


def test_folder_that_is_no_class(dcu: Dcu, dataset: Path) -> None:
    (dataset / "n00000000").rename(dataset / "cats")
    answer = dcu("eval", "classifier", dataset)
    assert answer.code == 65
    assert "'cats'" in answer.err


def test_figures_are_recorded_on_the_card(dcu: Dcu, dataset: Path, own_models: Path) -> None:
    model = own_models / "codec-0.0983"
    for _ in range(2):
        (figures,) = dcu("eval", "codec", dataset, "--codec", model, "--json", "--record").lines
    (recorded,) = json.loads((model / "card.json").read_text())["figures"]
    assert {key: recorded[key] for key in figures} == figures
    assert set(recorded) - set(figures) == {"date"}
    assert dcu("models", "verify", model).code == 0
