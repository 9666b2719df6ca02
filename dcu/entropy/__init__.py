"""Entropy coding: integer probability tables, the arithmetic coder, and symbols to a payload and back.

`coder.py` has the context model in integers, `backend.py` the choice of the arithmetic coder; `src/` is the C++ of
`_native`, which is built with the package: `arithmetic_coder.h`, `context_model.cpp` with the instruction sets in
`kernels.cpp`, `tile_coder.cpp`, which puts both together, and `bindings.cpp`.
"""

try:
    from dcu.entropy._native import instruction_sets
except ModuleNotFoundError as error:
    raise ImportError(
        f"{__path__[0]}: the compiled coder is missing, as in a checkout: install it with 'pip install -e .'"
    ) from error
from dcu.entropy.backend import chosen_coder
from dcu.entropy.coder import EntropyCoder, float_context, integer_tensors

__all__ = ["EntropyCoder", "chosen_coder", "float_context", "instruction_sets", "integer_tensors"]
