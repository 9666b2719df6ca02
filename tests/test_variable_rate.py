"""Codec for every rate: operating points, logistic context, training."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from dcu.data import items
from dcu.errors import InvalidInputError
from dcu.nets.context import UnboundedGroup
from dcu.nets.logistic_context import LogisticContext, logistic_bits
from dcu.nets.operating_point import AnchorLinear, AnchorVectors
from dcu.nets.transforms import (
    LEAK,
    PADDING,
    Analysis,
    ConditionalAnalysis,
    ConditionalSynthesis,
    ResidualBlock,
    Synthesis,
)
from dcu.nets.variable_rate import VariableRateCodec
from dcu.train.checkpoint import OptimizerState, load_optimizer_state, optimizer_state
from dcu.train.crops import drawing, varied, with_flat_rectangle
from dcu.train.loop import Run
from dcu.train.optimizers import ParameterGroup, make_optimizer
from dcu.train.recipe import Schedule
from dcu.train.variable_rate import VariableRateData, VariableRateRecipe, VariableRateTask

from .conftest import png, smooth_image

GROUPS = (UnboundedGroup(1, 3), UnboundedGroup(2, 2, reach=1))
RECIPE = VariableRateRecipe(
    "codec-2", GROUPS, width=8, analysis_depth=1, synthesis_depth=1, context_hidden=8, anchors=3, grow_steps=2
)
DATA = VariableRateData(crop=32, batch=3, held_out=2, held_out_from=("images",), validate_on=2)
SCHEDULE = Schedule(steps=4, learning_rate=1e-3, warmup=2, optimizer="soap", validate_every=2, checkpoint_every=2)


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    path = tmp_path / "images.tar"
    with tarfile.open(path, "w") as archive:
        for index in range(6):
            data = png(smooth_image(40 + index, 48, seed=index))
            info = tarfile.TarInfo(f"{index}.png")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def new_run(tar: Path, directory: Path, schedule: Schedule = SCHEDULE, recipe: VariableRateRecipe = RECIPE) -> Run[Any]:
    return Run(VariableRateTask(recipe, DATA, items(tar), schedule.seed), schedule, directory)


def quiet() -> Console:
    return Console(file=io.StringIO())


def random_context(hidden: int = 8) -> LogisticContext:
    torch.manual_seed(0)
    context = LogisticContext(GROUPS, hidden, anchors=3)
    with torch.no_grad():
        for parameter in context.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return context.eval()


def test_operating_points_between_anchors_are_interpolated() -> None:
    vectors = AnchorVectors(4, 2)
    with torch.no_grad():
        vectors.anchors.copy_(torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 3.0], [0.0, 0.0]]))
    found = vectors(torch.tensor([0.0, 21.0, 10.5, 63.0]))
    assert found.tolist() == [[0.0, 1.0], [2.0, 1.0], [1.0, 1.0], [0.0, 0.0]]


def alike(module: torch.nn.Module, anchors: int) -> dict[str, Tensor]:
    """The weights of a transform that depends on the operating point, of those of one that does not."""
    return {
        name: tensor.flatten(1).expand(anchors, *tensor.shape[:2])
        if name.endswith("weight")
        else tensor.expand(anchors, -1)
        for name, tensor in module.state_dict().items()
        if name.startswith(("linear.", "head."))
    } | {name: tensor for name, tensor in module.state_dict().items() if not name.startswith(("linear.", "head."))}


@pytest.mark.parametrize("kind", [ConditionalAnalysis, ConditionalSynthesis])
def test_transforms_that_are_alike_at_all_points_are_the_unconditional_ones(kind: type[Any]) -> None:
    torch.manual_seed(0)
    plain: Any = (Analysis if kind is ConditionalAnalysis else Synthesis)(3, 8, 2)
    for layer in plain.modules():
        if isinstance(layer, ResidualBlock):
            layer.leak = LEAK
        elif isinstance(layer, torch.nn.Conv2d) and layer.padding != (0, 0):
            layer.padding_mode = PADDING
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    conditional = kind(3, 8, 2, 3)
    missing, unexpected = conditional.load_state_dict(alike(plain, 3), strict=False)
    assert not unexpected
    assert set(missing) <= {"bias.anchors", "gains.anchors"}
    q = torch.tensor([3.0, 60.0])
    if kind is ConditionalAnalysis:
        x = torch.randn(2, 3, 32, 32)
        assert torch.allclose(conditional.latent(x, q), plain(x), atol=1e-5)
    else:
        y = torch.randn(2, 3, 4, 4)
        assert torch.allclose(conditional(y, q), plain(y), atol=1e-5)


def test_areas_of_one_color_are_the_same_up_to_the_edge() -> None:
    torch.manual_seed(0)
    codec = VariableRateCodec(GROUPS, 8, 1, 1, 8, 3)
    for parameter in codec.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x = torch.tensor([1.0, -1.0, 0.3])[None, :, None, None].expand(1, 3, 40, 40)
    q = torch.tensor([30.0])
    for found in (codec.scaled(x, q), codec.reconstruct(codec.scaled(x, q), q).unfold(2, 8, 8).unfold(3, 8, 8)):
        assert torch.allclose(found, found[:, :, :1, :1].expand_as(found), atol=1e-5)


def test_linear_layers_between_anchors_are_interpolated() -> None:
    layer = AnchorLinear(2, 3, 4)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 3, 5, 6)
    found = layer(x, torch.tensor([63.0, 21.0]))
    weight, bias = layer.weight[0].lerp(layer.weight[1], 1 / 3), layer.bias[0].lerp(layer.bias[1], 1 / 3)
    assert torch.allclose(found[0], F.conv2d(x[0], layer.weight[1][:, :, None, None], layer.bias[1]), atol=1e-5)
    assert torch.allclose(found[1], F.conv2d(x[1], weight[:, :, None, None], bias), atol=1e-5)


def test_bits_of_all_integers_are_those_of_a_distribution() -> None:
    values = torch.arange(-400, 401).float()
    for mean, log2_scale in ((0.0, 0.0), (3.4, -4.5), (-20.3, 5.0)):
        bits = logistic_bits(values, torch.tensor(mean), torch.tensor(log2_scale))
        assert float(torch.exp2(-bits).sum()) == pytest.approx(1, abs=1e-3)


def test_bits_far_from_the_mean_stay_finite_and_have_a_gradient() -> None:
    value = torch.tensor([1000.0, -1000.0], requires_grad=True)
    bits = logistic_bits(value, torch.tensor(0.0), torch.tensor(-4.5))
    bits.sum().backward()
    assert torch.isfinite(bits).all()
    assert value.grad is not None
    assert bool((value.grad.abs() > 1).all())


def changed_positions(context: LogisticContext, symbols: Tensor, channel: int, row: int, column: int) -> Tensor:
    """(C, h, w) bool: the symbols whose distribution depends on one symbol."""
    q = torch.tensor([20.0])
    other = symbols.clone()
    other[0, channel, row, column] += 3
    before, after = context(symbols, q), context(other, q)
    changed: Tensor = (before[0] != after[0])[0] | (before[1] != after[1])[0]
    return changed


def test_no_symbol_depends_on_one_decoded_with_it_or_later() -> None:
    context = random_context()
    passes = [p for group in context.groups for p in group.passes]  # type: ignore[union-attr]
    order = torch.zeros(3, 9, 10, dtype=torch.int)
    for index, p in enumerate(passes):
        order[p.first : p.last][:, p.positions(9, 10)] = index
    torch.manual_seed(1)
    symbols = torch.randint(-9, 10, (1, 3, 9, 10)).float()
    reached = 0
    for channel, row, column in ((0, 4, 4), (0, 4, 5), (1, 4, 4), (2, 4, 4), (2, 5, 4)):
        changed = changed_positions(context, symbols, channel, row, column)
        assert bool((order[changed] > order[channel, row, column]).all())
        reached += int(changed.sum())
    assert reached > 50


def test_reach_of_a_group_bounds_what_it_reads() -> None:
    context = random_context()
    symbols = torch.randint(-9, 10, (1, 3, 9, 10)).float()
    changed = changed_positions(context, symbols, 0, 4, 4)
    assert changed[0].nonzero().sub(4).abs().amax(0).tolist() == [2, 2]
    assert changed[1:].any(0).nonzero().sub(4).abs().amax(0).tolist() == [1, 1]


def test_context_depends_on_the_operating_point() -> None:
    context = random_context()
    symbols = torch.randint(-9, 10, (1, 3, 8, 8)).float()
    low, high = (context(symbols, torch.tensor([q])) for q in (0.0, 63.0))
    assert not torch.equal(low[0], high[0])


def test_resumed_run_is_the_same_run(tar: Path, tmp_path: Path) -> None:
    """With SOAP, whose state is nested."""
    straight = new_run(tar, tmp_path / "a")
    assert straight.train(None, quiet())
    for _ in range(2):
        run = new_run(tar, tmp_path / "b")
        if run.checkpoint.path.exists():
            run.resume()
        assert not run.train(0, quiet())  # one step
    resumed = new_run(tar, tmp_path / "b")
    resumed.resume()
    assert resumed.step == 2
    assert resumed.train(None, quiet())
    a, b = (load_file(tmp_path / name / "checkpoint.safetensors") for name in "ab")
    assert set(a) == set(b)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_checkpoint_of_another_optimizer(tar: Path, tmp_path: Path) -> None:
    new_run(tar, tmp_path, replace(SCHEDULE, optimizer="adam")).train(0, quiet())
    with pytest.raises(InvalidInputError, match="another recipe"):
        new_run(tar, tmp_path).resume()


@pytest.mark.parametrize("name", ["adam", "soap"])
def test_state_of_any_optimizer_is_kept(name: Literal["adam", "soap"]) -> None:
    def trained(steps: int) -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = torch.nn.Linear(3, 4)
        optimizer = make_optimizer([ParameterGroup(list(module.parameters()))], replace(SCHEDULE, optimizer=name))
        return module, optimizer

    def step(module: torch.nn.Linear, optimizer: torch.optim.Optimizer, seed: int) -> None:
        optimizer.zero_grad()
        module(torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
        optimizer.step()

    module, optimizer = trained(0)
    for seed in range(3):
        step(module, optimizer, seed)
    state = optimizer_state(optimizer)
    copy, other = trained(0)
    copy.load_state_dict(module.state_dict())
    load_optimizer_state(other, OptimizerState({n: t.clone() for n, t in state.tensors.items()}, state.packed))
    step(module, optimizer, 9)
    step(copy, other, 9)
    assert torch.equal(module.weight, copy.weight)


def test_training_lowers_the_held_out_loss(tar: Path, tmp_path: Path) -> None:
    run = new_run(tar, tmp_path, replace(SCHEDULE, steps=60, learning_rate=1e-3, validate_every=60))
    before = run.validate()
    run.train(None, quiet())
    after = run.validate()
    assert after["held_out_loss"] < before["held_out_loss"]
    assert after["bpp_0"] < after["bpp_63"]
    assert after["psnr_0"] < after["psnr_63"]


def test_lambda_falls_and_weights_rise_with_the_operating_point() -> None:
    q = torch.tensor([0.0, 31.5, 63.0])
    assert RECIPE.lambda_of(q).tolist() == pytest.approx([1.0, 0.0015**0.5, 0.0015])
    assert RECIPE.weight(q).tolist() == pytest.approx([0.0015**0.2, 1.0, 0.0015**-0.2], rel=1e-5)
    similar = replace(RECIPE, similarity=0.2, similarity_at_0=0.25)
    assert similar.similarity_of(q).tolist() == pytest.approx([0.05, 0.1, 0.2])


@torch.no_grad()
def test_exponent_is_that_of_each_crops_distortion(tar: Path) -> None:
    free = replace(RECIPE, largest_lambda=2e-12, smallest_lambda=1e-12, balance=0.0)
    tasks = [VariableRateTask(replace(free, exponent=exponent), DATA, items(tar), 0) for exponent in (1.0, 0.5)]
    batch = tasks[0].batch(0)
    crops = [batch._replace(crops=batch.crops[i : i + 1], points=batch.points[i : i + 1]) for i in range(3)]
    errors, roots = ([float(task.loss(crop)[0]) for crop in crops] for task in tasks)
    assert roots == pytest.approx(np.sqrt(errors), rel=1e-4)
    assert float(tasks[1].loss(batch)[0]) == pytest.approx(np.mean(np.sqrt(errors)), rel=1e-4)
    error, root = (task.validate()["held_out_loss"] for task in tasks)
    assert 0.8 * error**0.5 < root <= error**0.5  # the mean of roots


def test_batches_cover_the_range_of_rates(tar: Path) -> None:
    q = VariableRateTask(RECIPE, DATA, items(tar), 0).batch(0).points.sort().values
    assert bool((q // 21 == torch.tensor([0.0, 1.0, 2.0])).all())


def test_colors_gray_and_drawings_are_among_the_crops() -> None:
    rng = np.random.default_rng(0)
    crop = smooth_image(32, 32, seed=3)
    seen = [varied(crop, rng) for _ in range(200)]
    assert all(each.shape == (32, 32, 3) and each.dtype == np.uint8 for each in seen)
    other = [each for each in seen if not np.array_equal(each, crop)]
    assert 5 < len(other) < 40
    assert any((each[..., 0] == each[..., 1]).all() for each in other)
    flat = [with_flat_rectangle(crop, np.random.default_rng(seed)) for seed in range(40)]
    colors = [np.unique(each[(each != crop).any(2)], axis=0) for each in flat]
    assert all(len(each) <= 1 for each in colors)
    assert 5 < sum(set(each.flat) <= {0, 255} for each in colors) < 35
    assert any(len(np.unique(each.reshape(-1, 3), axis=0)) == 1 for each in flat)
    assert all(
        len(np.unique(drawing(64, 64, np.random.default_rng(seed)).reshape(-1, 3), axis=0)) > 1 for seed in range(4)
    )


def test_symbols_that_are_always_zero_cost_nothing_in_training() -> None:
    codec = VariableRateCodec(GROUPS, 8, 1, 1, 8, 3).train()
    codec.begin_at_steps(1e6, 1e6)
    codec.context.begin_at_deviations(torch.zeros(3, 3))
    _, bits = codec(torch.rand(1, 3, 32, 32), torch.tensor([0.0]))
    assert float(bits.detach()) < 1


def test_gradient_of_bits_leads_to_likelier_symbols() -> None:
    codec = VariableRateCodec(GROUPS, 8, 1, 1, 8, 3)
    codec.begin_at_steps(1.0, 1.0)
    torch.nn.init.normal_(codec.analysis.linear.weight, std=0.5)
    _, bits = codec(torch.rand(1, 3, 32, 32), torch.tensor([0.0]))
    bits.sum().backward()
    gain = codec.log_gain.anchors.grad
    assert gain is not None
    assert float(gain.sum()) > 0  # smaller symbols need fewer bits


def test_sharper_assignment_has_gradients_nearer_to_where_symbols_change(tar: Path) -> None:
    codec = VariableRateTask(replace(RECIPE, sigma=30.0), DATA, items(tar), 0).module
    gradients = []
    for sigma in (codec.sigma, 1.5):
        codec.sigma = sigma
        y = torch.tensor([0.1, 0.5]).view(1, 1, 1, 2).repeat(1, 3, 1, 1).requires_grad_()
        symbols, _ = codec.coded(torch.zeros(1, 3, 8, 16), y, torch.tensor([0.0]))
        (gradient,) = torch.autograd.grad(symbols.sum(), y)
        gradients.append(gradient[0, 0, 0].tolist())
    (far_sharp, near_sharp), (far, near) = gradients
    assert 0 <= far_sharp < 1e-3 < 0.1 < far
    assert near < near_sharp


def test_training_and_files_have_the_same_symbols_and_bits() -> None:
    codec = VariableRateCodec(GROUPS, 8, 1, 1, 8, 3)
    codec.begin_at_steps(0.5, 0.1)
    x, q = torch.rand(2, 3, 32, 32), torch.tensor([9.0, 50.0])
    image, bits = codec(x, q)
    symbols = codec.scaled(x, q).round()
    assert torch.allclose(image, codec.reconstruct(symbols, q), atol=1e-5)
    assert torch.allclose(bits, logistic_bits(symbols, *codec.context(symbols, q)).sum((1, 2, 3)), rtol=1e-5)
