"""dcu: photographs in a few hundred bytes, understood straight from the bitstream.

Example::

    import dcu

    codec = dcu.Codec.load()
    data = codec.compress(dcu.read_image("photo.jpg"))
    dcu.decode(data)
    dcu.classify(data).best
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dcu.api import classify, decode
    from dcu.codec import Codec
    from dcu.errors import (
        DcuError,
        InvalidInputError,
        MissingInputError,
        OutputError,
        UnavailableError,
        UsageError,
    )
    from dcu.image import read_image
    from dcu.tasks.classify import Classifier
    from dcu.tasks.segment import Segmenter

__version__ = "0.1.0"
__all__ = [
    "Classifier",
    "Codec",
    "DcuError",
    "InvalidInputError",
    "MissingInputError",
    "OutputError",
    "Segmenter",
    "UnavailableError",
    "UsageError",
    "__version__",
    "classify",
    "decode",
    "read_image",
]

_HOMES = {
    "Classifier": "dcu.tasks.classify",
    "Codec": "dcu.codec",
    "Segmenter": "dcu.tasks.segment",
    "classify": "dcu.api",
    "decode": "dcu.api",
    "read_image": "dcu.image",
} | dict.fromkeys((name for name in __all__ if name.endswith("Error")), "dcu.errors")

# Read when torch is loaded: for how long its OpenMP threads wait in a loop for the next operation, some 0.02 ms. The
# default is several ms, for which they keep a processor from whatever else runs (`dcu.threads.calm`).
if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def __getattr__(name: str) -> Any:
    """Public names are imported at first use: importing ``dcu`` imports no torch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
