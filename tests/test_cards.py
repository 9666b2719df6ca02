"""Cards: what a file states, cards of version 0.1, label sets."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from dcu import cards
from dcu.cards import Baseline, Card, Difference, Origin, Result, Sample, Training
from dcu.labels import IMAGENET, Label, indices_by_name, label_set, labels_of

OLD = Path(__file__).parent / "cards_0_1"
REFERENCE = Path(__file__).parent.parent / "docs" / "reference" / "cards.md"


def old(name: str, **changes: Any) -> Card:
    """A card of version 0.1 as it is read."""
    return cards.parse(json.dumps(json.loads((OLD / f"{name}.json").read_text()) | changes).encode())


def old_imagenet() -> list[dict[str, str | None]]:
    """The labels that each classifier's card listed."""
    return [{"wnid": label.wnid, "label": f"old {label.label}"} for label in label_set(IMAGENET)]


def test_classifier_of_0_1() -> None:
    card = old("classifier", labels=old_imagenet())
    assert card.labels == IMAGENET
    assert card.classes[282].label == "tiger cat"
    assert (card.temperature, card.calibration) == (0.713, Sample("imagenet1000-heldout", 900))
    first = card.results[0]
    assert (first.dataset, first.count, first.top1, first.top1_se) == ("imagenet1000-val", 500, 0.826, 0.01695)
    assert card.results[2].agreement_se == pytest.approx((0.801 * 0.199 / 1608) ** 0.5, abs=1e-4)
    (stated,) = card.baselines
    assert (stated.dataset, stated.count, stated.quality) == ("imagenet1000-val", 500, None)
    kinds = [(row.input, row.source, row.side, row.tuned) for row in stated.rows]
    assert kinds == [
        ("decoded", "codec-0.635", 224, False),
        ("decoded", "codec-0.635", 224, True),
        ("format", "webp", 176, False),
        ("original", "", 224, False),
    ]
    assert card.training
    assert card.training.images == {"imagenet20-train": 23948, "imagewoof320-train": 11754}
    assert card.training.settings["expects"] == {"classes": ["n01440764"], "odds": 1.65}
    assert [part.share for part in card.training.mean_of] == [0.25] * 4
    assert b"history" not in cards.written(card)


def test_segmenter_of_0_1() -> None:
    card = old("segmenter")
    assert card.classes[0] == Label("sky", color="#808080")
    assert (card.void, card.input, card.license) == (11, "latent", "GPL-3.0-or-later; trained on pictures for research")
    assert (card.results[0].miou, card.results[0].iou["pole"]) == (0.65744, 0.14621)
    assert card.training
    assert card.training.start == (
        Origin("8a7b9c7e04ac0e8244ea63808aac3f41b849d14de21e7957a3715d9aabed8d58", steps=800),
    )


def test_codec_of_0_1() -> None:
    card = old("codec")
    assert card.macs_per_pixel
    assert (card.rate, card.macs_per_pixel.context) == (0.635, 1775)
    assert card.results[0].against["avif"] == Difference(-0.8857, -0.0024)
    assert card.training
    assert card.training.recipe == "codec-0.635"


def test_custom_classes_of_0_1() -> None:
    card = old("custom-classes")
    assert card.labels == (Label("my dog"), Label("Beagle", "n02088364"))
    assert (card.results[0].dataset, card.results[0].count) == ("dogs (held out)", 48)
    assert card.training
    assert card.training.start[0].name == "classifier-0.0983"
    assert card.training.minutes == 0.4


@pytest.mark.parametrize("name", ["codec", "segmenter", "custom-classes", "classifier"])
def test_what_was_converted_is_read_again(name: str) -> None:
    card = old(name, **({"labels": old_imagenet()} if name == "classifier" else {}))
    assert cards.parse(cards.written(card)) == card
    assert json.loads(cards.written(card))["schema"] == cards.SCHEMA


def test_keys_that_no_card_has_are_refused() -> None:
    raw = json.loads(cards.written(Card("codec", "0" * 64)))
    for wrong in ({"history": ["long"]}, {"schema": 3}, {"schema": 0}, {"schema": "2"}):
        with pytest.raises(ValueError, match=r"history|newer|schema"):
            cards.parse(json.dumps(raw | wrong).encode())


def test_license_is_stated_by_whoever_publishes_a_model() -> None:
    """Training claims none; a card that states one keeps it near the top."""
    card = Card("codec", "0" * 64)
    assert "license" not in json.loads(cards.written(card))
    assert list(json.loads(cards.written(replace(card, license="MIT"))))[:3] == ["schema", "kind", "license"]


def test_reference_names_every_key() -> None:
    """docs/reference/cards.md: `key` for each field of each part of a card."""
    text = REFERENCE.read_text("utf-8")
    parts = (Card, Training, Origin, Result, Baseline, Label)
    missing = [f"{part.__name__}.{f.name}" for part in parts for f in fields(part) if f"`{f.name}`" not in text]
    assert not missing


def test_labels_of_imagenet() -> None:
    labels = label_set(IMAGENET)
    assert len(labels) == len({label.label.casefold() for label in labels}) == 1000
    wnids = [label.wnid or "" for label in labels]
    assert wnids == sorted(set(wnids))
    assert all(label.label == label.label.strip() and "," not in label.label for label in labels)
    assert max(len(label.label) for label in labels) <= 32
    assert [labels[i].label for i in (134, 282, 517, 638, 639, 998)] == [
        *("crane (bird)", "tiger cat", "crane (machine)", "maillot", "one-piece swimsuit", "ear of corn")
    ]
    assert labels_of(labels) == IMAGENET
    assert labels_of(labels[1:]) == labels[1:]


def test_names_of_classes() -> None:
    names = indices_by_name((Label("2"), Label("Tench", "n01440764"), Label("tench")))
    assert (names["n01440764"], names["tench"], names["1"]) == (1, 1, 1)
    assert names["2"] == 0, "a label goes before an index"


def test_cards_of_codecs_that_were_previews() -> None:
    card = {"schema": 2, "kind": "codec", "fingerprint": "0" * 64, "machines": True}
    assert cards.parse(json.dumps(card | {"preview": True}).encode()) == cards.parse(json.dumps(card).encode())
