"""Writes the checkpoint of codec-2 for ``--init``: checkpoint.py OUTPUT.

The transforms are those of codec-2's preview, in float16; context.safetensors has what is not in a model: the context
model before it became integers, and the gains at the anchors. Run with ``PYTHONPATH=.``.
"""

import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

PREVIEW = Path(__file__).parents[1] / "2026-12-01-joint-machines" / "preview" / "codec-2"
tensors = {f"average.{name}": tensor for name, tensor in load_file(PREVIEW / "weights.safetensors").items()}
tensors = {
    name: tensor for name, tensor in tensors.items() if name.startswith(("average.analysis", "average.synthesis"))
}
with safe_open(Path(__file__).parent / "context.safetensors", "pt") as file:
    tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, sys.argv[1], metadata=file.metadata())
