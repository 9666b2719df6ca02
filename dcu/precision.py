"""The precision of networks: float32, or bfloat16 where the processor has instructions for it."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from dcu.errors import UnavailableError

NAMES = ("auto", "float32", "bfloat16")
"""What users may ask for; auto is bfloat16 on CPUs that :func:`multiplies_bf16`, float32 elsewhere."""


def computes_bf16(device: str) -> bool:
    """Whether a device computes in bfloat16: CUDA, and CPUs on which oneDNN does (AVX-512 or better on x86).

    Elsewhere PyTorch does without oneDNN, and a step takes twenty times as long as in float32 (docs/training.md).
    """
    if device != "cpu":
        return True
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def multiplies_bf16() -> bool:
    """Whether the CPU has instructions that multiply bfloat16: AVX-512 BF16 or AMX."""
    has = (getattr(torch.cpu, name, bool) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return computes_bf16("cpu") and any(instructions() for instructions in has)


def chosen(precision: str, device: str) -> str:
    """float32 or bfloat16, where one of ``NAMES`` is asked for.

    Raises
    ------
    UnavailableError
        bfloat16 was asked for, and the device does not compute in it.
    """
    if precision == "bfloat16" and not computes_bf16(device):
        raise UnavailableError("this CPU does not compute in bfloat16")
    if precision == "auto":
        return "bfloat16" if device == "cpu" and multiplies_bf16() else "float32"
    return precision


def autocast(precision: str, device: str) -> AbstractContextManager[object]:
    """A context in which networks run in a precision."""
    return torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=precision == "bfloat16")
