"""dcu: a learned image codec whose bitstreams networks classify and segment without decoding.

The names in ``__all__`` are the public API. Every other module and name is internal and may change in any release.

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
    from dcu.pillow import register_pillow
    from dcu.tasks.classify import Classifier, Prediction, Predictions
    from dcu.tasks.segment import SegmentationMap, Segmenter

__version__ = "0.2.0"
__all__ = [
    "Classifier",
    "Codec",
    "DcuError",
    "InvalidInputError",
    "MissingInputError",
    "OutputError",
    "Prediction",
    "Predictions",
    "SegmentationMap",
    "Segmenter",
    "UnavailableError",
    "UsageError",
    "__version__",
    "classify",
    "decode",
    "read_image",
    "register_pillow",
]

_MODULES = {
    "dcu.api": ("classify", "decode"),
    "dcu.codec": ("Codec",),
    "dcu.errors": (
        "DcuError",
        "InvalidInputError",
        "MissingInputError",
        "OutputError",
        "UnavailableError",
        "UsageError",
    ),
    "dcu.image": ("read_image",),
    "dcu.pillow": ("register_pillow",),
    "dcu.tasks.classify": ("Classifier", "Prediction", "Predictions"),
    "dcu.tasks.segment": ("SegmentationMap", "Segmenter"),
}

# Read when torch is loaded: for how long its OpenMP threads wait in a loop for the next operation, some 0.02 ms. The
# default is several ms, for which they keep a processor from whatever else runs (`dcu.threads.calm`).
if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def __getattr__(name: str) -> Any:
    """Public names are imported at first use: importing ``dcu`` imports no torch."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
