"""The public API: what ``dcu`` exports, and nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

import dcu

PUBLIC = {
    "Classifier",
    "Codec",
    "DcuError",
    "InvalidInputError",
    "MissingInputError",
    "OutputError",
    "Prediction",
    "Predictions",
    "SegmentationMap",
    "Segmenter",
    "UnavailableError",
    "UsageError",
    "__version__",
    "read_image",
}


def test_public_names() -> None:
    assert set(dcu.__all__) == PUBLIC
    assert dir(dcu) == sorted(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC - {"__version__"}))
def test_public_names_are_what_they_are_called(name: str) -> None:
    assert getattr(dcu, name).__name__ == name


def test_other_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Encoder'"):
        dcu.Encoder  # noqa: B018


def test_names_that_need_no_torch_import_none() -> None:
    code = "import sys, dcu; dcu.read_image, dcu.DcuError; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
