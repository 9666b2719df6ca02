"""`make fuzz` reads what is whole, repeats its cases, and notices what it is for."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dcu.errors import InvalidInputError

from . import fuzz
from .fuzz import Kind, Streams, accepted, case, kinds, run

NAMES = ("streams", "payloads", "label maps", "images", "tars", "cards", "weights", "recipes")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DCU_MODELS", "DCU_MAX_PIXELS"):
            patch.setenv(name, "1")  # restored afterwards
        return {kind.name: kind for kind in kinds(tmp_path_factory.mktemp("fuzz"))}


@pytest.fixture(autouse=True)
def environment(found: dict[str, Kind], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCU_MAX_PIXELS", str(fuzz.PIXELS))


def undamaged(kind: Kind, found: dict[str, Kind]) -> Sequence[bytes]:
    streams: Streams = found["streams"].read.__self__  # type: ignore[attr-defined]
    models: fuzz.Models = found["cards"].read.__self__  # type: ignore[attr-defined]
    return {
        "streams": [*streams.corpus, *streams.large],
        "payloads": [*streams.corpus, *streams.large],
        "label maps": fuzz.label_map_corpus(),
        "images": fuzz.image_corpus(),
        "tars": fuzz.tar_corpus(),
        "cards": models.cards,
        "weights": models.weights[-1:],
        "recipes": [path.read_bytes() for path in fuzz.RECIPES.glob("*.toml") if path.stem != "mixtures"],
    }[kind.name]


@pytest.mark.parametrize("name", NAMES)
def test_damaged_inputs_are_read_or_refused(found: dict[str, Kind], name: str) -> None:
    """A few cases of each kind, of one seed."""
    run(found[name], 0, range(20), float("inf"), mmap.mmap(-1, 80))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_damaged_is_read(found: dict[str, Kind], name: str) -> None:
    if name == "streams":  # those of version 2 are of a codec that is not there
        return
    for data in undamaged(found[name], found):
        assert accepted(found[name], data)


@pytest.mark.parametrize("name", NAMES)
def test_a_case_is_the_same_again(found: dict[str, Kind], name: str) -> None:
    assert case(found[name], 3, 7) == case(found[name], 3, 7) != case(found[name], 4, 7)


def test_enough_cases(found: dict[str, Kind]) -> None:
    assert {name: kind.cases for name, kind in found.items()}.items() >= {
        "streams": 20_000, "payloads": 2_000, "label maps": 500, "tars": 500, "cards": 500, "recipes": 500,
    }.items()  # fmt: skip


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("x"), InvalidInputError("two\nlines")])
def test_other_errors_fail(
    found: dict[str, Kind], error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(data: bytes) -> None:
        raise error

    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    with pytest.raises(SystemExit, match=r"images, seed 5, case 2, kept in "):
        run(replace(found["images"], read=read), 5, range(2, 3), float("inf"), mmap.mmap(-1, 80))
    assert (tmp_path / "dcu-fuzz-images-5-2").read_bytes() == case(found["images"], 5, 2)


def test_a_damaged_stream_that_is_accepted_fails(found: dict[str, Kind]) -> None:
    streams: Streams = found["streams"].read.__self__  # type: ignore[attr-defined]
    data = streams.corpus[2]
    other = fuzz.with_checksum(data[:-5] + bytes([data[-5] ^ 1]))
    with pytest.raises(fuzz.Found, match="accepted"):
        accepted(found["streams"], other)
