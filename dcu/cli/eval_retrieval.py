"""``dcu eval retrieval``: embeddings on labeled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

from dcu import store
from dcu.cli import console, options
from dcu.cli.eval_codec import Data
from dcu.errors import UnavailableError

Networks = Annotated[
    list[str] | None,
    options.model(
        "--network",
        "classifier",
        help="Classifier by name or path; repeatable.",
        show_default="one per codec",
    ),
]


def eval_retrieval(
    data: Data,
    network: Networks = None,
    baselines: Annotated[str, options.formats("--baselines")] = "avif",
    json: options.Json = False,
    quiet: options.Quiet = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
) -> None:
    """Measure the precision@10 of search by embeddings.

    DATA contains one directory per class. Every image is a query among the
    others. Compares with embeddings of the RGB network, from the original and
    from other formats at equal file size.

    Example: dcu eval retrieval imagenet20-val.tar --network classifier-2
    """
    from dcu.data import dataset_name, items

    models, found = networks(network), items(data)
    chosen_device = options.start(threads, device)
    from dcu.bench.accuracy import quoted
    from dcu.bench.points import default_point
    from dcu.codec import codec_of
    from dcu.evaluate.baselines import check_available
    from dcu.evaluate.retrieval import retrieval
    from dcu.tasks.classify import Classifier

    formats = options.format_names(baselines)
    check_available(formats)
    classifiers = [
        Classifier(model, codec_of(model.identity, chosen_device, "float32"), chosen_device, "pytorch")
        for model in models
    ]
    compared = {}
    for classifier in classifiers:
        sides = quoted(default_point(store.find_codec(classifier.codec.identity))).sides
        if missing := [name for name in formats if name not in sides]:
            raise UnavailableError(f"{classifier.name}: its card has no accuracy of the RGB network on {missing[0]}")
        compared[classifier.name] = [(name, sides[name]) for name in formats]
    rows = retrieval(classifiers, found, console.progress(found, "measuring", quiet), compared)
    console.print_rows([{"dataset": dataset_name(data)} | asdict(row) for row in rows], json)


def networks(names: Sequence[str] | None) -> list[store.Model]:
    """The named classifiers, or the default one of each codec that has one; raises UnavailableError."""
    if names:
        return [store.find(name, "classifier") for name in names]
    return store.default_networks("classifier") or [store.find(None, "classifier")]
