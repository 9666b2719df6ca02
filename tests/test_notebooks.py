"""The notebooks of docs/examples/ run from their first cell to their last, with the released models."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import nbclient
import nbformat
import pytest

from . import code_blocks

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
PLOTS = 2


@pytest.mark.slow
def test_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 images to shards, labels, embeddings, an index, and what a search finds, with the photograph searched for."""
    pytest.importorskip("lancedb")
    monkeypatch.delenv("DCU_MODELS")  # not the tiny ones of other tests
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent.parent))
    monkeypatch.setenv("PATH", f"{code_blocks.command(tmp_path)}{os.pathsep}{os.environ['PATH']}")
    place = tmp_path / "docs" / "examples"
    place.mkdir(parents=True)
    shutil.copytree(code_blocks.SAMPLES, tmp_path / "samples")
    notebook = nbformat.read(EXAMPLES / "archive.ipynb", as_version=4)
    resources = {"metadata": {"path": str(place)}}
    nbclient.NotebookClient(notebook, timeout=300, coalesce_streams=True, resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == PLOTS
    text = "".join(output.get("text", "") for output in outputs)
    assert "200 bitstreams" in text
    assert "torch.Size([32, " in text
    rows = [json.loads(line) for line in (place / "archive" / "report.jsonl").read_text().splitlines()]
    assert len(rows) == 200
    (found,) = (output["text"] for output in outputs if "similarity" in output.get("text", ""))
    assert re.findall(r"^0\.\d+ .* (\w+) +archive/bins/\d+\.tar/\d+\.dcu", found, re.MULTILINE) == ["cat"] * 5
