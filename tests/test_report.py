"""`dcu bench --html`: one file that needs nothing else, every figure drawn."""

from __future__ import annotations

import base64
import io
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from dcu import store
from dcu.bench import gallery, plots
from dcu.bench import report as bench_report
from dcu.codec import Codec
from dcu.evaluate import curves
from dcu.evaluate.codec import MEASURED_POINTS
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


CROPS = 3
"""Original, dcu's and webp's."""


WHOLE = 3
"""The same of the whole image, at the operating point that is benchmarked."""


@pytest.mark.usefixtures("own_models")
@pytest.mark.parametrize(("seconds", "count"), [(None, 4), (0.0, 1), (50.0, 2), (1e6, 4)])
def test_seconds_bound_the_comparison_of_formats(
    monkeypatch: pytest.MonkeyPatch, seconds: float | None, count: int
) -> None:
    """An image costs a second for each operating point of each codec, and for each of a format's 11 settings."""
    now = [0.0]

    def costly(*given: Any) -> dict[str, Any]:
        now[0] += len(given[1] if isinstance(given[0], Codec) else given[-1])
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
    points = [min(model.card.points, MEASURED_POINTS) for model in store.installed_codecs()]
    assert of_one == sum(points) + 11
    assert seconds is None or now[0] <= of_one + max(of_one, seconds)


def test_report_stands_alone(page: Path) -> None:
    text = page.read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert not re.search(r"url\((?!#)|@import|<script", text)
    assert (
        text.count("<img")
        == text.count('src="data:image/jpeg;base64,')
        == text.count('alt="&lt;street&gt;')
        == CROPS + WHOLE
    )
    assert text.count("<svg") == text.count('role="img"') == 3  # accuracy, times of one batch size, rate-distortion
    assert plots.INK not in text
    assert "quoted from the card: some-val, 9 images" in text
    assert "prefers-color-scheme: dark" in text


def test_summary_comes_first(page: Path) -> None:
    text = page.read_text()
    assert text.index('id="summary"') < text.index("<h2>")
    summary = text[text.index('id="summary"') : text.index("</section>")]
    assert re.search(r"<strong>classifier-0.0983 is [\d.]+ times as fast as RGB on webp \d+x\d+", summary)
    assert re.findall(r"<th scope=\"col\">(.+?)</th>", summary) == ["pipeline", "top-1", "speed-up", "ms", "bytes"]


def test_series_differ_in_color_and_marker() -> None:
    looks = [curves.style(index) for index in range(10)]
    assert len({look["color"] for look in looks}) == len({look["marker"] for look in looks}) == 10


def test_images_are_small_on_the_page() -> None:
    shown = gallery.show(smooth_image(900, 1600), "alt", "caption", [])
    with Image.open(io.BytesIO(base64.b64decode(shown.source.partition(",")[2]))) as image:
        assert image.size == (384, 216)
        assert image.format == "JPEG"


@pytest.mark.skipif(not shutil.which("chromedriver"), reason="no Chromium with its driver is installed")
def test_a_browser_draws_all_of_it(page: Path) -> None:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        for width in (1280, 390):
            size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": False}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            browser.get(page.as_uri())
            assert browser.execute_script("return window.innerWidth") == width
            boxes = browser.execute_script(
                "return [...document.querySelectorAll('#summary th, #summary td, #summary strong')]"
                ".map(cell => cell.getBoundingClientRect()).map(box => [box.left, box.right, box.bottom])"
            )
            assert len(boxes) > 10
            assert all(0 <= left < right <= width for left, right, _ in boxes)  # top-1 and speed-up among them
            assert max(bottom for *_, bottom in boxes) <= 844
        widths = browser.execute_script("return [...document.images].map(image => image.naturalWidth)")
        areas = browser.execute_script(
            "return [...document.querySelectorAll('svg path')].length && [...document.querySelectorAll('svg')]"
            ".map(figure => figure.getBoundingClientRect().width * figure.getBoundingClientRect().height)"
        )
        overflow = browser.execute_script("return document.body.scrollWidth - window.innerWidth")
        assert widths == [192] * CROPS + [200] * WHOLE
        assert len(areas) == 3
        assert min(areas) > 10_000
        assert overflow <= 0  # wide tables and plots scroll in their own boxes
        assert browser.get_log("browser") == []
        pdf = len(base64.b64decode(browser.print_page()))
        assert pdf < min(5e6, 2 * page.stat().st_size)  # JPEG is not written anew
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
    monkeypatch.setattr("dcu.pages.find_spec", lambda name: None)
    answer = dcu("bench", "--html", tmp_path / "report.html")
    assert answer.code == 69
    assert one_line(answer.err)
