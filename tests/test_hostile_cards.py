"""What anybody may have written ends with one line and 2, 65 or 69, and less than 1 GB: nothing it says is believed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from dcu import bitstream, store
from dcu.codec import Codec

from .conftest import Dcu, Result, fixed, one_line, png, smooth_image
from .hostile_cards import (
    LITERALS,
    RECIPE_VALUES,
    RECIPES,
    TENSORS,
    VALUES,
    WEIGHTS,
    WHOLE_CARDS,
    safetensors,
    tensor,
)
from .test_train import CODEC_TOML

GB = 2**30


@pytest.fixture(autouse=True)
def under_one_gigabyte() -> Iterator[None]:
    """No more memory than that on top of what the process has mapped already."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + GB, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture
def stream(codec: Any, tmp_path: Path) -> Path:
    path = tmp_path / "x.bin"
    path.write_bytes(codec.compress(smooth_image(16, 24)))
    return path


def refused(answer: Result) -> bool:
    return answer.code in (2, 65, 69) and one_line(answer.err) and "unexpected" not in answer.err


def card_commands(model: Path, photo: Path, stream: Path) -> list[list[Any]]:
    """Every command that reads a named model's card."""
    return [
        ["models", "show", model],
        ["models", "verify", model],
        ["compress", photo, "-o", photo.with_suffix(".out"), "--codec", model],
        ["classify", stream, "--network", model],
    ]


def check_card(dcu: Dcu, models: Path, name: str, photo: Path, stream: Path) -> None:
    for command in card_commands(models / name, photo, stream):
        answer = dcu(*command)
        assert refused(answer), (command[:2], answer.code, answer.err[:300])
    assert dcu("models", "list").code == 69


@pytest.mark.parametrize("text", WHOLE_CARDS.values(), ids=WHOLE_CARDS)
def test_files_in_the_place_of_a_card(dcu: Dcu, own_models: Path, photo: Path, stream: Path, text: bytes) -> None:
    (own_models / "codec-0.0983" / "card.json").write_bytes(text)
    check_card(dcu, own_models, "codec-0.0983", photo, stream)


@pytest.mark.parametrize("text", LITERALS.values(), ids=LITERALS)
def test_numbers_and_keys_that_json_should_not_have(
    dcu: Dcu, own_models: Path, photo: Path, stream: Path, text: str
) -> None:
    path = own_models / "codec-0.0983" / "card.json"
    path.write_text(path.read_text().rstrip().removesuffix("}") + f", {text}}}")
    check_card(dcu, own_models, "codec-0.0983", photo, stream)


@pytest.mark.parametrize(("key", "value"), VALUES, ids=lambda value: repr(value)[:24])
def test_values_of_cards(dcu: Dcu, own_models: Path, photo: Path, stream: Path, key: str, value: Any) -> None:
    """Read by the commands for its kind; what is listed is not believed either, but for the hash of the weights."""
    name = "classifier-0.0983" if key in ("labels", "temperature", "int8", "baselines") else "codec-0.0983"
    path = own_models / name / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    of_kind = 2 if name.startswith("codec") else 3
    for command in (card_commands(own_models / name, photo, stream)[at] for at in (1, of_kind)):
        answer = dcu(*command)
        assert refused(answer), (command[:2], answer.code, answer.err[:300])
    well_formed = key == "sha256" and value == "0" * 64
    assert dcu("models", "list").code == (0 if well_formed else 69)


@pytest.mark.parametrize("count", [0, 1, 2, 4, 1000])
def test_labels_too_few_or_too_many(dcu: Dcu, own_models: Path, stream: Path, count: int) -> None:
    path = own_models / "classifier-0.0983" / "card.json"
    labels = [{"label": str(number)} for number in range(count)]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"labels": labels}))
    for command in (["models", "verify"], ["classify", stream, "--network"]):
        assert refused(dcu(*command, own_models / "classifier-0.0983"))


@pytest.mark.slow
@pytest.mark.parametrize("data", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("name", ["codec-0.0983", "classifier-0.0983"])
def test_files_in_the_place_of_weights(
    dcu: Dcu, own_models: Path, photo: Path, stream: Path, name: str, data: bytes
) -> None:
    directory = own_models / name
    (directory / "weights.safetensors").write_bytes(data)
    model = store.read_model(directory)
    store.amend(model, lambda card: replace(card, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data)))
    for command in card_commands(directory, photo, stream)[1:]:
        assert refused(dcu(*command)), command[:2]


@pytest.mark.parametrize("change", TENSORS.values(), ids=TENSORS)
def test_weights_of_a_codec(dcu: Dcu, own_models: Path, photo: Path, change: Any) -> None:
    model = store.read_model(own_models / "codec-0.0983")
    tensors = store.to_file_names(model.weights())
    tensors = {name.replace("centres", "centers"): value.clone() for name, value in tensors.items()}
    change(tensors)
    data = save(store.to_file_names({name: value.contiguous().clone() for name, value in tensors.items()}))
    (model.directory / "weights.safetensors").write_bytes(data)
    store.amend(model, lambda card: replace(card, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data)))
    for command in (
        ["models", "verify", model.directory],
        ["compress", photo, "-o", photo.with_suffix(".out"), "--codec", model.directory],
    ):
        answer = dcu(*command)
        assert refused(answer), (answer.code, answer.err[:300])


OVERFLOWING = {
    "analysis": ("codec-0.0983", ("compress",)),
    "synthesis": ("codec-0.0983", ("decode",)),
    "trunk": ("classifier-0.0983", ("classify",)),  # features are clipped by ReLU6
    "pyramid": ("segmenter-0.0983", ("segment",)),
}
"""Parts of models, and the commands that compute with them."""


@pytest.mark.usefixtures("segmenter")
@pytest.mark.parametrize("part", OVERFLOWING)
def test_finite_weights_that_overflow(dcu: Dcu, own_models: Path, photo: Path, tmp_path: Path, part: str) -> None:
    """Each command says so; nothing is written, and no image or answer made of what is no number."""
    name, commands = OVERFLOWING[part]
    model = store.read_model(own_models / name)
    tensors = store.to_file_names(model.weights())
    for key, value in tensors.items():
        if key.startswith(part) and value.is_floating_point():
            tensors[key] = torch.full_like(value, 3e38, dtype=torch.float32)
    data = save(tensors)
    (model.directory / "weights.safetensors").write_bytes(data)
    store.amend(model, lambda card: replace(card, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data)))
    codec = Codec.from_model(store.read_model(own_models / "codec-0.0983"))
    payload = fixed(codec).entropy.encode(torch.ones(codec.channels, 2, 3, dtype=torch.uint8))
    stream, out = tmp_path / "x.bin", tmp_path / "out"
    stream.write_bytes(bitstream.write(bitstream.Header(codec.identity), 24, 16, [[payload]]))
    calls: dict[str, list[Any]] = {
        "compress": [photo, "-o", out],
        "decode": [stream, "-o", out.with_suffix(".png")],
        "classify": [stream, "--engine", "pytorch"],
        "segment": [stream, "-o", out.with_suffix(".png")],
    }
    for command in commands:
        answer = dcu(command, *calls[command])
        assert (answer.code, answer.out) == (69, ""), command
        assert one_line(answer.err)
        assert "network output is not finite" in answer.err
        assert not list(tmp_path.glob("out*"))
    verified = dcu("models", "verify", model.directory)
    assert (verified.code, one_line(verified.err)) == (69, True)


def test_network_of_giant_layers(dcu: Dcu, own_models: Path, stream: Path) -> None:
    """A bias says 30 million classes, its layer would have 150 GB."""
    model = store.read_model(own_models / "classifier-0.0983")
    tensors = store.to_file_names(model.weights())
    tensors["trunk.classifier.bias"] = tensors["trunk.classifier.bias"][:1].repeat(3 * 10**7)
    data = save(tensors)
    (model.directory / "weights.safetensors").write_bytes(data)
    store.amend(model, lambda card: replace(card, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data)))
    for command in (["models", "verify"], ["classify", stream, "--network"]):
        assert refused(dcu(*command, model.directory))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["card.json", "weights.safetensors"])
@pytest.mark.parametrize("kind", ["device", "pipe", "directory", "dangling", "loop", "other", "large"])
def test_what_is_no_regular_file(
    dcu: Dcu, own_models: Path, photo: Path, stream: Path, tmp_path: Path, name: str, kind: str
) -> None:
    path = own_models / "codec-0.0983" / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(4 * GB)
    else:
        other = tmp_path / "other"
        other.write_bytes(safetensors(tensor("F32", [1], 0, 4), b"\0" * 4))
        targets = {"device": "/dev/zero", "dangling": "none", "loop": str(path), "other": str(other)}
        path.symlink_to(targets[kind])
    for command in card_commands(own_models / "codec-0.0983", photo, stream)[1:]:
        assert refused(dcu(*command)), command[:2]


def recipe(section: str, key: str, value: str) -> str:
    """A recipe with a value in the place of its own."""
    head, _, rest = CODEC_TOML.partition(f"[{section}]\n")
    own, mark, after = rest.partition("\n[")
    own = re.sub(rf"^{key} = .*$\n?", "", own, flags=re.MULTILINE)
    return f"{head}[{section}]\n{key} = {value}\n{own}{mark}{after}"


def train(dcu: Dcu, tmp_path: Path, text: bytes) -> Result:
    path = tmp_path / "recipe.toml"
    path.write_bytes(text)
    for index in range(3):
        image = tmp_path / "pictures" / f"{index}.png"
        image.parent.mkdir(exist_ok=True)
        image.write_bytes(png(smooth_image(40, 48, seed=index)))
    where = ["--data", tmp_path / "pictures", "--runs", tmp_path / "runs", "--out", tmp_path / "model"]
    answer = dcu("train", "codec", path, *where)
    assert not (tmp_path / "model").exists()
    assert not (tmp_path / "runs").exists()
    return answer


@pytest.mark.parametrize("text", RECIPES.values(), ids=RECIPES)
def test_files_in_the_place_of_a_recipe(dcu: Dcu, tmp_path: Path, text: bytes) -> None:
    answer = train(dcu, tmp_path, text)
    assert refused(answer), (answer.code, answer.err[:300])


@pytest.mark.slow
@pytest.mark.parametrize(("section", "key", "value"), RECIPE_VALUES, ids=lambda value: value[:24])
def test_values_of_recipes(dcu: Dcu, tmp_path: Path, section: str, key: str, value: str) -> None:
    answer = train(dcu, tmp_path, recipe(section, key, value).encode())
    assert refused(answer), (answer.code, answer.err[:300])
    assert answer.code == 2


def test_there_are_enough_of_them() -> None:
    assert len(WHOLE_CARDS) + len(LITERALS) + len(VALUES) + len(WEIGHTS) + len(TENSORS) >= 100
    assert len(RECIPES) + len(RECIPE_VALUES) >= 100
