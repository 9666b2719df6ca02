"""`dcu bench`: every way from a file to a label, timed and stated."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dcu import store
from dcu.bench import accuracy, measure, table
from dcu.bench.gallery import gallery
from dcu.bench.pipelines import files_of, pipelines
from dcu.bench.points import OperatingPoint
from dcu.codec import Codec
from dcu.entropy.coder import position_index
from dcu.evaluate import classifier as evaluate_classifier
from dcu.evaluate.cost import macs
from dcu.evaluate.pipeline import Pipeline
from dcu.labels import Label
from dcu.nets.efficientnet import LITE0, EfficientNetLite, InvertedResidual
from dcu.nets.latent import FusedBlock, PlainBlock

from .conftest import Dcu, fixed, one_line, png, smooth_image, state_accuracy

STAGES = ("read_ms", "decode_ms", "network_ms")


def total_macs(row: dict[str, Any]) -> int:
    return int(sum(row[f"{part}_macs"] for part in ("entropy", "synthesis", "network")))


@pytest.mark.usefixtures("random_rgb")
def test_rows_without_data(dcu: Dcu, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that gains a millisecond whenever it is read: what else the machine does changes no figure."""
    ticks = itertools.count()
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: 1e-3 * next(ticks)))
    answer = dcu("bench", "--seconds", "0", "--batch", "1", "--batch", "3", "--baselines", "webp", "--json")
    assert answer.code == 0, answer.err
    codec, *rows = answer.lines
    assert (codec["codec"], codec["quality"], codec["count"]) == ("codec-0.0983", None, 1), "no time is left for more"
    names = [row["name"] for row in rows[::2]]
    assert names[:2] == ["classifier-0.0983", "RGB on codec-0.0983"]
    assert names[2].startswith("RGB on webp ")
    assert names[3] == "RGB on the original"
    assert [row["batch"] for row in rows] == [1, 3] * 4
    for row in rows:
        assert row["batches"] == 1, "no time is left after warming up"
        assert row["ms"] == pytest.approx(sum(row[stage] for stage in STAGES), rel=0.5, abs=0.1)
        assert row["ms_10"] <= row["ms"] <= row["ms_90"]
        assert row["source"] is None
        assert row["top1"] is None
    ours, decoded, webp, _ = rows[::2]
    assert ours["synthesis_macs"] == 0 < decoded["synthesis_macs"]
    assert ours["bytes"] == decoded["bytes"]
    assert webp["speedup"] == 1
    assert webp["relative"]["bytes"] == webp["relative"]["macs"] == webp["relative"]["parameters"] == 1
    assert ours["relative"]["macs"] == pytest.approx(total_macs(ours) / total_macs(webp), abs=1e-3)
    assert {row["codec"] for row in rows} == {"codec-0.0983"}
    assert ours["network_macs"] == store.find("classifier-0.0983").card.macs


def test_what_is_fast_is_timed_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """All have as long; what is slow goes twice at least."""
    pipeline: Any = SimpleNamespace(files=[b""])

    def runner(milliseconds: float) -> measure.Runner:
        made = measure.Runner(pipeline, "pytorch", lambda batch: batch, 8)
        monkeypatch.setattr(made, "once", lambda: (0.0, 0.0, milliseconds / 8))
        return made

    everyone = runner(1000 / 128), runner(1000), runner(9000)
    measure.time_runners([[each] for each in everyone], seconds=12)
    assert [len(each.milliseconds) for each in everyone] == [512, 5, 2]


@pytest.mark.usefixtures("random_rgb")
def test_table_for_people_and_what_cards_say(dcu: Dcu, own_models: Path) -> None:
    state_accuracy(store.find("classifier-0.0983"))
    answer = dcu("bench", "--seconds", "0", "--batch", "1", "--baselines", "webp")
    assert "50.0 %" in answer.out
    assert "RGB on webp 64x64" in answer.out
    assert "25.0 %" in answer.out
    assert "quoted from the card: some-val, 9 images" in answer.err
    assert "some medians are of fewer than 5 batches; --seconds gives more" in answer.err
    assert "top1 ratio" in answer.out
    assert re.search(r"^classifier-0.0983 .* quoted ", answer.out, re.MULTILINE), "the table itself says so too"
    assert re.search(r"^classifier-0.0983 .* 2.0 *$", answer.out, re.MULTILINE), (
        "right twice as often as what people run"
    )


@pytest.mark.usefixtures("random_rgb")
def test_interrupted_bench_keeps_what_there_is(dcu: Dcu, monkeypatch: pytest.MonkeyPatch) -> None:
    once, calls = measure.Runner.once, []

    def interrupted(self: measure.Runner) -> tuple[float, ...]:
        calls.append(self)
        if len(calls) == 7:  # of four ways, after a round that was warm-up
            raise KeyboardInterrupt
        return once(self)

    monkeypatch.setattr(measure.Runner, "once", interrupted)
    answer = dcu("bench", "--seconds", "0", "--batch", "6", "--baselines", "webp", "--json", "--quiet")
    assert answer.code == 130
    assert [row["name"] for row in answer.lines[1:]] == ["classifier-0.0983", "RGB on codec-0.0983"]
    assert one_line(answer.err)


@pytest.mark.parametrize("options", [["--rate", "9"], ["--baselines", "gif"], ["--data", "nowhere"], ["--batch", "0"]])
def test_wrong_calls_are_one_line(dcu: Dcu, options: list[str]) -> None:
    answer = dcu("bench", *options)
    assert answer.code in (2, 66)
    assert one_line(answer.err)


def test_files_of_other_formats_fit() -> None:
    images = [smooth_image(224, 224, seed=seed) for seed in range(2)]
    side, files = files_of("webp", images, 250, None)
    assert side < 224
    assert sum(map(len, files)) <= 2 * 250
    assert files_of("webp", images, 250, 32)[0] == 32


def test_macs_by_hand() -> None:
    """Of one layer of each kind; and EfficientNet-Lite0's 407 M as published, which count more than convolutions."""
    x = torch.zeros(1, 4, 10, 10)
    assert macs(torch.nn.Conv2d(4, 6, 3, padding=1), x) == 10 * 10 * 4 * 6 * 9
    assert macs(torch.nn.Conv2d(4, 4, 5, padding=2, groups=4), x) == 10 * 10 * 4 * 25
    assert macs(torch.nn.Linear(4, 7), torch.zeros(1, 4)) == 28
    assert macs(torch.nn.Conv2d(4, 6, 3, padding=2, dilation=2), x) == 10 * 10 * 4 * 6 * 9
    assert macs(InvertedResidual(4, 4, 3, 1, 6, 1), x) == 100 * (4 * 24 + 24 * 9 + 24 * 4)
    assert macs(FusedBlock(4, 6), x) == 100 * (4 * 6 * 9 + 6 * 4)
    assert macs(PlainBlock(4), x) == 2 * 100 * 4 * 4 * 9
    assert len(LITE0) == 7
    assert macs(EfficientNetLite(), torch.zeros(1, 3, 224, 224)) == pytest.approx(407e6, rel=0.06)


def test_macs_of_the_context_model_by_hand(codec: Codec) -> None:
    """At each position of a pass, what is known of its neighbours goes through three layers."""
    coder, side = fixed(codec).entropy, 16
    hidden = coder.weights[0][0][0].shape[0]
    by_hand = sum(
        len(position_index(p, side, side))
        * (int(p.known(coder.channels).sum()) * hidden + hidden**2 + hidden * (p.last - p.first) * p.levels)
        for p in coder.passes
    )
    assert coder.macs(side, side) == by_hand


def test_baselines_are_recorded_for_the_bench(
    dcu: Dcu, own_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = {
        "count": 1,
        "bytes": 9.0,
        "bpp": 0.1,
        "top1": 1.0,
        "top1_se": 0.0,
        "top5": 1.0,
        "top5_se": 0.0,
        "macs": 7,
    }
    rows = [
        evaluate_classifier.Comparison(pipeline, **reached, ms=3.0)  # type: ignore[arg-type]
        for pipeline in (Pipeline("latent", "classifier-0.0983"), Pipeline("format", "webp", 64))
    ]
    monkeypatch.setattr(evaluate_classifier, "compare", lambda *_: rows)
    (tmp_path / "set" / "n00000000").mkdir(parents=True)

    (tmp_path / "set" / "n00000000" / "0.png").write_bytes(png(smooth_image(32, 32)))
    call = ["eval", "baselines", tmp_path / "set", "--network", "classifier-0.0983", "--formats", "webp", "--record"]
    assert dcu(*call).code == 0
    card = json.loads((own_models / "classifier-0.0983" / "card.json").read_text())
    (stated,) = card["baselines"]
    (row,) = stated["rows"]
    assert (stated["dataset"], stated["count"]) == ("set", 1)
    assert row == {"input": "format", "source": "webp", "side": 64} | {k: v for k, v in reached.items() if k != "count"}


def test_what_it_was_measured_on_is_said() -> None:
    assert f"torch {torch.__version__}" in table.machine()


@pytest.mark.usefixtures("random_rgb")
def test_classes_of_ones_own_are_not_what_the_report_shows(own_models: Path, codec: Codec) -> None:
    """A classifier that sorts before the codec's own, fitted to the same latents, names nothing in the gallery."""
    card = store.read_model(own_models / "classifier-0.0983").card
    labels = tuple(map(Label, ("mine", "yours", "theirs")))
    weights = store.read_model(own_models / "classifier-0.0983").weights()
    store.write_model(own_models / "animals", replace(card, labels=labels), weights)
    (row,) = gallery({"photo": smooth_image(64, 64)}, [OperatingPoint(store.find("codec-0.0983"))], [])
    named = {label for shown in row[1:] for label, _ in shown.names}
    assert named == {"cat", "dog", "tea"}
    rows = pipelines(OperatingPoint(store.find("codec-0.0983")), [smooth_image(224, 224)], [], {}, "cpu")
    assert [row.name for row in rows] == ["classifier-0.0983", "RGB on codec-0.0983", "RGB on the original"]


def clocked(monkeypatch: pytest.MonkeyPatch, seconds: float, budget: float) -> list[int]:
    """How many batches of three runners count, each of so many seconds by the clock, within a budget."""
    now = [0.0]
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    pipeline: Any = SimpleNamespace(files=[b""])

    def once() -> tuple[float, ...]:
        now[0] += seconds
        return (0.0, 0.0, 1e3 * seconds / 8)

    made = [measure.Runner(pipeline, "pytorch", lambda batch: batch, 8) for _ in range(3)]
    for runner in made:
        monkeypatch.setattr(runner, "once", once)
    measure.time_runners([[runner] for runner in made], budget)
    assert now[0] <= max(budget + 3 * seconds, 6 * seconds), "one batch each at the end at most"
    return [len(runner.milliseconds) for runner in made]


@pytest.mark.parametrize(
    ("seconds", "budget", "batches"), [(1.0, 0.0, 1), (1.0, 6.0, 1), (1.0, 30.0, 8), (100.0, 20.0, 1)]
)
def test_seconds_bound_warming_up_and_timing(
    monkeypatch: pytest.MonkeyPatch, seconds: float, budget: float, batches: int
) -> None:
    assert clocked(monkeypatch, seconds, budget) == [batches] * 3


def test_seconds_bound_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count()
    monkeypatch.setattr(accuracy, "time", SimpleNamespace(monotonic=lambda: next(now)))
    items: Any = range(100)
    assert len(list(accuracy.within(items, None))) == 100
    assert len(list(accuracy.within(items, 0))) == 1
    assert len(list(accuracy.within(items, 5))) == 6
