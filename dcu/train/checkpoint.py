"""Checkpoints of training runs: tensors and JSON in one safetensors file, never a pickle."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dcu import store
from dcu.errors import InvalidInputError, MissingInputError, OutputError
from dcu.io import replacing

NO_CHECKPOINT = (
    *(SafetensorError, OSError, LookupError, TypeError, ArithmeticError, ValueError, AttributeError),
    RecursionError,
)
"""What reading a file raises that is none."""
WEIGHTS, AVERAGE, OPTIMIZER = "weights.", "average.", "optimizer."
"""How the names of tensors begin."""
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


class Origin(TypedDict, total=False):
    """Where initial weights come from: a checkpoint of so many steps or a model by name, and the file's SHA-256."""

    name: str
    steps: int
    sha256: str
    reader: Origin


@dataclass(frozen=True)
class OptimizerState:
    """The state of any optimizer: its tensors by name, and the rest as JSON that refers to them."""

    tensors: dict[str, Tensor]
    packed: Json


@dataclass(frozen=True)
class State:
    """What a run needs to continue exactly; of ``scalars`` what is not weights, by name."""

    step: int
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: OptimizerState
    scalars: dict[str, float] = field(default_factory=dict)
    origin: Origin | None = None


class Checkpoint:
    """One safetensors file: ``weights.*``, ``average.*``, ``optimizer.*``, and the rest as JSON in its header."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, state: State) -> None:
        """Write the file atomically; raises OutputError."""
        tensors = {f"{WEIGHTS}{n}": t for n, t in state.weights.items()} | state.optimizer.tensors
        tensors |= {f"{AVERAGE}{n}": t for n, t in state.average.items()}
        contiguous = {n: t.detach().cpu().clone().contiguous() for n, t in store.to_file_names(tensors).items()}
        scalars = {"step": state.step, "start": state.origin, "task": state.scalars}
        header = json.dumps(scalars | {"optimizer": state.optimizer.packed})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as part:
                save_file(contiguous, part, metadata={"scalars": header})
        except (OSError, SafetensorError) as error:
            raise OutputError(f"{self.path}: checkpoint cannot be written ({error})") from error

    def load(self) -> State:
        """What was saved.

        Raises
        ------
        MissingInputError, InvalidInputError
            No such file, or not a checkpoint.
        """
        if not os.path.exists(self.path):
            raise MissingInputError(f"{self.path}: no such checkpoint")
        try:
            with safe_open(self.path, "pt") as file:
                header = json.loads(file.metadata()["scalars"])
                tensors = store.to_module_names({n: file.get_tensor(n) for n in file.keys()})  # noqa: SIM118

            def part(prefix: str) -> dict[str, Tensor]:
                return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

            scalars = {str(name): float(value) for name, value in header["task"].items()}
            own = {n: t for n, t in tensors.items() if n.startswith(OPTIMIZER)}
            optimizer = OptimizerState(own, header["optimizer"])
            return State(int(header["step"]), part(WEIGHTS), part(AVERAGE), optimizer, scalars, header.get("start"))
        except NO_CHECKPOINT as error:
            raise InvalidInputError(f"{self.path}: not a checkpoint") from error

    def origin(self, state: State) -> Origin:
        """What is said of a run that begins with the file."""
        return {"steps": state.step, "sha256": hashlib.sha256(self.path.read_bytes()).hexdigest()}


def optimizer_state(optimizer: torch.optim.Optimizer) -> OptimizerState:
    """The state of any optimizer."""
    tensors: dict[str, Tensor] = {}
    state = optimizer.state_dict()
    groups = [{k: v for k, v in group.items() if k != "params"} for group in state["param_groups"]]
    packed = {"state": pack(state["state"], OPTIMIZER, tensors), "groups": pack(groups, OPTIMIZER, tensors)}
    return OptimizerState(tensors, {**packed, "name": type(optimizer).__name__})


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: OptimizerState) -> None:
    """The reverse of :func:`optimizer_state`; raises ValueError, KeyError, TypeError where it is of another one."""
    packed: Any = state.packed
    if packed["name"] != type(optimizer).__name__:
        raise ValueError(f"state of {packed['name']}, not of {type(optimizer).__name__}")
    groups = unpack(packed["groups"], state.tensors)
    own = optimizer.state_dict()["param_groups"]
    merged = [mine | theirs for mine, theirs in zip(own, groups, strict=True)]
    by_index = {int(index): value for index, value in unpack(packed["state"], state.tensors).items()}
    optimizer.load_state_dict({"state": by_index, "param_groups": merged})


def pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Json:
    """A nested value as JSON; each tensor goes into ``tensors`` under the name that stands in its place.

    A tensor's order in memory is kept with it: rounding of matrix products depends on it. Axes of length 1 come last,
    as their strides may be anything.
    """
    if isinstance(value, Tensor):
        strides = value.stride()
        order = sorted(range(value.ndim), key=lambda axis: (value.shape[axis] == 1, -strides[axis]))
        tensors[name] = value.permute(order)
        return {"tensor": name, "order": [*order]}
    if isinstance(value, dict):
        return {"dict": {str(key): pack(item, f"{name}{key}.", tensors) for key, item in value.items()}}
    if isinstance(value, list | tuple):
        return [pack(item, f"{name}{index}.", tensors) for index, item in enumerate(value)]
    plain: Json = value
    return plain


def unpack(packed: Any, tensors: dict[str, Tensor]) -> Any:
    """The reverse of :func:`pack`; keys of dictionaries come back as text, tuples as lists."""
    if isinstance(packed, list):
        return [unpack(item, tensors) for item in packed]
    if isinstance(packed, dict):
        if "tensor" in packed:
            tensor = tensors[packed["tensor"]]
            order = packed.get("order", range(tensor.ndim))
            return tensor.permute(sorted(range(tensor.ndim), key=order.__getitem__))
        return {key: unpack(item, tensors) for key, item in packed["dict"].items()}
    return packed
