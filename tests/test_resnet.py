"""ResNets and cResNets: their cost, the names of their weights, and their training from labels."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dcu import engines, store
from dcu.codec import Codec
from dcu.data import items
from dcu.errors import UsageError
from dcu.evaluate.cost import macs
from dcu.evaluate.segmenter import RgbCounterpart
from dcu.nets.resnet import BLOCKS, DilatedResNet, ResNet, StrideIn, shape_by_name, shape_of
from dcu.nets.rgb import to_input
from dcu.tasks.segment import Segmenter
from dcu.train.inputs import network_input
from dcu.train.kept import KeptArrays
from dcu.train.resnet import ResNetData, ResNetRecipe, ResNetTask

from .conftest import Dcu, one_line, smooth_image, write_classes

MACS = {
    "resnet50": (3.858, 4.089),
    "resnet71": (5.387, 5.618),
    "cresnet39": (2.960, 3.114),
    "cresnet51": (3.833, 3.987),
    "cresnet72": (5.362, 5.516),
}
"""Billions at 224x224, of latents with 32 channels: with the stride in the 1x1 and in the 3x3 convolution."""
TINY = ("resnet.width=0.0625", "schedule.steps=2", "data.batch=2", "data.held_out=2", "data.crop=32", "data.kept=2")
SETTINGS = [part for setting in TINY for part in ("--set", setting)]


def network(name: str, width: float = 0.0625, classes: int = 3, stride_in: StrideIn = "3x3") -> ResNet:
    return ResNet(shape_by_name(name, 32, width, stride_in), classes)


@pytest.mark.parametrize(("name", "stride"), list(itertools.product(MACS, (0, 1))))
def test_macs_are_the_papers(name: str, stride: int) -> None:
    strides: tuple[StrideIn, StrideIn] = ("1x1", "3x3")
    with torch.device("meta"):
        built = network(name, 1.0, 1000, strides[stride])
        seen = torch.empty(1, 32, 28, 28) if name.startswith("c") else torch.empty(1, 3, 224, 224)
        assert macs(built, seen) / 1e9 == pytest.approx(MACS[name][stride], rel=0.01)


def names_of_torchvision(blocks: tuple[int, ...]) -> Iterator[str]:
    """The state of torchvision's ResNet of bottlenecks."""

    def norm(name: str) -> Iterator[str]:
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            yield f"{name}.{part}"

    yield from ("conv1.weight", *norm("bn1"), "fc.weight", "fc.bias")
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            place = f"layer{stage}.{block}"
            for layer in (1, 2, 3):
                yield from (f"{place}.conv{layer}.weight", *norm(f"{place}.bn{layer}"))
            if block == 0:
                yield from (f"{place}.downsample.0.weight", *norm(f"{place}.downsample.1"))


def test_names_are_torchvisions() -> None:
    state = network("resnet50", 1.0, 1000).state_dict()
    assert set(state) == set(names_of_torchvision(BLOCKS["resnet50"]))
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), "fc.weight": (1000, 2048)}
    shapes |= {"layer3.0.downsample.0.weight": (1024, 512, 1, 1), "layer4.2.conv2.weight": (512, 512, 3, 3)}
    assert all(state[name].shape == shape for name, shape in shapes.items())


@pytest.mark.parametrize("name", BLOCKS)
def test_shape_is_that_of_the_weights(name: str) -> None:
    built = network(name, 0.125)
    assert shape_of(built.state_dict(), "3x3") == built.shape


def test_images_come_in_torchvisions_scale() -> None:
    """What reaches the first convolution is (x - mean) / spread of x in 0..1, whatever scale the RGB network has."""
    seen: list[Tensor] = []
    built = network("resnet50")
    built.conv1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    image = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    built.eval()(to_input(image))
    mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = ((image / 255 - mean) / spread).permute(0, 3, 1, 2)
    assert torch.allclose(seen[0], expected, atol=1e-5)


def test_dilated_networks_answer_at_a_quarter() -> None:
    for name, seen in (("cresnet51-d", torch.zeros(1, 32, 6, 8)), ("resnet50-d", torch.zeros(1, 3, 48, 64))):
        built = DilatedResNet(shape_by_name(name, 32, 0.0625, "3x3"), 4).eval()
        assert built(seen).shape == (1, 4, 12, 16)
        last = built.get_submodule("layer4").children()
        assert [block.get_submodule("conv2").dilation for block in last] == [(2, 2), (4, 4), (4, 4)]


@pytest.mark.parametrize("stride_in", ["3x3", "1x1"])
def test_runs_as_the_engine_has_it(stride_in: StrideIn) -> None:
    """Wide 1x1 convolutions become matrix products, those with a stride do not."""
    torch.manual_seed(0)
    built = ResNet(shape_by_name("cresnet39", 32, 0.5, stride_in), 3).eval()
    seen = torch.randn(1, 32, 8, 8)
    assert torch.allclose(engines.pytorch(built)(seen), built(seen), atol=1e-4)


@pytest.mark.parametrize("width", [0.3, 0.07, 1.1])
def test_any_width_is_that_of_the_weights(width: float) -> None:
    with torch.device("meta"):
        built = network("resnet50", width)
        assert shape_of(built.state_dict(), "3x3") == built.shape


def test_too_large_and_too_deep_networks_are_refused(flowers: Path) -> None:
    with pytest.raises(ValueError, match="million"):
        ResNetRecipe("x", "resnet71", "decoded", width=2.0)
    state = dict(network("cresnet39").state_dict())
    state |= {f"layer3.{index}.conv1.weight": torch.zeros(8, 8, 1, 1) for index in range(100)}
    with pytest.raises(ValueError, match="blocks"):
        shape_of(state, "3x3")


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "flowers", [f"kind {index}" for index in range(3)])


@pytest.mark.parametrize("call", [("cresnet39", "latent"), ("resnet50", "decoded"), ("resnet50", "original")])
def test_trained_from_labels(dcu: Dcu, flowers: Path, tmp_path: Path, call: tuple[str, str]) -> None:
    name, seen = call
    runs, out = tmp_path / "runs", tmp_path / "models" / "mine"
    command = ["train", "classifier", "paper-small", "--network", name, "--input", seen, "--data", flowers]
    command += ["--runs", runs, "--out", out, *SETTINGS]
    assert dcu(*command, "--minutes", "0").code == 0
    done = dcu(*command, "--resume")
    assert done.code == 0, done.err
    run = f"{name}-{'original' if seen == 'original' else '0.0983'}"
    (line,) = (json.loads(text) for text in (runs / run / "log.jsonl").read_text().splitlines()[1:])
    assert line["step"] == 2
    assert 0 <= line["held_top1"] <= 1
    card = store.read_model(out).card
    assert (card.kind, card.input) == ("classifier" if seen == "latent" else "resnet", seen)
    assert [label.label for label in card.classes] == ["kind 0", "kind 1", "kind 2"]
    assert card.macs > 0
    names = {n for n in names_of_torchvision(BLOCKS[name]) if "num_batches" not in n}
    if seen == "latent":
        names = {n for n in names if n.startswith(("layer", "fc."))}
    assert set(store.read_model(out).weights()) == names
    if seen == "latent":
        image = flowers / "kind 1" / "1.png"
        assert dcu("compress", image, "-o", tmp_path / "1.bin").code == 0
        done = dcu("classify", tmp_path / "1.bin", "--network", out)
        assert done.code == 0, done.err
        assert "kind" in done.out
        assert dcu("models", "verify", out).code == 0
        done = dcu("embed", tmp_path / "1.bin", "--network", out, "--json")
        assert done.code == 69
        assert dcu("train", "mean", out, out, "--out", tmp_path / "mean").code == 2


def new_task(codec: Codec, data: Path, directory: Path, **changes: object) -> ResNetTask:
    recipe = ResNetRecipe("x", "resnet50" if changes.get("input") else "cresnet39", **{"input": "latent", **changes})  # type: ignore[arg-type]
    return ResNetTask(recipe, ResNetData(crop=32, batch=4, kept=2, held_out=2), codec, items(data), 1, directory)


def test_all_inputs_see_the_same_views(codec: Codec, flowers: Path, tmp_path: Path) -> None:
    tasks = [new_task(codec, flowers, tmp_path, width=0.0625, input=seen) for seen in ("decoded", "original")]
    tasks.append(new_task(codec, flowers, tmp_path, width=0.0625))
    batches = [task.batch(3) for task in tasks]
    assert len({(tuple(batch.places), tuple(batch.numbers)) for batch in batches}) == 1
    decoded, original, latent = (task.seen(batch) for task, batch in zip(tasks, batches, strict=True))
    views = original.permute(0, 2, 3, 1) * 128 + 127
    assert torch.equal(latent, network_input(codec, "latent", views.round().byte(), torch.zeros(4)))
    assert torch.equal(decoded, network_input(codec, "decoded", views.round().byte(), torch.zeros(4)))


def test_kept_views_are_made_once_and_are_those_that_are_not_kept(codec: Codec, flowers: Path, tmp_path: Path) -> None:
    task = new_task(codec, flowers, tmp_path, width=0.0625)
    first = task.seen(task.batch(5))
    again = new_task(codec, flowers, tmp_path, width=0.0625)  # as after a resume
    again.codec = None  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        again.seen(again.batch(6))  # another view is not there yet
    again.codec = codec
    assert torch.equal(again.seen(again.batch(5)), first)
    other = new_task(codec, flowers, tmp_path, width=0.125)
    assert other.kept is not None
    assert other.kept.there.sum() == task.kept.there.sum()  # type: ignore[union-attr]


def test_kept_arrays(tmp_path: Path) -> None:
    made: list[list[int]] = []

    def make(numbers: list[int]) -> Tensor:
        made.append(numbers)
        return torch.tensor(numbers, dtype=torch.int16)[:, None] * 10

    kept = KeptArrays(tmp_path / "file", 5, (1,), torch.int16)
    assert kept([3, 1, 3], make).tolist() == [[30], [10], [30]]
    assert KeptArrays(tmp_path / "file", 5, (1,), torch.int16)([1, 2], make).tolist() == [[10], [20]]
    assert made == [[1, 3], [2]]


@pytest.mark.usefixtures("random_rgb")
def test_soft_labels_are_mixed_with_the_label(codec: Codec, flowers: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="soft_labels"):
        new_task(codec, flowers, tmp_path, width=0.0625, soft_labels=0.5)
    for place, wnid in enumerate(("n01440764", "n01443537", "n01484850")):
        (flowers / f"kind {place}").rename(flowers / wnid)
    task = new_task(codec, flowers, tmp_path, width=0.0625, soft_labels=0.25)
    batch = task.batch(0)
    target = task.target(batch)
    assert torch.allclose(target.sum(1), torch.ones(4), atol=1e-3)
    labels = torch.nn.functional.one_hot(task.classes[batch.places], 3).bool()
    assert (target[labels] >= 0.75 - 1e-3).all()
    assert torch.allclose((target - 0.75 * labels).sum(1), torch.full((4,), 0.25), atol=1e-3)


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_begins_with_torchvisions_weights(dcu: Dcu, flowers: Path, tmp_path: Path, ending: str) -> None:
    """Into the ResNet all but the last layer, into the cResNet the stages behind the first block of the second."""
    torch.manual_seed(3)
    theirs = {name: tensor.float() + 0.5 for name, tensor in network("resnet50", classes=9).state_dict().items()}
    path = tmp_path / f"theirs{ending}"
    torch.save(theirs, path) if ending == ".pth" else save_file(theirs, path)
    for name, seen in (("resnet50", "decoded"), ("cresnet51", "latent")):
        command = ["train", "classifier", "paper-small", "--network", name, "--data", flowers, "--init", path]
        command += ["--runs", tmp_path / name, "--out", tmp_path / "m" / name, *SETTINGS]
        done = dcu(*command, "--set=schedule.learning_rate=1e-12", "--set=schedule.weight_decay=0", "--minutes", "0")
        assert done.code == 0, done.err
        began = load_file(tmp_path / name / f"{name}-0.0983" / "checkpoint.safetensors")
        own = {n.removeprefix("weights."): t for n, t in began.items() if n.startswith("weights.")}
        common = {n for n in theirs if ".conv" in n and n in own and theirs[n].shape == own[n].shape}
        taken = {n for n in common if torch.allclose(own[n], theirs[n])}
        expected = {n for n in theirs if ".conv" in n}
        if seen == "latent":
            expected = {n for n in expected if not n.startswith("layer1.") and n != "layer2.0.conv1.weight"}
        assert taken == expected


class Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit(3)",)


def test_weights_that_do_not_fit(dcu: Dcu, flowers: Path, tmp_path: Path) -> None:
    """Other shapes, no tensors, what would run code, nothing at all."""
    torch.save(network("resnet50", 0.125).state_dict(), tmp_path / "wide.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "harm.pth").write_bytes(pickle.dumps(Harm()))
    (tmp_path / "text.safetensors").write_bytes(b"not weights")
    codes = {"wide.pth": 65, "list.pth": 65, "harm.pth": 65, "text.safetensors": 65, "missing.pth": 66, "unknown": 69}
    for name, code in codes.items():
        source = name if name == "unknown" else tmp_path / name
        command = ["train", "classifier", "paper-small", "--network", "resnet50", "--data", flowers, "--init", source]
        done = dcu(*command, "--runs", tmp_path / "runs", "--out", tmp_path / "m", *SETTINGS)
        assert done.code == code, (name, done.err)
        assert one_line(done.err), done.err


@pytest.mark.parametrize(
    "options",
    [
        ("--network", "resnet18"),
        ("--network", "resnet50", "--input", "latent"),
        ("--network", "cresnet51", "--input", "original"),
        ("classifier-0.0983", "--network", "cresnet51"),
        ("--input", "latent"),
        (),
    ],
)
def test_options_that_contradict(dcu: Dcu, flowers: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    done = dcu("train", "classifier", *options, "--data", flowers, "--out", tmp_path / "m", "--runs", tmp_path / "runs")
    assert done.code == 2
    assert one_line(done.err)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(("name", "seen"), [("cresnet39", "latent"), ("resnet50", "decoded")])
def test_segments_from_a_classifiers_weights(
    dcu: Dcu, flowers: Path, street: Path, tmp_path: Path, codec: Codec, name: str, seen: str
) -> None:
    command = ["train", "classifier", "paper-small", "--network", name, "--data", flowers, "--runs", tmp_path / "runs"]
    assert dcu(*command, "--out", tmp_path / "m" / "start", *SETTINGS).code == 0
    settings = [f"segmenter.network={name}-d", f"segmenter.input={seen}", "segmenter.width=0.0625"]
    settings += ["schedule.steps=2", "data.batch=2", "data.held_out=1", "data.crop=64"]
    call = ["train", "segmenter", "segmenter-0.0983", "--data", street, "--init", tmp_path / "m" / "start"]
    call += ["--runs", tmp_path / "runs", "--out", tmp_path / "m" / "new", *(f"--set={each}" for each in settings)]
    done = dcu(*call)
    assert done.code == 0, done.err
    model = store.read_model(tmp_path / "m" / "new")
    data, image = codec.compress(smooth_image(40, 56)), smooth_image(40, 56)
    if seen == "latent":
        assert Segmenter(model, codec)(data).classes.shape == (40, 56)
    else:
        assert RgbCounterpart(model, codec).answer(image, data).shape == (40, 56)
