"""Writes the checkpoint of the joint run for ``--init``: checkpoint.py CODEC OUTPUT.

CODEC is what ../2026-11-30-codec-2-sharp/checkpoint.py writes; weights.safetensors has what joint training changed: the
adapter and the vectors of each operating point, and the reader in float16.
"""

import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

tensors = load_file(sys.argv[1])
with safe_open(Path(__file__).parent / "weights.safetensors", "pt") as file:
    tensors |= {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    save_file(tensors, sys.argv[2], metadata=file.metadata())
