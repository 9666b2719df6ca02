"""dcu: photographs in a few hundred bytes, understood straight from the bitstream."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dcu.codec import Codec
    from dcu.tasks.classify import Classifier
    from dcu.tasks.segment import Segmenter

__version__ = "0.1.0"
__all__ = ["Classifier", "Codec", "Segmenter", "__version__"]

_HOMES = {"Codec": "dcu.codec", "Classifier": "dcu.tasks.classify", "Segmenter": "dcu.tasks.segment"}


def __getattr__(name: str) -> Any:
    """Public names are imported at first use: importing ``dcu`` imports no torch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
