"""Checkpoints of training runs: tensors and JSON in one safetensors file, never a pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dcu import store
from dcu.errors import InvalidInputError, MissingInputError, OutputError
from dcu.io import replacing

OPTIMIZER = "optimizer."


class Checkpoint:
    """Weights, their average, the optimizer's state and the scalars, in one safetensors file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
        """Write the file atomically; raises OutputError."""
        named = store.to_file_names(tensors)
        contiguous = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in named.items()}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as part:
                save_file(contiguous, part, metadata={"scalars": json.dumps(scalars)})
        except (OSError, SafetensorError) as error:
            raise OutputError(f"{self.path}: checkpoint cannot be written ({error})") from error

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What was saved.

        Raises
        ------
        MissingInputError, InvalidInputError
            No such file, or not a checkpoint.
        """
        if not self.path.exists():
            raise MissingInputError(f"{self.path}: no checkpoint to resume from")
        try:
            with safe_open(self.path, "pt") as file:
                scalars = json.loads(file.metadata()["scalars"])
                return store.to_module_names({n: file.get_tensor(n) for n in file.keys()}), scalars  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(f"{self.path}: not a checkpoint") from error


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of any optimizer: its tensors by name, and the rest as JSON that refers to them."""
    tensors: dict[str, Tensor] = {}
    state = optimizer.state_dict()
    groups = [{k: v for k, v in group.items() if k != "params"} for group in state["param_groups"]]
    packed = {"state": pack(state["state"], OPTIMIZER, tensors), "groups": pack(groups, OPTIMIZER, tensors)}
    return tensors, packed | {"name": type(optimizer).__name__}


def load_optimizer_state(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], packed: dict[str, Any]) -> None:
    """The reverse of :func:`optimizer_state`; raises ValueError, KeyError where it is of another optimizer."""
    if packed["name"] != type(optimizer).__name__:
        raise ValueError(f"state of {packed['name']}, not of {type(optimizer).__name__}")
    groups = unpack(packed["groups"], tensors)
    own = optimizer.state_dict()["param_groups"]
    merged = [mine | theirs for mine, theirs in zip(own, groups, strict=True)]
    state = {int(index): value for index, value in unpack(packed["state"], tensors).items()}
    optimizer.load_state_dict({"state": state, "param_groups": merged})


def pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A nested value as JSON; each tensor goes into ``tensors`` under the name that stands in its place."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": {str(key): pack(item, f"{name}{key}.", tensors) for key, item in value.items()}}
    if isinstance(value, list | tuple):
        return [pack(item, f"{name}{index}.", tensors) for index, item in enumerate(value)]
    return value


def unpack(packed: Any, tensors: dict[str, Tensor]) -> Any:
    """The reverse of :func:`pack`; keys of dictionaries come back as text, tuples as lists."""
    if isinstance(packed, list):
        return [unpack(item, tensors) for item in packed]
    if isinstance(packed, dict):
        if "tensor" in packed:
            return tensors[packed["tensor"]]
        return {key: unpack(item, tensors) for key, item in packed["dict"].items()}
    return packed
