"""Pages that are written from measurements: of made-up ones here."""

from __future__ import annotations

from dcu.cards import BdRate, Card, CodecMacs, Difference, Rates, Result, Training
from docs import codec2, paper
from docs.paper_networks import NETWORKS


def row(name: str, value: float, difference: float | None = None) -> dict[str, str]:
    """A row of results/paper.csv; differences have an error of 1 point."""
    row = {"name": name, "bpp": "0.1", "value": str(value), "se": "0.01", "top5": "0.9", "against": "other"}
    row |= {"macs": "80e6", "path_macs": "40e6" if "39" in name else "100e6", "steps": "10", "parameters": "1000"}
    found = {"difference": "" if difference is None else str(difference), "difference_se": "0.01"}
    return row | found


def test_claims_are_judged_by_two_standard_errors() -> None:
    rows = {each.name: row(each.name, 0.5, 0.0) for each in NETWORKS}
    rows["cresnet51-0.0983"] = row("cresnet51-0.0983", 0.5, 0.015)
    rows["cresnet51-0.330"] = row("cresnet51-0.330", 0.5, -0.025)
    rows["cresnet51-d-0.0983"] = row("cresnet51-d-0.0983", 0.5, 0.03)
    results = [cells["result"] for cells in paper.claims(rows)]
    assert results == ["agrees", "does not agree: behind", "agrees", "agrees", "agrees"]
    text = paper.page(rows)
    assert "| cresnet51 | latent, codec at 0.330 | 0.1 | 50.0 ± 1.0 | 90.0 | 64.8 | 85.9 |" in text
    assert text.index("cresnet39-0.0983 | 80 | 40") < text.index("resnet50-0.0983 | 80 | 100")


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
