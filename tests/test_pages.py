"""Pages that are written from measurements: of made-up ones here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from dcu.cards import BdRate, Card, CodecMacs, Difference, Rates, Result, Training
from docs import codec2, paper
from docs.paper_networks import NETWORKS, learning_curve


def row(name: str, value: float, difference: float | None = None) -> dict[str, str]:
    """A row of results/paper.csv; differences have an error of 1 point."""
    row = {"name": name, "bpp": "0.1", "value": str(value), "se": "0.01", "top5": "0.9", "against": "other"}
    row |= {
        "macs": "80e6",
        "path_macs": "40e6" if "39" in name else "100e6",
        "full_path_macs": "40e6" if "39" in name else "80e6",
        "images": "500",
        "images_seen": "320000",
        "minutes": "27.5",
        "parameters": "1000",
    }
    found = {"difference": "" if difference is None else str(difference), "difference_se": "0.01"}
    return row | found


def stages(gains: Sequence[float]) -> str:
    """The experiment of joint training: what it gained at each rate, with an error of 1 point."""
    lines = [f"imagenet1000-val,d,0.1,{-gain},0.01\n" for gain in gains]
    return "".join(["data,stage,bpp,top1_difference,top1_difference_se\n", "imagenet1000-val,c,0.1,0,0.01\n", *lines])


@pytest.mark.parametrize(
    ("gains", "result"),
    [([0.03, 0.04], "agrees"), ([0.03, 0.0], "not decided"), ([0.03, -0.03], "does not agree")],
)
def test_claims_are_judged_by_two_standard_errors(
    gains: list[float], result: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "results.csv").write_text(stages(gains))
    monkeypatch.setattr(paper, "ROOT", tmp_path)
    monkeypatch.setattr(paper, "JOINT", tmp_path / "results.csv")
    monkeypatch.setattr(paper, "CURVES", tmp_path / "curves.csv")
    rows = {each.name: row(each.name, 0.5, 0.0) for each in NETWORKS}
    rows["cresnet51-0.0983"] = row("cresnet51-0.0983", 0.5, 0.015)
    rows["cresnet51-0.330"] = row("cresnet51-0.330", 0.5, -0.025)
    rows["cresnet51-d-0.0983"] = row("cresnet51-d-0.0983", 0.5, 0.03)
    results = [cells["result"] for cells in paper.claims(rows)]
    assert results == ["agrees", "does not agree: behind", "agrees", "agrees", "agrees", "agrees", result]
    text = paper.page(rows)
    assert "| cresnet51 | latent, codec at 0.330 | 0.1 | 50.0 ± 1.0 | 90.0 | 64.8 | 85.9 |" in text
    assert text.index("cresnet39-0.0983 | 80 | 40") < text.index("resnet50-0.0983 | 80 | 100")


def test_learning_curves_add_up_the_minutes_of_all_calls() -> None:
    lines = [
        (100, 60, {"held_top1": 0.25}),
        (130, 80, {}),
        (200, 40, {"held_top1": 0.5}),
        (300, 100, {"held_top1": 0.75}),
    ]
    log = "".join(json.dumps({"step": step, "seconds": seconds} | held) + "\n" for step, seconds, held in lines)
    curve = learning_curve("net", log)
    assert [(row["step"], row["minutes"], row["held_out"]) for row in curve] == [
        (100, 1.0, 0.25),
        (200, 2.0, 0.5),
        (300, 3.0, 0.75),
    ]


def test_page_of_codec_2() -> None:
    at = {"avif": Difference(0.25), "jxl": Difference(1.5)}
    results = tuple(
        Result(dataset, 12, quality=q, bpp=0.05 * (q + 1), bpp_se=0.01, psnr=24.0 + q, psnr_se=0.5, against=at)
        for dataset in ("kodak-odd", "imagenet20-val")
        for q in (9, 0)
    )
    rates = Rates("held", 500, tuple(0.04 * 1.05**q for q in range(64)), (1.0,) * 64)
    macs, training = CodecMacs(23_940, 30_048, 1_610), Training("codec-2", images={"a": 1_000, "b": 234})
    bd_rates = (BdRate("kodak-odd", 12, "avif", -2.04, 3.0),)
    text = codec2.page(
        Card(
            "codec",
            "ab" * 32,
            rates=rates,
            results=results,
            bd_rates=bd_rates,
            macs_per_pixel=macs,
            training=training,
            bytes=9_850_000,
        )
    )
    assert text.index("| 0 | 0.050 ± 0.010 | 24.00 ± 0.50 |  |") < text.index("| 9 | 0.500 ± 0.010 | 33.00 ± 0.50 |  |")
    assert "| 0 | 0.050 | +0.25 | +1.50 |" in text
    assert "| kodak-odd | AVIF | -2.0 | +3.0 |" in text
    assert "over 500 images" in text
    assert "9.8 MB in float16, trained on 1,234 images" in text
    assert "take 23.9, 30.0 and 1.6 thousand MACs" in text
