"""Cards of dcu 0.1, schema 1: what dcu read of them, and the cards of today that state the same.

Keys that dcu 0.1 wrote for people only (``history``) are not kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from dcu.cards import (
    Baseline,
    Baselines,
    Card,
    CodecMacs,
    Difference,
    Digest,
    Input,
    Kind,
    Origin,
    Result,
    Sample,
    Signed,
    Size,
    Training,
    held_out,
    share_error,
)
from dcu.labels import Label, labels_of
from dcu.schema import Between, Count, Name, Share, build

RENAMED = {"sees": "input", "licence": "license"}
RENAMED_IN_LABELS = {"colour": "color"}
BASELINE = re.compile(r"RGB( tuned)? on (.+?)(?: (\d+)x\3)?")
"""What 0.1 called the RGB network on other files."""


@dataclass(frozen=True)
class OldResult:
    """Results on a data set."""

    dataset: str
    count: Count = 0
    date: str | None = None
    engine: str | None = None
    bytes: Size | None = None
    bpp: Size | None = None
    psnr: Signed | None = None
    ms_ssim: Signed | None = None
    top1: Share | None = None
    top5: Share | None = None
    agreement: Share | None = None
    ece: Share | None = None
    temperature: Size | None = None
    miou: Share | None = None
    pixel_accuracy: Share | None = None
    iou: dict[str, Share | None] = field(default_factory=dict)
    by_distance: dict[str, Share | None] = field(default_factory=dict)
    against: dict[str, Difference] = field(default_factory=dict)

    def today(self) -> Result:
        """With the standard errors of fractions of images."""
        stated = Result(**vars(self))
        return replace(
            stated,
            top1_se=self.error(self.top1),
            top5_se=self.error(self.top5),
            agreement_se=self.error(self.agreement),
        )

    def error(self, share: float | None) -> float | None:
        """The standard error of a fraction; None where it was not measured."""
        return None if share is None else share_error(share, self.count)


@dataclass(frozen=True)
class OldRow:
    """A network, and files that it read."""

    name: str
    side: Count
    count: Count
    bytes: Size
    bpp: Size
    top1: Share
    top5: Share
    macs: Count

    def today(self) -> Baseline | None:
        """None for the latent network, whose results are among the others."""
        found = BASELINE.fullmatch(self.name)
        if not found:
            return None
        tuned, source, side = found.groups()
        original = source == "the original"
        return Baseline(
            input="format" if side else "original" if original else "decoded",
            source="" if original else source,
            tuned=bool(tuned),
            side=self.side,
            bytes=self.bytes,
            bpp=self.bpp,
            top1=self.top1,
            top1_se=share_error(self.top1, self.count),
            top5=self.top5,
            top5_se=share_error(self.top5, self.count),
            macs=self.macs,
        )


@dataclass(frozen=True)
class OldRows:
    """A classifier and its baselines."""

    dataset: str
    rows: Annotated[tuple[OldRow, ...], Between(1, 2**10)]

    def today(self) -> tuple[Baselines, ...]:
        """The same without the classifier's own row."""
        rows = tuple(row for each in self.rows if (row := each.today()))
        return (Baselines(self.dataset, self.rows[0].count, rows),) if rows else ()


@dataclass(frozen=True)
class OldKeptAside:
    """Results of custom classes on held-out images."""

    count: Count = 0
    top1: Share | None = None
    top5: Share | None = None
    ece: Share | None = None


@dataclass(frozen=True)
class OldTook:
    """The duration of a training."""

    minutes: Size | None = None


@dataclass(frozen=True)
class OldOrigin:
    """Initial weights."""

    sha256: Digest | None = None
    name: Name | None = None
    steps: Count | None = None
    share: Share | None = None
    reader: OldOrigin | None = None

    def today(self) -> tuple[Origin, ...]:
        """Nothing where no digest identifies them; joint training has a second checkpoint, the reader's."""
        own = (Origin(self.sha256, self.name, self.steps, self.share),) if self.sha256 else ()
        return own + (self.reader.today() if self.reader else ())


@dataclass(frozen=True)
class OldCard:
    """What is read of a card of 0.1."""

    kind: Kind
    fingerprint: Digest
    name: Name | None = None
    codec: Name | None = None
    sha256: Digest | None = None
    bytes: Count = 0
    parameters: Count = 0
    macs: Count = 0
    rate: Annotated[float, Between(1e-6, 1e3)] | None = None
    macs_per_pixel: CodecMacs | None = None
    temperature: Annotated[float, Between(1e-3, 1e3)] = 1.0
    calibrated_on: Sample | None = None
    int8: bool = True
    void: Annotated[int, Between(0, 255)] = 255
    input: Input = "latent"
    labels: tuple[Label, ...] = ()
    license: str = ""
    figures: tuple[OldResult, ...] = ()
    rivals: OldRows | None = None
    kept_aside: OldKeptAside | None = None
    recipe: dict[str, object] = field(default_factory=dict)
    expects: dict[str, object] = field(default_factory=dict)
    seed: Count | None = None
    steps: Count = 0
    start: OldOrigin | None = None
    mean_of: tuple[OldOrigin, ...] = ()
    rgb_share: Share = 0.0
    teacher: str = ""
    took: OldTook | None = None
    data: dict[str, Count] = field(default_factory=dict)

    def results(self) -> tuple[Result, ...]:
        """Results, those on held-out images first."""
        aside = [OldResult(held_out(self.data), **vars(self.kept_aside))] if self.kept_aside else []
        return tuple(each.today() for each in (*aside, *self.figures))

    def training(self) -> Training:
        """How the weights came to be."""
        return Training(
            recipe=str(self.recipe.get("name", "")),
            settings=self.recipe | ({"expects": self.expects} if self.expects else {}),
            seed=self.seed,
            steps=self.steps,
            start=self.start.today() if self.start else (),
            mean_of=tuple(origin for each in self.mean_of for origin in each.today()),
            rgb_share=self.rgb_share,
            teacher=self.teacher,
            minutes=self.took.minutes if self.took else None,
            images=self.data,
        )


def parse(raw: dict[str, Any]) -> Card:
    """The card of today that states what a card of 0.1 states; raises ValueError."""
    card = {RENAMED.get(key, key): value for key, value in raw.items()}
    if isinstance(labels := card.get("labels"), list):
        card["labels"] = [with_new_keys(label) if isinstance(label, dict) else label for label in labels]
    old = build(OldCard, card, others=True)
    return Card(
        kind=old.kind,
        fingerprint=old.fingerprint,
        name=old.name,
        codec=old.codec,
        rate=old.rate,
        input=old.input,
        labels=labels_of(old.labels),
        void=old.void,
        temperature=old.temperature,
        calibration=old.calibrated_on,
        int8=old.int8,
        license=old.license,
        parameters=old.parameters,
        bytes=old.bytes,
        sha256=old.sha256,
        macs=old.macs,
        macs_per_pixel=old.macs_per_pixel,
        training=old.training(),
        results=old.results(),
        baselines=old.rivals.today() if old.rivals else (),
    )


def with_new_keys(label: dict[str, Any]) -> dict[str, Any]:
    """A label with its keys of today."""
    return {RENAMED_IN_LABELS.get(key, key): value for key, value in label.items()}
