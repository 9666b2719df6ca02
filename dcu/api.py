"""What ``dcu`` does in one call: the codec and the classifier are those that a stream names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dcu import arguments
from dcu.bitstream import read
from dcu.codec import codec_of
from dcu.image import ImageArray
from dcu.tasks.classify import Predictions, classifier_for
from dcu.tasks.prior import Class


def decode(data: arguments.Data) -> ImageArray:
    """Decode a bitstream to an image (H, W, 3) uint8, with the installed codec that made it.

    Raises
    ------
    InvalidInputError
        Not a bitstream, or damaged.
    UnavailableError
        Its codec is not installed.
    TypeError
        ``data`` is not bytes.
    """
    data = arguments.data(data)
    return codec_of(read(data).codec).decode(data)


def classify(
    data: arguments.Data,
    top: int = 5,
    *,
    classes: Iterable[Class] | None = None,
    prior: Mapping[str, float] | Mapping[int, float] | None = None,
    min_probability: float = 0.0,
) -> Predictions:
    """The ``top`` most probable classes of a bitstream, predicted by the installed classifier for its codec.

    See :class:`dcu.Classifier` for ``classes``, ``prior`` and ``min_probability``.

    Raises
    ------
    InvalidInputError
        Not a bitstream, or damaged.
    UnavailableError
        Its codec is not installed, or no classifier for it.
    TypeError, ValueError
        ``data`` is not bytes, or ``top``, a class, a weight or a probability is invalid.
    """
    data = arguments.data(data)
    classifier = classifier_for(read(data).codec)
    return classifier(data, top, classes=classes, prior=prior, min_probability=min_probability)
