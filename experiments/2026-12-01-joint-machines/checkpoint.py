"""Writes the checkpoint of the run of 4,000 steps for ``--init``: checkpoint.py CODEC OUTPUT.

``CODEC`` is what experiments/2026-11-30-codec-2-sharp/checkpoint.py writes; weights.safetensors has what joint training
changed: the adapter and the classifier in float16, the context model and the vectors of operating points.
"""

import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

WEIGHTS = Path(__file__).parent / "weights.safetensors"

with safe_open(WEIGHTS, "pt") as file:
    save_file(load_file(sys.argv[1]) | load_file(WEIGHTS), sys.argv[2], metadata=file.metadata())
