"""Where models and caches are looked for, in ordinary and in bare environments."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from dcu import paths

from .conftest import Dcu, one_line


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that runs as a user id of its own: no HOME, no passwd entry."""

    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "DCU_CACHE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_home")
def test_without_a_home_directory_shipped_models_are_left(models: Path) -> None:
    assert paths.user_models() is None
    assert paths.search_path() == [models, paths.shipped("models")]
    assert paths.cache_directory().is_absolute()


@pytest.mark.usefixtures("no_home")
def test_commands_without_a_home_directory(dcu: Dcu, photo: Path, tmp_path: Path) -> None:
    assert dcu("compress", photo, "-o", tmp_path / "x.bin").code == 0
    for command in (("verify", tmp_path / "x.bin"), ("info", tmp_path / "x.bin"), ("models", "list")):
        assert dcu(*command).code == 0
    removed = dcu("models", "remove", "codec-0.0983")
    assert (removed.code, one_line(removed.err)) == (2, True)


@pytest.mark.parametrize("variable", ["XDG_DATA_HOME", "XDG_CACHE_HOME"])
def test_xdg_directories(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absolute values count; empty and relative ones are ignored, as the specification says."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DCU_CACHE", raising=False)
    kind = variable.split("_")[1].lower()
    monkeypatch.delenv(variable, raising=False)
    default = paths.user_directory(kind)
    assert default is not None
    assert default.is_relative_to(tmp_path)
    for ignored in ("", "here", "./here", "~/here"):
        monkeypatch.setenv(variable, ignored)
        assert paths.user_directory(kind) == default
    monkeypatch.setenv(variable, str(tmp_path / "xdg"))
    assert paths.user_directory(kind) == tmp_path / "xdg" / "dcu"


def test_search_path_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DCU_MODELS", os.pathsep.join(["models", "", "."]))
    assert paths.search_path()[:2] == [tmp_path / "models", tmp_path]
