"""Backends of networks on the CPU: PyTorch, or ONNX Runtime in float32 and int8 where dcu-codec[fast] is installed."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import sys
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

from dcu import cache
from dcu.batching import MOST_POSITIONS, Batched
from dcu.entropy import instruction_sets
from dcu.errors import UnavailableError
from dcu.nets.products import as_products
from dcu.precision import autocast
from dcu.threads import Exact

ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
TITLES = {"pytorch": "PyTorch", "onnx": "ONNX Runtime", "int8": "ONNX Runtime int8"}
"""Engines by the names that users give them, the slowest first, and as tables call them."""
NAMES = ("auto", *TITLES)
"""What users may ask for; auto is the last of those that are :func:`available`."""
SILENT = 4
"""Severity of ONNX Runtime's messages that are shown: what ends the process. Errors are raised."""


Engine = Callable[[Tensor], Tensor]
"""A batch to the network's answer to it."""
Ready = Exact | Batched
"""An engine that also takes images of any size, one by one."""


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
        raise UnavailableError(f"{engine} runs on the CPU and needs ONNX Runtime: pip install 'dcu-codec[fast]'")
    return there[-1] if engine == "auto" else engine


def pytorch(network: nn.Module, part: str = "forward") -> Ready:
    """A network, or one of its methods by name, as PyTorch computes it: on CPUs image by image, on GPUs in batches."""
    on_cpu = all(tensor.device.type == "cpu" for tensor in network.parameters())
    return ready(getattr(as_products(network) if on_cpu else network, part), "cpu" if on_cpu else "cuda")


def ready(compute: Callable[..., Tensor], device: str, precision: str = "float32", most: int = MOST_POSITIONS) -> Ready:
    """What computes from images (B, C, h, w) and further tensors, in a precision.

    On CPUs image by image, on GPUs in batches of at most ``most`` positions h * w.
    """

    def run(batch: Tensor, *more: Tensor) -> Tensor:
        with torch.inference_mode(), autocast(precision, device):
            return compute(batch.contiguous(memory_format=torch.channels_last), *more).float()

    return Exact(run, run) if device == "cpu" else Batched(run, most)


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Neither the exporter's nor the quantizer's remarks reach the user; loggers are as before afterwards.

    The exporter names a directory after the user, for whom it would ask a service where the environment has no name.
    """
    before = logging.root.manager.disable
    nameless = not any(map(os.environ.get, ("LOGNAME", "USER", "LNAME", "USERNAME")))
    if nameless:
        os.environ["LOGNAME"] = f"uid_{os.getuid()}"  # as the exporter calls those who have none
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        if nameless:
            del os.environ["LOGNAME"]


def exported(network: nn.Module, example: Tensor) -> bytes:
    """The network as an ONNX model, float32; ``example`` is one input, (1, ...), the batch size is free."""
    runtime()  # the exporter may start it
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
    """An ONNX model in int8, one scale per channel; ``examples`` (n, ...) give the ranges of activations."""
    runtime()
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """The examples, as the calibration asks for them."""

        def __init__(self) -> None:
            self.parts: Iterator[Tensor] = iter(examples.split(1))  # of ten together, 360 MB more are needed
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


def runtime() -> Any:
    """ONNX Runtime; what it would tell its makers and the user on its own is off, unless they were asked for.

    Its wheels collect telemetry, which only the environment turns off before it starts; what the program that uses dcu
    set up stays as it is.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    first = "onnxruntime" not in sys.modules
    import onnxruntime

    if first:
        onnxruntime.set_default_logger_severity(SILENT)
    return onnxruntime


def session_of(model: bytes, threads: int) -> Any:
    """An ONNX model made ready."""
    options = runtime().SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = SILENT
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads that spin slow PyTorch's down
    return runtime().InferenceSession(model, options, providers=["CPUExecutionProvider"])


def onnx_runtime(model: bytes, threads: int) -> Ready:
    """An ONNX model in ONNX Runtime on the CPU, on one thread and on so many."""

    def on(session: Any, image: Tensor) -> Tensor:
        name = session.get_inputs()[0].name
        return torch.from_numpy(session.run(None, {name: image.contiguous().numpy()})[0])

    single = session_of(model, 1)

    @functools.cache
    def spread() -> Any:
        return session_of(model, threads)

    return Exact(lambda image: on(single, image), lambda image: on(spread(), image))


def kept(key: str, title: str, make: Callable[[], bytes], threads: int) -> Ready:
    """The engine of an ONNX model that is made once and kept in the cache under a key of its own."""
    versions = (f"{name}-{version(name)}" for name in ("torch", "onnxruntime"))
    return onnx_runtime(cache.kept(f"{'-'.join([key, *versions])}.onnx", f"{title} for ONNX Runtime", make), threads)


def engines(network: nn.Module, examples: Tensor, threads: int) -> dict[str, Engine]:
    """The engines that are available, by name; ``examples`` (n, ...) are the network's inputs."""
    network = network.eval()
    names = available(examples.device.type)
    found: dict[str, Engine] = {"pytorch": pytorch(network)}
    if "onnx" in names:
        model = exported(network, examples[:1])
        found["onnx"] = onnx_runtime(model, threads)
    if "int8" in names:
        found["int8"] = onnx_runtime(quantized(model, examples), threads)
    return found
