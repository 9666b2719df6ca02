"""What runs a network on the CPU: PyTorch, or ONNX Runtime, in eight bits too, where dcu[fast] is installed."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dcu.entropy import instruction_sets
from dcu.errors import UnavailableError
from dcu.io import write_atomic

LOG = logging.getLogger(__name__)
Engine = Callable[[Tensor], Tensor]
"""A batch to the network's answer to it."""
ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
TITLES = {"pytorch": "PyTorch", "onnx": "ONNX Runtime", "int8": "ONNX Runtime int8"}
"""Engines by the names that users give them, the slowest first, and as tables call them."""
NAMES = ("auto", *TITLES)
"""What users may ask for; auto is the last of those that are :func:`available`."""
CALIBRATION_BATCH = 10
"""Examples that go through a network together while ranges are measured."""


def onnx_installed() -> bool:
    """Whether ONNX Runtime is installed, and what exports to it."""
    return all(map(find_spec, ONNX_PACKAGES))


def available(device: str, keeps_int8: bool = True) -> list[str]:
    """The engines to choose from, of ``TITLES``: eight bits where network and processor are exact enough with them."""
    if device != "cpu" or not onnx_installed():
        return ["pytorch"]
    return ["pytorch", "onnx", *(["int8"] if keeps_int8 and weight_bits() == 8 else [])]


def chosen(engine: str, device: str, keeps_int8: bool = True) -> str:
    """The engine, of ``TITLES``, where one of ``NAMES`` is asked for.

    Raises
    ------
    UnavailableError
        It was asked for and cannot be had.
    """
    there = available(device, keeps_int8)
    if engine in ("onnx", "int8") and "onnx" not in there:
        raise UnavailableError(f"{engine} runs on the CPU and needs ONNX Runtime: pip install 'dcu[fast]'")
    return there[-1] if engine == "auto" else engine


def pytorch(network: nn.Module) -> Engine:
    """The network as it is."""

    @torch.inference_mode()
    def run(batch: Tensor) -> Tensor:
        answer: Tensor = network(batch.contiguous(memory_format=torch.channels_last))
        return answer

    return run


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Neither the exporter's nor the quantizer's remarks reach the user; loggers are as before afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def exported(network: nn.Module, example: Tensor) -> bytes:
    """The network as an ONNX model, float32; ``example`` is one input, (1, ...), the batch size is free."""
    two = torch.cat([example, example]).contiguous()  # a size of 1 would be taken for fixed
    with hushed():
        program = torch.onnx.export(
            network, (two,), dynamic_shapes=({0: torch.export.Dim("batch")},), dynamo=True, verbose=False
        )
    assert program is not None
    model: bytes = program.model_proto.SerializeToString()
    return model


def weight_bits() -> int:
    """Of a weight: eight with VNNI, which adds products in 32 bits; seven, so that two products fit 16, without."""
    return 8 if "avx512vnni" in instruction_sets() else 7


def quantized(model: bytes, examples: Tensor) -> bytes:
    """An ONNX model in eight bits, a scale a channel; ``examples`` (n, ...) show how large activations become."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """The examples, as the calibration asks for them."""

        def __init__(self) -> None:
            self.parts: Iterator[Tensor] = iter(examples.split(CALIBRATION_BATCH))
            self.name = session_of(model, 1).get_inputs()[0].name

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            part = next(self.parts, None)
            return None if part is None else {self.name: part.contiguous().numpy()}

    with hushed(), tempfile.TemporaryDirectory(prefix="dcu-") as directory:
        plain, shaped, small = (Path(directory) / f"{name}.onnx" for name in ("plain", "shaped", "small"))
        plain.write_bytes(model)
        quant_pre_process(str(plain), str(shaped))
        quantize_static(
            str(shaped),
            str(small),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=weight_bits() == 7,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return small.read_bytes()


def session_of(model: bytes, threads: int) -> Any:
    """An ONNX model made ready."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads that spin slow PyTorch's down
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def onnx_runtime(model: bytes, threads: int) -> Engine:
    """An ONNX model in ONNX Runtime on the CPU."""
    session = session_of(model, threads)
    name = session.get_inputs()[0].name
    return lambda batch: torch.from_numpy(session.run(None, {name: batch.contiguous().numpy()})[0])


def cache_directory() -> Path:
    """Where prepared networks are kept: $DCU_CACHE, or dcu/ in the user's cache directory."""
    if chosen := os.environ.get("DCU_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dcu"


def kept(key: str, make: Callable[[], bytes], threads: int) -> Engine:
    """The engine of an ONNX model that is made once and kept in the cache under a key of its own."""
    tag = "-".join([key, *(f"{name}-{version(name)}" for name in ("torch", "onnxruntime"))])
    place = cache_directory() / f"{tag}.onnx"
    with contextlib.suppress(Exception):  # ONNX Runtime's own errors share no class
        return onnx_runtime(place.read_bytes(), threads)
    LOG.info("preparing the network for ONNX Runtime, once")
    model = make()
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(place, model)
    return onnx_runtime(model, threads)


def engines(network: nn.Module, examples: Tensor, threads: int) -> dict[str, Engine]:
    """The engines that are available, by name; ``examples`` (n, ...) are the network's inputs."""
    network = network.eval()
    names = available(examples.device.type)
    found = {"pytorch": pytorch(network)}
    if "onnx" in names:
        model = exported(network, examples[:1])
        found["onnx"] = onnx_runtime(model, threads)
    if "int8" in names:
        found["int8"] = onnx_runtime(quantized(model, examples), threads)
    return found
