"""`dcu eval retrieval`: precision@10 of embeddings, leaving the query out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dcu import store
from dcu.evaluate.retrieval import precisions

from .conftest import Dcu, one_line, png, smooth_image, state_accuracy


def test_precision_counts_the_ten_nearest_others() -> None:
    """Two bundles of 11: each has the other 10 of its own; one label is wrong."""
    bundles = torch.eye(2).repeat_interleave(11, 0)
    vectors = torch.cat([bundles * torch.arange(1, 23)[:, None], 1e-3 * torch.eye(22)], 1)
    labels = ["a"] * 11 + ["b"] * 11
    assert precisions(vectors, labels).tolist() == [1.0] * 22
    labels[0] = "b"
    found = precisions(vectors, labels)
    assert found[0] == 0
    assert found[1:11].tolist() == pytest.approx([0.9] * 10)
    assert found[11:].tolist() == [1.0] * 11


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("n00000000", "n00000001"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for seed in range(6):
            (tmp_path / "set" / name / f"{seed}.png").write_bytes(png(smooth_image(256, 260, seed)))
    return tmp_path / "set"


def test_pipelines_are_compared_at_equal_bytes(dcu: Dcu, data: Path, own_models: Path, random_rgb: None) -> None:
    state_accuracy(store.find("classifier-0.0983"))  # on WebP of 64x64
    answer = dcu("eval", "retrieval", data, "--network", "classifier-0.0983", "--baselines", "webp", "--json")
    assert answer.code == 0, answer.err
    own, webp, original = answer.lines
    assert [row["pipeline"] for row in answer.lines] == [
        "classifier-0.0983",
        "RGB on webp 64x64",
        "RGB on the original",
    ]
    assert [row["network"] for row in answer.lines] == ["classifier-0.0983", "classifier-0.0983", None]
    assert webp["bytes"] <= own["bytes"] < original["bytes"]
    for row in answer.lines:
        assert (row["dataset"], row["count"]) == ("set", 12)
        assert 5 / 11 - 0.1 <= row["precision"] <= 0.5  # each image has a copy in the other class
        assert row["precision_se"] < 0.1


def test_sides_of_formats_come_from_the_card(dcu: Dcu, data: Path, random_rgb: None) -> None:
    answer = dcu("eval", "retrieval", data, "--network", "classifier-0.0983", "--baselines", "webp")
    assert answer.code == 69
    assert one_line(answer.err)


def test_too_few_images(dcu: Dcu, data: Path, random_rgb: None) -> None:
    answer = dcu("eval", "retrieval", data / "n00000000", "--network", "classifier-0.0983", "--baselines", "")
    assert answer.code == 65
    assert one_line(answer.err)
