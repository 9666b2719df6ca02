"""The pipelines from a file to a label that are compared: what each of them reads, and what it is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dcu.geometry import CROP


@dataclass(frozen=True)
class Pipeline:
    """A network, and the files that it reads.

    Parameters
    ----------
    input : str
        ``latent``: a network on latents of dcu's bitstreams. The RGB network reads ``decoded`` bitstreams, files of
        another ``format``, or the ``original`` image.
    source : str
        Name of the latent network, of the codec, or of the format; empty for the original.
    side : int
        Width and height in pixels of the image in the file; the RGB network gets it enlarged to 224x224.
    tuned : bool
        The RGB network was fine-tuned on decoded images.
    """

    input: Literal["latent", "decoded", "format", "original"]
    source: str = ""
    side: int = CROP
    tuned: bool = False

    @property
    def name(self) -> str:
        """As tables and model cards call it."""
        if self.input == "latent":
            return self.source
        on = "the original" if self.input == "original" else self.source
        size = f" {self.side}x{self.side}" if self.input == "format" else ""
        return f"RGB{' tuned' if self.tuned else ''} on {on}{size}"

    @property
    def curve(self) -> str:
        """What it has in common with the same pipeline at another rate: the title of a curve through them."""
        if self.input == "latent":
            return "latent classifiers"
        if self.input == "decoded":
            return f"RGB{' tuned' if self.tuned else ''} on decoded images"
        return f"RGB on {self.source or 'the original'}"
