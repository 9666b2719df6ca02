"""A checkpoint of codec 2 without layers per anchor as one with them, alike at all anchors: convert.py FROM TO."""

import sys

from safetensors import safe_open
from safetensors.torch import save_file

ANCHORS = 8
LAYERS = tuple(f"average.{part}.{layer}." for part in ("analysis", "synthesis") for layer in ("linear", "head"))

source, target = sys.argv[1:]
with safe_open(source, "pt") as file:
    tensors = {name: file.get_tensor(name).float() for name in file.keys() if name.startswith("average.")}  # noqa: SIM118
    for name, tensor in tensors.items():
        if name.startswith(LAYERS):
            plain = tensor.flatten(1) if tensor.ndim > 1 else tensor
            tensors[name] = plain.expand(ANCHORS, *plain.shape).contiguous()
    save_file(tensors, target, metadata=file.metadata())
