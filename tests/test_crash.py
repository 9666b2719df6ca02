"""Two kills of each command that writes; `make crash` has more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .crash import COMMANDS, Trial, prepare


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("crash") / "prepared"
    prepare(directory)
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not command.by_hand])
def test_a_killed_command_can_be_repeated(
    name: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("DCU_MODELS", "DCU_CACHE", "XDG_DATA_HOME"):
        monkeypatch.setenv(variable, os.environ.get(variable, ""))  # restored afterwards
    trial = Trial(COMMANDS[name], prepared, tmp_path)
    for share in (0.4, 0.8):
        trial.kill(share)
