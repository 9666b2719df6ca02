"""docs/scale.md: it is what results/scale.csv gives, and its figures follow from seconds and bytes per image."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from docs import measure, scale
from docs.measure import ENCODE, LABEL, Row
from docs.results import RESULTS, as_csv

ROW = Row("compress", "0.0983", 224, "PyTorch float32", 0.02, 80000.0, 640.0, 300.0, 100, "d", 4, "m", "2026-11-29")


def rows(**seconds: float) -> list[Row]:
    """One rate whose steps take so many seconds."""
    steps = dict.fromkeys((*measure.OUTPUTS, ENCODE, LABEL), 0.02) | seconds
    return [replace(ROW, step=step, seconds=each) for step, each in steps.items()]


def test_the_page_is_that_of_the_measurement() -> None:
    assert scale.PAGE.read_text("utf-8") == scale.page(scale.measured()), "run `make scale`"


def test_measurements_are_kept_as_csv() -> None:
    found = scale.measured()
    assert as_csv([asdict(row) for row in found]) == (RESULTS / "scale.csv").read_text("utf-8")
    assert {row.step for row in found} == {*measure.OUTPUTS, ENCODE, LABEL}
    assert {row.rate for row in found} == set(measure.RATES)


def test_start_up_cancels_out() -> None:
    assert measure.per_image(3.0 + 101 * 0.5, 3.0 + 0.5, 101) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="more images"):
        measure.per_image(3.0, 3.5, 101)


def test_totals_follow_the_formula() -> None:
    (speed, *_), (total, *_) = scale.speeds(rows()), scale.totals(rows())
    assert speed["images per second and core"] == "12.5"  # 1 / (0.02 * 4)
    assert total["10^6: core hours"] == "22.2"  # 1e6 * 0.02 * 4 / 3600
    assert total["10^9: core hours"] == "22,200"
    assert total["hours on 64 cores"] == "0.35"
    assert total["hours on 64 cores "] == "347"
    assert (total["GB"], total["TB"]) == ("0.64", "0.64")


def test_avif_is_beside_dcu() -> None:
    ours, theirs = scale.beside(rows(**{"classify": 0.01, LABEL: 0.03}))
    assert (ours["core hours to label"], theirs["core hours to label"]) == ("11,100", "33,300")
    assert ours["core hours to store"] == theirs["core hours to store"] == "22,200"


@pytest.mark.parametrize(
    ("seconds", "read", "found"),
    [
        ({"compress": 0.05}, 8e4, "CPU time of `compress`"),
        ({"embed": 0.05}, 8e4, "CPU time of `embed`"),
        ({"decode": 0.05, "classify": 0.03}, 8e4, "CPU time of `classify`"),
        ({"compress": 0.05}, 5e6, "the link of `compress`"),
    ],
)
def test_the_bottleneck_is_decided_by_the_figures(seconds: dict[str, float], read: float, found: str) -> None:
    made = [replace(row, read=read if row.step == "compress" else 640.0) for row in rows(**seconds)]
    assert found in scale.bottleneck(made, "0.0983")


def test_a_process_has_its_own_seconds_and_memory() -> None:
    seconds, resident = measure.run("--version")
    assert 0 < seconds < 120
    assert 5 < resident < 1000


def test_avif_is_encoded_within_a_byte_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    from .conftest import smooth_image

    images = [smooth_image(224, 224, seed) for seed in range(3)]
    quality = measure.fitting(images, 112, 1000.0)
    paths = [tmp_path / f"{seed}.png" for seed in range(3)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    monkeypatch.setattr(measure, "per_image", lambda *_: 0.0)  # so few take no measurable time
    _, written = measure.encoding(paths, 112, quality)
    assert 0 < written <= 1000
    assert sorted(tmp_path.iterdir()) == paths
