"""An image's result depends on nothing beside it; forked processes work; waiting takes no processor."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from dcu import engines, paths, threads
from dcu.codec import Codec, codec_of
from dcu.errors import UnavailableError
from dcu.image import read_image
from dcu.tasks.classify import Classifier
from dcu.tasks.segment import Segmenter

from .conftest import smooth_image

PACKAGES = engines.ONNX_PACKAGES
SIZES = (1, 7, 32)


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The released models, and what ONNX Runtime has."""
    monkeypatch.delenv("DCU_MODELS")
    monkeypatch.setattr("dcu.engines.ONNX_PACKAGES", PACKAGES)
    return paths.shipped("samples")


def squares(samples: Path, side: int) -> list[np.ndarray]:
    """Parts of photographs, 32 of them."""
    images = [read_image(path.read_bytes()) for path in sorted(samples.glob("*.jpg"))]
    return [images[i % len(images)][i : i + side, i : i + side] for i in range(32)]


@pytest.mark.slow
@pytest.mark.parametrize("engine", engines.TITLES)
def test_batches_and_threads_change_no_byte(
    released: Path, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits and embeddings; on all threads, too, once they share an image."""
    if engine != "pytorch":
        for package in PACKAGES:
            pytest.importorskip(package)
        monkeypatch.setenv("DCU_CACHE", str(tmp_path))
    classifier = Classifier.load("classifier-0.0983", engine=engine)
    codec, before = classifier.codec, torch.get_num_threads()
    streams = [codec.read(codec.compress(image)) for image in squares(released, 224)]
    seen: list[tuple[bytes, ...]] = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for size in SIZES:
                parts = [classifier.look(streams[at : at + size]) for at in range(0, 32, size)]
                for ask in (lambda views: classifier.through(classifier.logits, views), classifier.embed):
                    seen.append(tuple(row.numpy().tobytes() for part in parts for row in ask(part)))
    finally:
        torch.set_num_threads(before)
    assert len(set(seen)) == 2, "logits, and embeddings"


@pytest.mark.slow
def test_threads_change_no_segmentation_map(released: Path) -> None:
    codec, before = codec_of(Codec.load("codec-0.0983").identity), torch.get_num_threads()
    streams = [codec.compress(image) for image in squares(released, 200)[:5]]
    segmenter, latents = Segmenter.load("segmenter-0.0983"), [codec.latent(stream) for stream in streams]
    answers = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            answers.append(torch.cat([segmenter.run(latent) for latent in latents]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*answers)


@pytest.mark.usefixtures("two_threads")
def test_all_threads_share_an_image_only_where_that_changes_nothing() -> None:
    """From the third of a shape on; what gives other bytes is never used."""
    alike = threads.Exact(lambda x: x + 1, lambda x: x - (-1))
    used = []
    alike.all = lambda x: used.append(x) or x + 1  # type: ignore[func-returns-value]
    different = threads.Exact(lambda x: x + 1, lambda x: x + 1.0001)
    for index in range(5):
        x = torch.full((1, 2, 3, 3), float(index))
        assert torch.equal(alike(x), x + 1)
        assert torch.equal(different(x), x + 1)
        assert len(used) == index
    assert torch.equal(different(torch.ones(5, 2, 3, 3)), torch.full((5, 2, 3, 3), 2.0))


@pytest.mark.usefixtures("two_threads")
def test_threads_that_cannot_be_started_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the system allows no more: those that were started end."""
    start = threading.Thread.start

    def limited(self: threading.Thread) -> None:
        if self.name.startswith("dcu") and self.name.endswith("_2"):
            raise RuntimeError("can't start new thread")
        start(self)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", limited)
        with pytest.raises(UnavailableError, match="cannot start 5 threads: lower --jobs"):
            threads.workers(5)
    assert list(threads.workers(5).map(abs, [-1])) == [1]


@pytest.mark.usefixtures("two_threads")
def test_workers_use_one_thread_each_and_leave_the_program_its_own() -> None:
    assert threads.each(lambda _: torch.get_num_threads(), [0, 0, 0]) == [1, 1, 1]
    assert torch.get_num_threads() == 2
    assert threads.each(lambda x: 2 * x, range(9)) == list(range(0, 18, 2))
    with pytest.raises(ZeroDivisionError):
        threads.each(lambda x: 1 / x, [1, 0])


class Labels(Dataset[tuple[str, bytes]]):
    """What each worker says of streams."""

    def __init__(self, streams: list[bytes], classifier: Classifier) -> None:
        self.streams, self.classifier = streams, classifier

    def __len__(self) -> int:
        return len(self.streams)

    def __getitem__(self, index: int) -> tuple[str, bytes]:
        torch.set_num_threads(2)  # as a program may that does not know better
        data = self.streams[index]
        return self.classifier(data).predictions[0].label, self.classifier.codec.latent(data).numpy().tobytes()


@pytest.mark.slow
@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("engine", ["pytorch", "onnx"])
def test_workers_of_a_data_loader(
    codec: Codec, start: str, engine: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of a process that computed on all threads before."""
    if engine == "onnx":
        for package in PACKAGES:
            pytest.importorskip(package)
        monkeypatch.setattr("dcu.engines.ONNX_PACKAGES", PACKAGES)
        monkeypatch.setenv("DCU_CACHE", str(tmp_path))
    data = Labels([codec.compress(smooth_image(224, 224, seed)) for seed in range(4)], Classifier.load(engine=engine))
    if start == "fork":
        expected = [data[index] for index in range(4)]
    loader = DataLoader(
        data, batch_size=None, num_workers=2, multiprocessing_context=start, timeout=0 if start == "spawn" else 60
    )
    answers = list(loader)
    if start == "spawn":
        expected = [data[index] for index in range(4)]
    assert [(label, bytes(latent)) for label, latent in answers] == expected


@pytest.mark.parametrize("first", ["dcu", "torch"])
def test_waiting_takes_no_processor(first: str) -> None:
    """Whichever was imported first, OpenMP's threads do not spin for milliseconds after each operation."""
    code = f"""
import {first}
import time
import torch
from dcu import threads
torch.set_num_threads(2)
threads.inference(lambda: None)()
x, waited = torch.ones(2**20), 0.0
for _ in range(20):
    x.add_(1)
    before = time.process_time()
    time.sleep(0.02)
    waited += time.process_time() - before
print(waited)
"""
    without = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=without)
    assert float(done.stdout) < 20 * 0.001
