"""Segmentation: bitstream to mask, training from pairs, metrics."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dcu import bitstream
from dcu.codec import Codec
from dcu.data import pairs
from dcu.errors import InvalidInputError, MissingInputError
from dcu.evaluate.segmenter import boundary_distance, check_labels, confusion, intersection_over_union
from dcu.image import read_image
from dcu.nets.segmenter import LatentSegmenter
from dcu.nets.transforms import Synthesis
from dcu.tasks.segment import Lines, Segmenter, enlarged, most_probable
from dcu.train.segmenter import SegmentData, random_part

from .conftest import Dcu, one_line, png, process, smooth_image

RECIPE = """
[segmenter]
name = "tiny-segmenter"
codec = "codec-0.0983"
void = 7
input = "{input}"
pyramid = 8
labels = [{{ label = "sky", color = "#0000ff" }}, {{ label = "road", color = "#102030" }}]
[data]
batch = 2
crop = 32
held_out = 1
[schedule]
steps = 2
learning_rate = 1e-3
"""


def label_map(numbers: np.ndarray[Any, Any]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(numbers.astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def street(tmp_path: Path) -> Path:
    """Five images whose upper half is sky and whose lower half is road; a column of void."""
    for directory in ("images", "labels"):
        (tmp_path / "street" / directory).mkdir(parents=True)
    for index in range(5):
        numbers = np.zeros((40, 56), np.uint8)
        numbers[20:] = 1
        numbers[:, :3] = 7
        image = (smooth_image(40, 56, seed=index) * np.where(numbers == 1, 0.3, 1.0)[..., None]).astype(np.uint8)
        (tmp_path / "street" / "images" / f"{index}.png").write_bytes(png(image))
        (tmp_path / "street" / "labels" / f"{index}.png").write_bytes(label_map(numbers))
    return tmp_path / "street"


@pytest.mark.usefixtures("segmenter")
@pytest.mark.parametrize("size", [(40, 52), (1, 1), (8, 8), (30, 200)])
def test_segmentation_map_has_the_images_size_and_no_image_is_computed(
    codec: Codec, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = codec.compress(smooth_image(*size))

    def refuse(*_: object) -> None:
        raise AssertionError("synthesis ran")

    monkeypatch.setattr(Synthesis, "forward", refuse)
    mask = Segmenter.load()(data)
    assert mask.classes.shape == size
    assert sum(mask.class_fractions.values()) == pytest.approx(1)
    assert mask.labels == ("sky", "road")


@pytest.mark.usefixtures("segmenter")
def test_large_images_go_by_their_thumbnail_layer_and_in_pieces(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    data = codec.compress(smooth_image(1030, 1100))
    seen = []
    forward = LatentSegmenter.forward

    def watch(self: LatentSegmenter, latent: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(latent.shape[-2:]))
        return forward(self, latent)

    monkeypatch.setattr(LatentSegmenter, "forward", watch)
    segmenter = Segmenter.load()
    assert segmenter(data).classes.shape == (1030, 1100)
    assert seen == [(32, 35)]
    seen.clear()
    assert segmenter(data, full=True).classes.shape == (1030, 1100)
    assert len(seen) == 4
    assert max(max(size) for size in seen) <= 128 + 32


@pytest.mark.usefixtures("segmenter")
@pytest.mark.parametrize("size", [(300, 24), (24, 300), (200, 264)])
def test_pieces_of_lines_of_tiles_give_what_all_symbols_give(
    codec: Codec, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is in memory at once: of tall, wide and large images."""
    monkeypatch.setattr("dcu.regions.ONE_PIECE", 0)
    monkeypatch.setattr("dcu.regions.PIECE", 10)
    monkeypatch.setattr("dcu.tasks.segment.HALO", 4)
    monkeypatch.setattr("dcu.bitstream.TILE", 16)
    monkeypatch.setattr("dcu.tasks.segment.TILE", 16)
    monkeypatch.setattr("dcu.tasks.segment.TILES_AT_ONCE", 1)
    segmenter = Segmenter.load()
    layer = codec.read(codec.compress(smooth_image(*size))).full
    in_lines = segmenter.classes(layer)
    (symbols,) = codec.symbols([layer])
    monkeypatch.setattr(Lines, "box", lambda _, rows, columns: symbols[None, :, rows, columns])
    assert np.array_equal(segmenter.classes(layer), in_lines)
    assert in_lines.shape == size


def test_bands_give_what_all_rows_give(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(1, 5, 23, 17, generator=torch.Generator().manual_seed(0))
    expected = enlarged(logits).argmax(1).to(torch.uint8)
    for rows in (1, 2, 7, 23):
        monkeypatch.setattr("dcu.tasks.segment.BAND", rows * 5 * 17 * 16)
        assert torch.equal(most_probable(logits), expected)


@pytest.mark.usefixtures("segmenter")
def test_fractions_and_overlays_by_rows(codec: Codec) -> None:
    image = smooth_image(150, 40)
    mask = Segmenter.load()(codec.compress(image))
    counts = np.bincount(mask.classes.ravel(), minlength=2) / mask.classes.size
    assert list(mask.class_fractions.values()) == counts.tolist()
    colors = np.array(mask.palette, np.float32)[mask.classes]
    assert np.array_equal(mask.over(image), np.rint(0.5 * colors + 0.5 * image).astype(np.uint8))
    assert np.array_equal(np.asarray(mask.image()), mask.classes)


@pytest.mark.usefixtures("segmenter")
@pytest.mark.parametrize(
    ("size", "command", "bytes_per_pixel"),
    [
        ((2**14, 2**14), ["segment", "--json"], 4),
        ((2**14, 2**14), ["segment", "-q", "-o", "mask.png"], 4),
        ((2**25, 1), ["classify", "--engine", "pytorch"], 2),
        ((1, 2**25), ["classify", "--engine", "pytorch", "--views", "5"], 2),
    ],
    ids=["json", "png", "classify", "views"],
)
def test_memory_follows_the_pixels(
    codec: Codec,
    own_models: Path,
    tmp_path: Path,
    size: tuple[int, int],
    command: list[str],
    bytes_per_pixel: int,
) -> None:
    """Of a stream of a few bytes, whatever it says."""
    sizes = [s for s in (bitstream.thumbnail_size(*size), size) if s]
    layers = [[b""] * len(bitstream.tile_grid(*s)) for s in sizes]
    (tmp_path / "x.bin").write_bytes(bitstream.write(bitstream.Header(codec.identity), *size, layers))
    arguments = [str(tmp_path / word) if word == "mask.png" else word for word in command]
    code = f"""
import re, sys
from pathlib import Path
from dcu.cli import app
sys.argv = ["dcu", *{[*arguments, str(tmp_path / "x.bin")]!r}]
code = app.run()
used = re.search("VmHWM: *([0-9]+)", Path("/proc/self/status").read_text().replace("\\t", " "))  # not the parent's
print(code, 1024 * int(used[1]), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"DCU_MODELS": str(own_models)}
    )
    exit_code, used = map(int, done.stderr.splitlines()[-1].split())
    assert exit_code == 0
    assert used < 500e6 + bytes_per_pixel * size[0] * size[1]


@pytest.mark.usefixtures("segmenter")
def test_segment_writes_segmentation_maps_and_overlays(dcu: Dcu, street: Path, tmp_path: Path) -> None:
    assert dcu("compress", street / "images", "-o", tmp_path / "bins").code == 0
    call = ["segment", tmp_path / "bins", "-o", tmp_path / "masks", "--overlay", tmp_path / "over", "--json"]
    lines = dcu(*call).lines
    assert [Path(line["input"]).stem for line in lines] == list("01234")
    for line in lines:
        name = f"{Path(line['input']).stem}.png"
        with Image.open(tmp_path / "masks" / name) as mask:
            assert mask.mode == "P"
            assert mask.getpalette()[:6] == [0, 0, 255, 16, 32, 48]  # type: ignore[index]
            numbers = np.asarray(mask)
        assert numbers.shape == (40, 56)
        assert line["class_fractions"]["road"] == pytest.approx((numbers == 1).mean(), abs=1e-6)
        over = read_image((tmp_path / "over" / name).read_bytes())
        assert over.shape[0] > 40  # a legend below
        assert over.shape[1:] == (56, 3)
    assert "%" in dcu("segment", tmp_path / "bins" / "0.bin", "-o", tmp_path / "one.png").out
    assert dcu("segment", tmp_path / "bins", "--json").lines == lines


@pytest.mark.usefixtures("segmenter")
def test_segment_in_a_pipe(codec: Codec, own_models: Path) -> None:
    data = codec.compress(smooth_image(24, 40))
    answer = process("segment", "-", data=data, DCU_MODELS=str(own_models))
    with Image.open(io.BytesIO(answer.stdout)) as mask:
        assert mask.size == (40, 24)
    both = process("segment", "-", "--json", data=data + data, DCU_MODELS=str(own_models))
    assert len(both.stdout.splitlines()) == 2


@pytest.mark.usefixtures("segmenter")
@pytest.mark.parametrize(
    "options",
    [
        [],
        ["-o", "mask.jpg"],
        ["-o", "-", "--json"],
        ["-o", "m.png", "--overlay", "-"],
        ["-o", "m.png", "--network", "no"],
    ],
)
def test_wrong_calls_are_one_line(dcu: Dcu, codec: Codec, tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "x.bin").write_bytes(codec.compress(smooth_image(24, 40)))
    answer = dcu("segment", tmp_path / "x.bin", *options)
    assert answer.code in (2, 69)
    assert one_line(answer.err)


def test_codec_without_segmenter(dcu: Dcu, codec: Codec, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(codec.compress(smooth_image(24, 40)))
    answer = dcu("segment", tmp_path / "x.bin", "--json")
    assert answer.code == 69
    assert one_line(answer.err)


@pytest.mark.usefixtures("random_rgb")
@pytest.mark.parametrize("input", ["latent", "decoded", "original"])
def test_segmenter_from_recipe_to_metrics(dcu: Dcu, street: Path, tmp_path: Path, input: str) -> None:
    recipe, model = tmp_path / "tiny.toml", tmp_path / "models" / "tiny-segmenter"
    recipe.write_text(RECIPE.format(input=input))
    trained = dcu("train", "segmenter", recipe, "--data", street, "--out", model, "--runs", tmp_path / "runs")
    assert trained.code == 0, trained.err
    assert dcu("models", "verify", model).code == 0
    shown = dcu("eval", "segmenter", street, "--network", model).out
    assert max(map(len, shown.splitlines())) <= 100
    assert [line.partition(" ")[0] for line in shown.splitlines()].count("iou") == 1
    (metrics,) = dcu("eval", "segmenter", street, "--network", model, "--json", "--record").lines
    assert metrics["count"] == 5
    assert set(metrics["iou"]) == {"sky", "road"}
    assert 0 < metrics["miou"] < 1
    assert set(metrics["by_distance"]) == {"1-4", "5-8", "9-16", "over 16"}
    assert json.loads((model / "card.json").read_text())["results"][0]["miou"] == metrics["miou"]


def test_pairs_of_a_tar_are_those_of_its_directory(street: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "street.tar", "w") as archive:
        archive.add(street, ".")
    of_directory, of_tar = pairs(street), pairs(tmp_path / "street.tar")
    assert len(of_directory) == len(of_tar) == 5
    assert all(np.array_equal(a.classes(), b.classes()) for a, b in zip(of_directory, of_tar, strict=True))


def test_pairs_are_of_one_directory(street: Path, tmp_path: Path) -> None:
    """Splits with equal names beside each other, and two images of one name."""
    for split in ("train", "val"):
        shutil.copytree(street, tmp_path / "both" / split)
    assert len(pairs(tmp_path / "both")) == 10
    (tmp_path / "both" / "val" / "labels" / "1.png").unlink()
    with pytest.raises(InvalidInputError, match="val/1 has no label map"):
        pairs(tmp_path / "both")
    (street / "images" / "1.jpg").write_bytes(png(smooth_image(8, 8)))
    with pytest.raises(InvalidInputError, match="have one name"):
        pairs(street)


def test_void_is_no_class(dcu: Dcu, street: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE.format(input="latent"))
    answer = dcu("train", "segmenter", recipe, "--data", street, "--out", tmp_path / "m", "--set", "segmenter.void=1")
    assert (answer.code, "void is 1" in answer.err) == (2, True), answer.err


def test_an_image_that_cannot_be_read_does_not_end_a_training(dcu: Dcu, street: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE.format(input="latent"))
    (street / "images" / "1.png").write_bytes(b"broken")
    trained = dcu("train", "segmenter", recipe, "--data", street, "--out", tmp_path / "m", "--runs", tmp_path / "runs")
    assert trained.code == 65
    assert trained.err.count("dcu: note: street/images/1.png: ") == 1
    assert trained.err.endswith("dcu: images left out because they cannot be read: 1\n")
    assert json.loads((tmp_path / "m" / "card.json").read_text())["training"]["images"] == {"street": 4}


def test_bad_label_maps_are_one_line_before_training(dcu: Dcu, street: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE.format(input="latent"))

    def refused(code: int, said: str) -> None:
        answer = dcu(
            "train", "segmenter", recipe, "--data", street, "--out", tmp_path / "m", "--runs", tmp_path / "runs"
        )
        assert answer.code == code
        assert one_line(answer.err)
        assert said in answer.err
        assert not (tmp_path / "m").exists()
        assert not (tmp_path / "runs").exists()

    place = street / "labels" / "2.png"
    whole = place.read_bytes()
    place.write_bytes(label_map(np.zeros((40, 55))))
    refused(65, "55x40")
    place.write_bytes(label_map(np.full((40, 56), 2)))
    refused(65, "label 2")
    place.write_bytes(png(smooth_image(40, 56)))
    refused(65, "RGB")
    place.write_bytes(whole[:60])
    refused(65, "labels/2.png")
    place.unlink()
    refused(65, "2 has no label map")
    for path in (street / "labels").iterdir():
        path.write_bytes(label_map(np.zeros((40, 56))))
    place.write_bytes(label_map(np.zeros((40, 56))))
    refused(2, "road")


def test_neither_images_nor_labels(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png(smooth_image(8, 8)))
    with pytest.raises(MissingInputError):
        pairs(tmp_path)


def test_intersection_over_union_by_hand() -> None:
    truth = np.array([[0, 0, 1, 1, 255]], np.uint8)
    answer = np.array([[0, 1, 1, 1, 0]], np.uint8)
    counts = confusion(truth, answer, 3)
    assert counts.tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    iou = intersection_over_union(counts)
    assert iou[:2].tolist() == pytest.approx([1 / 2, 2 / 3])
    assert np.isnan(iou[2])


def test_distance_to_a_boundary() -> None:
    truth = np.zeros((3, 60), np.uint8)
    truth[:, 30:] = 1
    bands = boundary_distance(truth)[1]
    assert bands[[29, 30, 26, 33]].tolist() == [0] * 4
    assert bands[[25, 34]].tolist() == [1] * 2
    assert bands[[14, 45]].tolist() == [2] * 2
    assert bands[[13, 0, 59]].tolist() == [3] * 3


def test_check_counts_pixels(street: Path) -> None:
    assert check_labels(pairs(street), 2, 7).tolist() == [5 * 20 * 53] * 2
    with pytest.raises(InvalidInputError, match="label 1"):
        check_labels(pairs(street), 1, 7)


def test_parts_keep_image_and_labels_together() -> None:
    """A class that is a color stays that color, whatever the scale, place and mirroring; void is only around."""
    numbers = np.zeros((40, 56), np.uint8)
    numbers[20:] = 1
    image = np.where(numbers[..., None] == 1, 200, 20).repeat(3, 2).astype(np.uint8)
    for seed in range(8):
        part, classes = random_part(image, numbers, SegmentData(crop=64), np.random.default_rng(seed))
        assert part.shape == (64, 64, 3)
        assert classes.shape == (64, 64)
        known = classes != 255
        light = part.mean(2)
        middle = (light[known].max() + light[known].min()) / 2
        assert ((light > middle) == (classes == 1))[known].mean() > 0.95


@pytest.mark.usefixtures("random_rgb")
def test_bench_times_segmenters_and_quotes_their_cards(dcu: Dcu, segmenter: Path) -> None:
    card = json.loads((segmenter / "card.json").read_text())
    card["results"] = [{"dataset": "streets", "count": 7, "miou": 0.25}]
    (segmenter / "card.json").write_text(json.dumps(card))
    answer = dcu("bench", "--seconds", "0", "--batch", "2", "--baselines", "webp", "--json")
    assert answer.code == 0, answer.err
    rows = {row["name"]: row for row in answer.lines if row.get("engine") == "PyTorch"}
    masks, labels = rows["segmenter-0.0983"], rows["classifier-0.0983"]
    assert (masks["answer"], labels["answer"]) == ("segmentation", "label")
    assert (masks["miou"], masks["top1"], labels["miou"]) == (0.25, None, None)
    assert masks["source"] == "quoted from the card: streets, 7 images"
    assert masks["bytes"] == labels["bytes"]
    assert masks["speedup"] is None
    assert masks["network_macs"] > 0
    assert masks["ms"] > 0
    card["results"] = [{"dataset": "streets", "count": 7, "miou": 0.25, "quality": 3, "machines": True}]
    (segmenter / "card.json").write_text(json.dumps(card))
    answer = dcu("bench", "--seconds", "0", "--batch", "2", "--json")
    assert {row["miou"] for row in answer.lines if "miou" in row} == {None}, "of another operating point"
