"""``compress --quality``, ``--rate``, ``--target-bytes``, ``--fit``; what the other commands say of such files."""

from __future__ import annotations

from pathlib import Path

import pytest

from dcu import bitstream, store
from dcu.cards import Rates
from dcu.codec import Codec
from dcu.image import read_image

from .conftest import Dcu, one_line, png, smooth_image, write_variable_rate_codec

RATES = Rates("waves", 2, tuple(0.04 * 1.06**q for q in range(64)), (1.0,) * 64)


@pytest.fixture(autouse=True)
def codec_2(own_models: Path, monkeypatch: pytest.MonkeyPatch) -> store.Model:
    monkeypatch.setitem(store.DEFAULTS, "codec", "codec-2")
    return write_variable_rate_codec(own_models / "codec-2", RATES)


def stream_of(path: Path) -> bitstream.Stream:
    return bitstream.read(path.read_bytes())


@pytest.mark.parametrize(
    ("options", "quality"),
    [
        (["--quality", "40"], 40),
        (["--codec", "codec-2", "--quality", "0"], 0),
        (["--codec", "codec-2", "--rate", "0.5"], 43),
        (["--codec", "codec-2", "--rate", "99"], 63),
        (["--codec", "codec-2"], 15),
    ],
)
def test_quality(dcu: Dcu, photo: Path, tmp_path: Path, options: list[str], quality: int) -> None:
    out = tmp_path / "photo.bin"
    (line,) = dcu("compress", photo, "-o", out, "--json", *options).lines
    assert (line["codec"], line["quality"]) == ("codec-2", quality)
    assert stream_of(out).operating_point == quality


def test_what_python_writes(dcu: Dcu, photo: Path, tmp_path: Path, codec_2: store.Model) -> None:
    dcu("compress", photo, "-o", tmp_path / "photo.bin", "--quality", "30")
    data = Codec.from_model(codec_2).compress(read_image(photo), quality=30)
    assert (tmp_path / "photo.bin").read_bytes() == data


def test_budget_and_psnr(dcu: Dcu, tmp_path: Path) -> None:
    image = tmp_path / "large.png"
    image.write_bytes(png(smooth_image(160, 200)))
    out = tmp_path / "large.bin"
    assert dcu("compress", image, "-o", out, "--codec", "codec-2", "--target-bytes", "1200").code == 0
    assert len(out.read_bytes()) <= 1200
    impossible = dcu("compress", image, "-o", out, "--force", "--codec", "codec-2", "--target-bytes", "100")
    assert (impossible.code, len(out.read_bytes()) > 100) == (2, True)
    assert one_line(impossible.err)
    assert "the smallest file has" in impossible.err
    refused = dcu("compress", image, "-o", out, "--force", "--target-bytes", "100")
    assert (refused.code, "; --fit reduces the image" in refused.err) == (2, True)
    answer = dcu("compress", image, "-o", out, "--force", "--target-bytes", "100", "--fit", "--json")
    fitted = stream_of(out)
    area = fitted.full.width * fitted.full.height
    assert (answer.code, answer.lines[0]["bpp"]) == (0, round(8 * fitted.size / area, 6))
    assert fitted.size <= 100
    assert fitted.full.width < 200
    assert dcu("compress", image, "-o", out, "--force", "--codec", "codec-2", "--target-psnr", "15").code == 0
    assert dcu("compress", image, "-o", out, "--force", "--codec", "codec-2", "--target-psnr", "90").code == 2


@pytest.mark.parametrize(
    "options",
    [
        ["--quality", "3", "--rate", "0.1"],
        ["--quality", "3", "--target-bytes", "900"],
        ["--target-psnr", "30", "--target-bytes", "900"],
        ["--codec", "codec-0.0983", "--quality", "3"],
        ["--codec", "codec-0.0983", "--rate", "0.0983"],
        ["--codec", "codec-0.0983", "--target-bytes", "900"],
        ["--codec", "codec-0.0983", "--fit", "--target-bytes", "900"],
        ["--codec", "codec-2", "--rate", "0"],
        ["--codec", "codec-2", "--rate", "nan"],
        ["--fit"],
        ["--quality", "64"],
        ["--quality", "-1"],
    ],
)
def test_options_that_exclude_each_other(dcu: Dcu, photo: Path, tmp_path: Path, options: list[str]) -> None:
    ran = dcu("compress", photo, "-o", tmp_path / "photo.bin", *options)
    assert ran.code == 2
    assert not (tmp_path / "photo.bin").exists()


def test_codec_that_states_no_rates(dcu: Dcu, photo: Path, tmp_path: Path, own_models: Path) -> None:
    write_variable_rate_codec(own_models / "codec-2")
    out = tmp_path / "photo.bin"
    for options in ((), ("--rate", "0.3")):
        ran = dcu("compress", photo, "-o", out, "--codec", "codec-2", *options)
        assert ran.code == 2
        assert one_line(ran.err)
        assert "states no rates: name the quality, 0 to 63" in ran.err
    assert dcu("compress", photo, "-o", out, "--quality", "63").code == 0
    assert dcu("verify", out).code == 0


def test_info_shows_quality_and_groups(dcu: Dcu, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "photo.bin"
    dcu("compress", photo, "-o", out, "--quality", "5")
    (facts,) = dcu("info", out, "--json").lines
    assert facts["quality"] == 5
    assert facts["not_coded"] == pytest.approx(1 / 3, abs=1e-3)
    (layer,) = facts["layers"]
    assert len(layer["groups"]) == 2
    assert sum(layer["groups"]) == layer["bytes"]
    shown = dcu("info", out).out
    assert "quality   5 of 0 to 63, 33 % of symbols not coded" in shown
    assert f"groups    {layer['groups'][0]} + {layer['groups'][1]} bytes" in shown


def test_thumbnail_alone(dcu: Dcu, tmp_path: Path) -> None:
    image, out, back = tmp_path / "large.png", tmp_path / "large.bin", tmp_path / "back.png"
    image.write_bytes(png(smooth_image(1030, 1100)))
    for codec in ("codec-2", "codec-0.0983"):
        assert dcu("compress", image, "-o", out, "--codec", codec, "--force").code == 0
        assert dcu("decode", out, "-o", back, "--thumbnail", "--force").code == 0
        assert read_image(back).shape == (256, 273, 3)
        assert dcu("compress", image, "-o", out, "--codec", codec, "--thumbnail-only", "--force").code == 0
        stream = stream_of(out)
        assert (stream.full.width, stream.full.height, stream.thumbnail) == (273, 256, None)


def test_no_classifier_for_it(dcu: Dcu, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "photo.bin"
    dcu("compress", photo, "-o", out, "--quality", "5")
    for command in ("classify", "embed"):
        ran = dcu(command, out, *(["-o", tmp_path / "x.npy"] if command == "embed" else []))
        assert ran.code == 69
        assert one_line(ran.err)
        assert "no classifier for codec-2 is installed; available for codec-0.0983" in ran.err


def test_rates_are_measured_and_recorded(dcu: Dcu, tmp_path: Path, codec_2: store.Model) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for index in range(3):
        (images / f"{index}.png").write_bytes(png(smooth_image(40, 48, seed=index)))
    lines = dcu("eval", "rates", images, "--codec", "codec-2", "--images", "2", "--record", "--json").lines
    assert [line["quality"] for line in lines] == list(range(64))
    rates = store.read_model(codec_2.directory).card.rates
    assert rates is not None
    assert (rates.dataset, rates.count, list(rates.bpp)) == ("images", 2, [line["bpp"] for line in lines])
    assert dcu("eval", "rates", images, "--codec", "codec-0.0983").code == 2


def test_models_verify(dcu: Dcu) -> None:
    assert dcu("models", "verify", "codec-2").code == 0
    assert "codec-2" in dcu("models", "list").out


def test_curve_of_its_own(dcu: Dcu, tmp_path: Path, codec_2: store.Model) -> None:
    """Ten points, apart from the codecs of one rate; recorded with their operating points."""
    images = tmp_path / "images"
    images.mkdir()
    for index in range(2):
        (images / f"{index}.png").write_bytes(png(smooth_image(40, 48, seed=index)))
    call = ("eval", "codec", images, "--codec", "codec-2", "--codec", "codec-0.0983", "--baselines", "webp", "--json")
    lines = dcu(*call, "--record", "--plot", tmp_path / "rd.png").lines
    points = [line["quality"] for line in lines if line["name"] == "codec-2" and "psnr" in line]
    assert points == [0, 7, 14, 21, 28, 35, 42, 49, 56, 63]
    assert [line["name"] for line in lines if "bd_rate_psnr" in line] == ["codec-2"]
    results = store.read_model(codec_2.directory).card.results
    assert [result.quality for result in results] == points
    assert {name for result in results for name in result.against} == {"webp"}
    assert (tmp_path / "rd.png").stat().st_size > 1000
    chosen = dcu("eval", "codec", images, "--codec", "codec-2", "--quality", "21", "--quality", "3", "--json").lines
    assert [line["quality"] for line in chosen] == [21, 3]
    (same,) = (line for line in lines if line.get("quality") == 21 and "psnr" in line)
    assert chosen[0]["psnr"] == same["psnr"]


def test_streams_for_machines(dcu: Dcu, photo: Path, tmp_path: Path, own_models: Path) -> None:
    """Their rates are their own, measured and recorded apart from those of streams for people."""
    model = write_variable_rate_codec(own_models / "codec-7", RATES, adapter=2)
    out, call = tmp_path / "photo.bin", ("compress", photo, "--codec", "codec-7", "--for", "machines", "--force", "-o")
    assert "no rates" in dcu(*call, out, "--rate", "0.5").err
    assert dcu(*call, out, "--quality", "40").code == 0
    written = out.read_bytes()
    assert stream_of(out).header.machines
    assert written == Codec.from_model(model).compress(read_image(photo), quality=40, machines=True)
    assert dcu("decode", out, "-o", tmp_path / "back.png").code == 0
    assert dcu("info", out, "--json").lines[0]["machines"] is True
    measured = dcu("eval", "rates", photo.parent, "--codec", "codec-7", "--for", "machines", "--record", "--json").lines
    card = store.read_model(model.directory).card
    assert card.rates == RATES
    assert card.machine_rates is not None
    assert list(card.machine_rates.bpp) == [line["bpp"] for line in measured]
    (line,) = dcu(*call, out, "--rate", str(card.machine_rates.bpp[20]), "--json").lines
    assert (line["quality"], stream_of(out).header.machines) == (20, True)
    for made_for in ("people", "machines"):
        evaluate = ("eval", "codec", photo.parent, "--codec", "codec-7", "--baselines", "webp", "--record")
        assert dcu(*evaluate, "--for", made_for).code == 0
    card = store.read_model(model.directory).card
    assert [result.machines for result in card.results] == 10 * [False] + 10 * [True]
    assert [rate.machines for rate in card.bd_rates] == [False, True]


@pytest.mark.parametrize("codec", ["codec-2", "codec-0.0983"])
def test_no_streams_for_machines(dcu: Dcu, photo: Path, tmp_path: Path, codec: str) -> None:
    for call in (
        ("compress", photo, "-o", tmp_path / "a.bin"),
        ("eval", "codec", photo.parent),
        ("eval", "rates", photo.parent),
    ):
        ran = dcu(*call, "--codec", codec, "--for", "machines")
        assert (ran.code, ran.out) == (2, "")
        assert f"{codec} makes no streams for machines" in ran.err
    ran = dcu("eval", "classifier", photo.parent, "--network", "classifier-0.0983", "--for", "machines")
    assert "codec-0.0983 makes no streams for machines" in ran.err
