"""Initial weights: the one place where they come from.

Codecs begin with the principal components of 8x8 blocks, networks on latents with the RGB network's backbone,
segmenters with the classifier of their codec; then with what ``--init`` names: checkpoints, or an installed model.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dcu import store
from dcu.codec import Codec, analysis_input, codec_of
from dcu.errors import InvalidInputError, UnavailableError, UsageError
from dcu.geometry import BLOCK
from dcu.labels import IMAGENET
from dcu.nets.efficientnet import EfficientNetLite
from dcu.nets.latent import LatentClassifier, adapter_shape, removed_blocks
from dcu.nets.norms import NORM_BATCHES, add_norms, restore_norms
from dcu.nets.rgb import CLASSES
from dcu.nets.segmenter import LatentSegmenter, RgbSegmenter
from dcu.nets.transforms import Analysis, ConditionalAnalysis, ConditionalSynthesis, Synthesis, start_from_components
from dcu.tasks import rgb
from dcu.tasks.classify import Classifier
from dcu.tasks.rgb import RgbClassifier
from dcu.train.checkpoint import Checkpoint, Origin
from dcu.train.foreign import PICKLED, digest, is_checkpoint, read_tensors

READER = "reader."
"""How the names of a joint run's classifier begin."""
FITTED = 8
"""Batches that the first layer is fitted to where a network begins with one of another codec."""
RIDGE = 1e-4
"""Added to the diagonal of that fit, relative to its mean: channels that are always zero have no weights."""


class Initialized(Protocol):
    """What begins with a checkpoint: every task."""

    scalars: dict[str, float]

    @property
    def module(self) -> nn.Module:
        """All that has weights."""


@runtime_checkable
class Adaptable(Initialized, Protocol):
    """What begins with an installed classifier too: a task whose network reads a codec's latents or images."""

    codec: Codec

    @property
    def folded(self) -> bool:
        """Whether the network is trained without norms, and so with an installed one's weights only."""

    def look(self, index: int) -> None:
        """Send a batch through the network."""

    def seen_beside(self, codec: Codec, planes: int, index: int) -> tuple[Tensor, Tensor]:
        """Of the same batch what the network gets, and what one of another codec does, with so many planes."""


@runtime_checkable
class Matching(Initialized, Protocol):
    """What begins with whatever fits of other programs' weights too: a task with a ResNet."""

    def load_matching(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the tensors that fit; raises ValueError if the last stage's are not among them."""


@runtime_checkable
class Widening(Initialized, Protocol):
    """What begins with a checkpoint that lacks some of its parts, its reader with an installed classifier too."""

    def widened(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a checkpoint, and those that it lacks."""

    def look(self, index: int) -> None:
        """Send a batch through the reader."""


def use_components(
    analysis: Analysis | ConditionalAnalysis,
    synthesis: Synthesis | ConditionalSynthesis,
    crops: Tensor,
    spread: Tensor,
    step: float,
) -> None:
    """Set both linear parts to the principal components of crops (B, 8h, 8w, 3) uint8.

    ``spread`` (C,) and ``step`` are those of :func:`~dcu.nets.transforms.start_from_components`.
    """
    blocks = F.pixel_unshuffle(analysis_input(crops), BLOCK).permute(0, 2, 3, 1).flatten(0, 2)
    start_from_components(analysis, synthesis, blocks, spread, step)


def student_network(channels: int, width: int, depth: int, hidden: int) -> LatentClassifier:
    """A classifier whose backbone is the RGB network's and whose adapter has batch norms and random weights."""
    network = LatentClassifier(channels, width, depth, hidden, CLASSES)
    add_norms(network)
    network.backbone = rgb.rgb_network().backbone
    return network


def segmenter_network(input: str, pyramid: int, classes: int, codec: Codec) -> LatentSegmenter | RgbSegmenter:
    """A segmenter with the weights of the codec's classifier where they fit; pyramid and head are random, with norms.

    Of another ``input`` than "latent" with those of the RGB network.
    """
    network: LatentSegmenter | RgbSegmenter
    if input == "latent":
        weights = store.find_network("classifier", codec.fingerprint).weights()
        if removed_blocks(weights):  # the segmenter has them all
            weights = rgb.rgb_network().state_dict() | weights
        network = LatentSegmenter(*adapter_shape(weights), pyramid, classes)
    else:
        weights = rgb.rgb_network().state_dict()
        network = RgbSegmenter(pyramid, classes)
    known = {name.removeprefix("backbone."): tensor.float() for name, tensor in weights.items()}
    wanted = network.state_dict()
    network.load_state_dict({n: t for n, t in known.items() if n in wanted and not n.startswith("head.")}, strict=False)
    add_norms(network.pyramid)
    add_norms(network.head)
    network.head.answer = network.head.answer.convolution  # type: ignore[assignment]
    return network


def installed_network(name: str, codec: Codec) -> tuple[LatentClassifier | EfficientNetLite, store.Model]:
    """The network of an installed classifier or rgb-classifier of a codec, and its model.

    Raises
    ------
    UnavailableError
        It is not installed, not a classifier, a ResNet, or of another codec.
    """
    model = store.find(name)
    if model.kind != "rgb-classifier":
        network = Classifier(store.find(name, "classifier"), codec, codec.device).network
        if not isinstance(network, LatentClassifier):
            raise UnavailableError(f"{model.name}: is a ResNet, not a network with the RGB network's backbone")
        return network, model
    if model.fingerprint != codec.fingerprint:
        raise UnavailableError(f"{model.name}: was trained with another codec than {codec.name}")
    return RgbClassifier(codec.device, model.weights()).network, model


def initialize(task: Initialized, sources: Sequence[str]) -> Origin | None:
    """Load initial weights of ``sources`` in turn: files of checkpoints, or an installed classifier by name or path.

    Raises
    ------
    MissingInputError, InvalidInputError, UnavailableError, UsageError
        What :func:`from_checkpoint` and :func:`from_model` raise; a codec or segmenter is to begin with a model; a
        network without norms is to begin with none.
    """
    origin: Origin | None = None
    for source in sources:
        is_file = source.endswith((".safetensors", *PICKLED)) or os.path.isfile(source)
        if isinstance(task, Matching) and not (is_file and is_checkpoint(Path(source))):
            found = from_weights(task, source, is_file)
        elif is_file:
            found = from_checkpoint(task, Path(source))
        elif isinstance(task, Adaptable):
            found = from_model(task, source)
        elif isinstance(task, Widening) and origin:
            found = reader_from_model(task, source)
        else:
            raise UsageError(f"--init {source}: not a checkpoint file; only classifiers can be initialized from models")
        origin = {**origin, "reader": found} if origin else found
    if origin is None and isinstance(task, Adaptable) and task.folded:
        raise UsageError("folded requires --init with a trained network")
    return origin


def from_checkpoint(task: Initialized, path: Path) -> Origin:
    """Load the averaged weights and the scalars of another run's checkpoint.

    A joint run begins with a codec's (its reader begins anew), then maybe its reader with a classifier's; a
    classifier's with the reader of a joint run.

    Raises
    ------
    MissingInputError, InvalidInputError
        No checkpoint, or not one of the same architecture.
    """
    checkpoint = Checkpoint(path)
    state = checkpoint.load()
    found, wanted = state.average, task.module.state_dict()
    alike = not set(wanted).isdisjoint(found)  # else one of them is a joint run's, and a reader is all they share
    if not alike:
        inner = {n.removeprefix(READER): t for n, t in found.items() if n.startswith(READER)}
        found = inner or {f"{READER}{n}": t for n, t in found.items()}
        wanted = {n: t for n, t in wanted.items() if n.startswith(READER)} or wanted
    if isinstance(task, Widening):
        found = task.widened(found)
    common = {n: t for n, t in found.items() if n in wanted and wanted[n].shape == t.shape}
    rest = (set(wanted) | set(found)) - set(common)
    if not common or not all(alike and n.startswith(READER) for n in rest):
        raise InvalidInputError(f"{path}: checkpoint has another architecture")
    task.module.load_state_dict(common, strict=False)
    task.scalars.update({n: v for n, v in state.scalars.items() if n in task.scalars})
    return checkpoint.origin(state)


def from_weights(task: Matching, source: str, is_file: bool) -> Origin:
    """Load what fits of a file of tensors, or of an installed model.

    Raises
    ------
    MissingInputError, InvalidInputError, UnavailableError
        No such file or model; not the weights of a ResNet as wide and, at its end, as deep.
    """
    if is_file:
        tensors, origin = read_tensors(Path(source)), Origin(sha256=digest(Path(source)))
    else:
        model = store.find(source)
        tensors, origin = model.weights(), Origin(name=model.name, sha256=str(model.sha256))
    try:
        task.load_matching(tensors)
    except (ValueError, RuntimeError) as error:
        raise InvalidInputError(f"{source}: network has another shape than the recipe's ({error})") from error
    return origin


def from_model(task: Adaptable, name: str) -> Origin:
    """Load an installed network's weights; the adapter's norms leave them alone at first, or there are none.

    Of one that names other classes all but its last layer; of one that reads another codec with a first layer that
    reads this codec's latents.

    Raises
    ------
    UnavailableError
        It is not installed, not a classifier, or of another shape.
    """
    model, codec = store.find(name), task.codec
    if model.kind == "classifier" and model.fingerprint != codec.fingerprint:
        codec = codec_of(model.identity, codec.device)
    network, model = installed_network(name, codec)
    found = network.state_dict()
    if codec is not task.codec:
        planes = codec.planes(network.stem.in_channels, name)
        found |= translated(network.stem, (task.seen_beside(codec, planes, index) for index in range(FITTED)))
    wanted = task.module.state_dict()
    if model.card.labels != IMAGENET:
        wanted = {n: t for n, t in wanted.items() if not n.startswith("backbone.classifier.")}
    load_folded(task.module, wanted, with_norms(wanted, found), name)
    restore_norms(task.module, task.look, NORM_BATCHES)
    return {"name": model.name, "sha256": model.sha256}


def reader_from_model(task: Widening, name: str) -> Origin:
    """Load an installed classifier's weights into the reader of a joint run, whose codec has begun.

    Raises
    ------
    UnavailableError
        It is not installed, not a classifier, or of another shape.
    """
    model = store.find(name, "classifier")
    wanted = {n: t for n, t in task.module.state_dict().items() if n.startswith(READER)}
    found = {f"{READER}{n}": t.float() for n, t in model.weights().items()}
    load_folded(task.module, wanted, task.widened(with_norms(wanted, found)), name)
    restore_norms(task.module.get_submodule(READER.rstrip(".")), task.look, NORM_BATCHES)
    return {"name": model.name, "sha256": model.sha256}


def with_norms(wanted: Mapping[str, Tensor], folded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a network without norms by the names of one that has them."""
    return {n: t for n in wanted if (t := folded.get(n.replace(".convolution.", "."))) is not None}


def load_folded(module: nn.Module, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], name: str) -> None:
    """Load all wanted tensors but the norms'; raises UnavailableError where one is missing or has another shape."""
    taken = {n: found[n] for n, t in wanted.items() if n in found and found[n].shape == t.shape}
    if any(".norm." not in n for n in wanted.keys() - taken.keys()):
        raise UnavailableError(f"{name}: network has another shape than the recipe's")
    module.load_state_dict(taken, strict=False)


@torch.no_grad()
def translated(stem: nn.Conv2d, pairs: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """A network's first layer for other inputs: behind the affine map (least squares) from them to what it reads now.

    ``pairs``: what it is to read (B, C, h, w) and what it reads now (B, D, h, w) of the same images.
    """
    products, targets = torch.zeros(()), torch.zeros(())
    for ours, theirs in pairs:
        x, y = (latents.double().transpose(0, 1).flatten(1).cpu() for latents in (ours, theirs))
        x = torch.cat([x, torch.ones_like(x[:1])])
        products, targets = products + x @ x.T, targets + x @ y.T
    ridge = RIDGE * products.diagonal().mean() * torch.eye(len(products), dtype=products.dtype)
    fitted = torch.linalg.solve(products + ridge, targets).to(stem.weight)
    weight = torch.einsum("odij,cd->ocij", stem.weight, fitted[:-1])
    assert stem.bias is not None
    return {"stem.weight": weight, "stem.bias": stem.bias + stem.weight.sum((2, 3)) @ fitted[-1]}
