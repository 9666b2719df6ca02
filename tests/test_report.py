"""`dcu bench --html`: one file that needs nothing else, every figure drawn."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dcu import store
from dcu.bench import plots
from dcu.bench import report as bench_report
from dcu.image import ImageArray

from .conftest import Dcu, one_line, smooth_image, state_accuracy

pytestmark = pytest.mark.slow


@pytest.fixture
def page(dcu: Dcu, own_models: Path, random_rgb: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A report of one small image and two scales."""
    images: dict[str, ImageArray] = {"<street>": smooth_image(170, 200)}
    monkeypatch.setattr("dcu.evaluate.baselines.SCALES", (1.0, 0.5))
    monkeypatch.setattr("dcu.bench.report.report_images", lambda items: images)
    state_accuracy(store.find("classifier-0.0983"))
    place = tmp_path / "report.html"
    answer = dcu("bench", "--seconds", "0", "--batch", "1", "--baselines", "webp", "--html", place)
    assert answer.code == 0, answer.err
    return place


def shown() -> int:
    """Images that the report has: original, dcu's and webp's for each installed codec, and its masks."""
    return sum(3 + len(store.networks("segmenter", model.fingerprint)) for model in store.installed_codecs())


@pytest.mark.usefixtures("own_models")
@pytest.mark.parametrize(("seconds", "count"), [(None, 4), (0.0, 1), (30.0, 2), (1e6, 4)])
def test_seconds_bound_the_comparison_of_formats(
    monkeypatch: pytest.MonkeyPatch, seconds: float | None, count: int
) -> None:
    """An image costs a second for each codec and for each of a format's 11 settings."""
    now = [0.0]

    def costly(*given: Any) -> dict[str, Any]:
        now[0] += len(given[-1])
        return {}

    class Measured(Exception):  # noqa: N818
        pass

    def stop(ours: Any, theirs: Any) -> None:
        raise Measured

    monkeypatch.setattr("dcu.evaluate.baselines.SCALES", (1.0,))
    monkeypatch.setattr(bench_report, "time", SimpleNamespace(monotonic=lambda: now[0]))
    for name in ("evaluate", "measure_setting"):
        monkeypatch.setattr(bench_report, name, costly)
    monkeypatch.setattr("dcu.evaluate.curves.of", stop)
    images = {str(number): smooth_image(8, 8) for number in range(4)}
    with pytest.raises(Measured):
        bench_report.report([], images, ["webp"], seconds)
    of_one = now[0] / (count + (seconds is not None))
    assert of_one == len(store.installed_codecs()) + 11
    assert seconds is None or now[0] <= of_one + max(of_one, seconds)


def test_report_stands_alone(page: Path) -> None:
    text = page.read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert not re.search(r"url\((?!#)|@import|<script", text)
    assert (
        text.count("<img") == text.count('src="data:image/webp;base64,') == text.count('alt="&lt;street&gt;') == shown()
    )
    assert text.count("<svg") == text.count('role="img"') == 3  # accuracy, times of one batch size, rate-distortion
    assert plots.INK not in text
    assert "quoted from the card: some-val, 9 images" in text
    assert "prefers-color-scheme: dark" in text


@pytest.mark.skipif(not shutil.which("chromedriver"), reason="no Chromium with its driver is installed")
def test_a_browser_draws_all_of_it(page: Path) -> None:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        browser.set_window_size(390, 844)
        browser.get(page.as_uri())
        widths = browser.execute_script("return [...document.images].map(image => image.naturalWidth)")
        areas = browser.execute_script(
            "return [...document.querySelectorAll('svg path')].length && [...document.querySelectorAll('svg')]"
            ".map(figure => figure.getBoundingClientRect().width * figure.getBoundingClientRect().height)"
        )
        overflow = browser.execute_script("return document.body.scrollWidth - window.innerWidth")
        assert widths == [200] * shown()
        assert len(areas) == 3
        assert min(areas) > 10_000
        assert overflow <= 0  # wide tables and plots scroll in their own boxes
        assert browser.get_log("browser") == []
    finally:
        browser.quit()


def test_report_that_is_there_is_not_lost(dcu: Dcu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is anything measured first."""
    (tmp_path / "report.html").write_text("mine")
    monkeypatch.setattr("dcu.bench.table.time_runners", None)
    answer = dcu("bench", "--html", tmp_path / "report.html")
    assert answer.code == 73
    assert one_line(answer.err)
    assert (tmp_path / "report.html").read_text() == "mine"


def test_report_is_refused_before_anything_is_measured(
    dcu: Dcu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dcu.bench.report.find_spec", lambda name: None)
    answer = dcu("bench", "--html", tmp_path / "report.html")
    assert answer.code == 69
    assert one_line(answer.err)
