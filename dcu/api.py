"""What ``dcu`` does in one call: the codec and the classifier are those that a stream names."""

from __future__ import annotations

from dcu import arguments
from dcu.bitstream import read
from dcu.codec import codec_of
from dcu.image import ImageArray
from dcu.tasks.classify import Predictions, classifier_for


def decode(data: arguments.Data) -> ImageArray:
    """The image (H, W, 3) uint8 that a bitstream holds, by the installed codec that made it.

    Raises
    ------
    InvalidInputError
        Not a stream, or damaged.
    UnavailableError
        Its codec is not installed.
    TypeError
        ``data`` is not bytes.
    """
    data = arguments.data(data)
    return codec_of(read(data).codec).decode(data)


def classify(data: arguments.Data, top: int = 5) -> Predictions:
    """The ``top`` most probable classes of what a bitstream shows, by the installed classifier for its codec.

    Raises
    ------
    InvalidInputError
        Not a stream, or damaged.
    UnavailableError
        Its codec is not installed, or no classifier for it.
    TypeError, ValueError
        ``data`` is not bytes, ``top`` no positive number.
    """
    data = arguments.data(data)
    return classifier_for(read(data).codec)(data, top)
