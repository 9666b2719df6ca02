"""`dcu eval codec`: baselines by name, BD-rates on cards, published curves, CompressAI's result format."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from dcu import cards, store
from dcu.evaluate import baselines, curves, published
from dcu.evaluate.codec import Point
from dcu.image import read_image

from .conftest import Dcu, one_line, png, smooth_image, write_variable_rate_codec


@pytest.fixture
def codec_2(own_models: Path) -> store.Model:
    return write_variable_rate_codec(own_models / "codec-2")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    directory = tmp_path / "images"
    directory.mkdir()
    for index in range(2):
        (directory / f"{index}.png").write_bytes(png(smooth_image(40, 48, seed=index)))
    return directory


@pytest.fixture(autouse=True)
def few_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "SCALES", (1.0,))
    monkeypatch.setattr("dcu.evaluate.codec.MEASURED_POINTS", 4)
    for name in ("avif", "avif-psnr", "jpeg"):
        monkeypatch.setitem(baselines.FORMATS, name, replace(baselines.FORMATS[name], values=(5, 20, 50, 80)))


def test_avif_is_what_pillow_writes_by_default() -> None:
    image, buffer = smooth_image(64, 80), io.BytesIO()
    Image.fromarray(image).save(buffer, "AVIF", quality=40)
    assert baselines.FORMATS["avif"].encode(image, 40, 1.0) == buffer.getvalue()


def test_avif_for_psnr_keeps_the_chroma_that_its_name_says() -> None:
    """A pixel of another color in each pair: only 4:4:4 tells them apart."""
    image = smooth_image(64, 64)
    image[:] = (200, 60, 60)
    image[::2, ::2] = (60, 60, 200)
    errors = {}
    for name in ("avif-psnr", "avif-psnr-444"):
        data = baselines.FORMATS[name].encode(image, 90, 1.0)
        errors[name] = abs(read_image(data).astype(int) - image).mean()
    assert errors["avif-psnr-444"] < errors["avif-psnr"] / 2


def test_savings_are_on_the_card(dcu: Dcu, images: Path, codec_2: store.Model) -> None:
    call = ("eval", "codec", images, "--codec", "codec-2", "--record", "--json", "--baselines")
    lines = dcu(*call, "jpeg,avif").lines
    stated = {line["against"]: line["bd_rate_psnr"] for line in lines if "bd_rate_psnr" in line}
    assert list(stated) == ["jpeg", "avif"]

    def on_card() -> dict[str, float | None]:
        rates = store.read_model(codec_2.directory).card.bd_rates
        assert {(rate.dataset, rate.count) for rate in rates} == {("images", 2)}
        return {rate.against: rate.psnr for rate in rates}

    assert on_card() == stated
    dcu(*call, "avif-psnr")
    dcu(*call, "jpeg")
    assert list(on_card()) == ["avif", "avif-psnr", "jpeg"], "those of other formats stay"


def test_two_codecs_of_one_name_are_refused(dcu: Dcu, images: Path, tmp_path: Path, codec_2: store.Model) -> None:
    shutil.copytree(codec_2.directory, tmp_path / "codec-2")
    answer = dcu("eval", "codec", images, "--codec", codec_2.directory, "--codec", tmp_path / "codec-2", "--record")
    assert (answer.code, "one name" in answer.err) == (2, True)


def test_some_of_the_images_are_measured(dcu: Dcu, images: Path) -> None:
    call = ("eval", "codec", images, "--codec", "codec-0.0983", "--json")
    assert [dcu(*call, *some).lines[0]["count"] for some in ((), ("--images", "1"), ("--images", "9"))] == [2, 1, 2]
    assert dcu(*call, "--images", "0").code == 2


def test_rate_replaces_one_of_the_same_images_and_format() -> None:
    rate = cards.BdRate("kodak-odd", 12, "avif", -3.0)
    assert rate.replaces(replace(rate, psnr=4.0))
    assert not rate.replaces(replace(rate, against="webp"))
    assert not rate.replaces(replace(rate, dataset="other"))


def test_published_curves_are_drawn_and_nothing_else(
    dcu: Dcu, images: Path, tmp_path: Path, codec_2: store.Model
) -> None:
    call = (
        "eval",
        "codec",
        images,
        "--codec",
        "codec-2",
        "--baselines",
        "jpeg",
        "--json",
        "--plot",
        tmp_path / "a.svg",
    )
    without = dcu(*call)
    texts = [(tmp_path / "a.svg").read_text()]
    answer = dcu(*call, "--force", "--published")
    texts.append((tmp_path / "a.svg").read_text())
    label = "<!-- VTM (published, 24 Kodak images) -->"
    assert [label in text for text in texts] == [False, True]
    assert [sorted(line) for line in answer.lines] == [sorted(line) for line in without.lines]
    assert "VTM" not in answer.out
    refused = dcu("eval", "codec", images, "--published")
    assert refused.code == 2
    assert one_line(refused.err)


def test_published_points_rise() -> None:
    points = published.published_points()
    for name in ("BPG 4:4:4", "VTM"):
        curve = [(point.bpp, point.psnr, point.ms_ssim) for point in points if point.name == name]
        assert len(curve) == 8
        for column in zip(*curve, strict=True):
            assert list(column) == sorted(column)
    assert {point.images for point in points} == {24}


def test_file_of_compressai(dcu: Dcu, images: Path, tmp_path: Path, codec_2: store.Model) -> None:
    place = tmp_path / "rd.json"
    call = ("eval", "codec", images, "--compressai", place, "--json")
    lines = dcu(*call, "--codec", "codec-2").lines
    content = json.loads(place.read_text())
    assert list(content) == ["name", "description", "results"]
    assert content["name"] == "codec-2"
    assert "images, 2 images" in content["description"]
    results = content["results"]
    assert set(results) == {"psnr-rgb", "bpp", "encoding_time", "decoding_time"}, "images are too small for MS-SSIM"
    points = sorted(lines, key=lambda line: line["bpp"])
    for key, name in (("bpp", "bpp"), ("psnr-rgb", "psnr")):
        assert results[key] == [line[name] for line in points]
    assert results["encoding_time"] == pytest.approx([line["encode_ms"] / 1e3 for line in points])
    again = dcu(*call, "--codec", "codec-2")
    assert (again.code, again.out) == (73, ""), "it says so before it measures"
    assert dcu(*call, "--codec", "codec-0.0983", "--force").code == 0
    assert json.loads(place.read_text())["name"] == "dcu"


def test_ms_ssim_where_images_are_large_enough(dcu: Dcu, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").write_bytes(png(smooth_image(170, 180)))
    call = ("eval", "codec", tmp_path / "images", "--codec", "codec-0.0983", "--json")
    (line,) = dcu(*call, "--compressai", tmp_path / "rd.json").lines
    assert json.loads((tmp_path / "rd.json").read_text())["results"]["ms-ssim-rgb"] == [line["ms_ssim"]]


@pytest.mark.usefixtures("codec_2")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--compressai", "rd.txt"], "must end in .json"),
        (["--compressai", "rd.json", "--codec", "codec-2", "--codec", "codec-0.0983"], "holds one curve"),
        (["--plot", "rd.bmp"], "must end in .svg, .png or .pdf"),
        (["--codec", "codec-0.0983", "--quality", "3"], "has one rate"),
        (["--codec", "codec-2", "--quality", "3", "--record"], "--record is for the whole curve"),
    ],
)
def test_wrong_calls(dcu: Dcu, images: Path, options: list[str], message: str) -> None:
    answer = dcu("eval", "codec", images, *options)
    assert answer.code == 2
    assert one_line(answer.err)
    assert message in answer.err


def test_table_of_codecs_of_one_rate_and_of_many(dcu: Dcu, images: Path, codec_2: store.Model) -> None:
    """Every row has a cell below each heading; of rates that the other format does not reach there is none."""
    call = ("eval", "codec", images, "--codec", "codec-0.0983", "--codec", "codec-2", "--baselines", "webp")
    lines = dcu(*call).out.splitlines()
    start = next(index for index, line in enumerate(lines) if "psnr_difference" in line)
    heading, *rows = lines[start], *lines[start + 2 : lines.index("", start)]
    assert heading.split()[:4] == ["name", "quality", "bpp", "against"]
    assert {row.split()[0] for row in rows} == {"codec-2"}
    assert 0 < len(rows) < 4
    assert all(row.index("webp") == heading.index("against") for row in rows)


def measured(name: str, quality: int | None, bpp: float) -> Point:
    return Point(name, quality, None, 1, 9, bpp, None, 20 + 10 * bpp, None, None, None, 1, 1)


def test_differences_within_the_rates_of_a_format_alone() -> None:
    ours = [measured("codec-0.1", None, 0.1), *(measured("codec-2", q, q / 10) for q in (0, 1, 2, 3))]
    theirs = [measured("webp", None, 0.1), measured("webp", None, 0.2)]
    gains = curves.gains(ours, curves.of(ours, theirs))
    assert [(gain.point.name, gain.point.quality) for gain in gains] == [
        *(("codec-0.1", None), ("codec-2", 1), ("codec-2", 2))
    ]
    rows = curves.table(gains)
    assert [row["quality"] for row in rows] == [None, 1, 2]
    assert len({tuple(row) for row in rows}) == 1
