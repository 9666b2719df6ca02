"""What runs a network: PyTorch, and ONNX Runtime where it is installed. Both sides of a comparison get both."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn

Engine = Callable[[Tensor], object]
ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def engines(network: nn.Module, example: Tensor, threads: int) -> dict[str, Engine]:
    """The engines that are installed, by name, each a function of a batch; ``example`` is one input, (1, ...)."""
    network = network.eval()

    @torch.inference_mode()
    def pytorch(batch: Tensor) -> Tensor:
        answer: Tensor = network(batch.contiguous(memory_format=torch.channels_last))
        return answer

    found: dict[str, Engine] = {"PyTorch": pytorch}
    if example.device.type == "cpu" and all(map(find_spec, ONNX_PACKAGES)):
        found["ONNX Runtime"] = onnx_runtime(network, example, threads)
    return found


def onnx_runtime(network: nn.Module, example: Tensor, threads: int) -> Engine:
    """The network in ONNX Runtime on the CPU, batch size free."""
    import onnxruntime

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    two = torch.cat([example, example]).contiguous()  # a size of 1 would be taken for fixed
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network, (two,), dynamic_shapes=({0: torch.export.Dim("batch")},), dynamo=True, verbose=False
        )
    assert program is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch.contiguous().numpy()})
