"""Names of pipelines, made in one place."""

from __future__ import annotations

import pytest

from dcu.evaluate.pipeline import Pipeline

NAMES = {
    "classifier-0.0983": Pipeline("latent", "classifier-0.0983"),
    "RGB on codec-0.0983": Pipeline("decoded", "codec-0.0983"),
    "RGB tuned on codec-0.0983": Pipeline("decoded", "codec-0.0983", tuned=True),
    "RGB on webp 64x64": Pipeline("format", "webp", 64),
    "RGB on jpeg2000 224x224": Pipeline("format", "jpeg2000", 224),
    "RGB on the original": Pipeline("original"),
}


@pytest.mark.parametrize(("name", "pipeline"), NAMES.items())
def test_names_of_cards(name: str, pipeline: Pipeline) -> None:
    assert pipeline.name == name


def test_rates_and_sides_share_a_curve() -> None:
    assert Pipeline("format", "webp", 64).curve == Pipeline("format", "webp", 96).curve
    assert Pipeline("decoded", "codec-0.0983").curve == Pipeline("decoded", "codec-0.330").curve
    assert len({pipeline.curve for pipeline in NAMES.values()}) == 6
