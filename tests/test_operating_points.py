"""A codec of 64 operating points: bitstreams at each, byte budgets, PSNR, the Python API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dcu import bitstream, rate_control, store
from dcu.cards import Rates
from dcu.codec import Codec
from dcu.coding import VariableRate
from dcu.encoding import Encoding
from dcu.errors import InvalidInputError, UnavailableError, UsageError
from dcu.evaluate.codec import measured_rates
from dcu.image import ImageArray, psnr

from .conftest import random_variable_rate_codec, smooth_image, write_variable_rate_codec

RATES = tuple(0.04 * 1.06**q for q in range(64))
IMAGE = smooth_image(72, 88)


@pytest.fixture(scope="module")
def rates() -> Rates:
    codec = Codec(random_variable_rate_codec(), "codec-2")
    images = [smooth_image(120, 200, seed=seed) for seed in (10, 11)]
    rates = measured_rates(codec, "waves", images)
    sizes = [np.mean([8 * len(codec.compress(image, quality=q)) / 24000 for image in images]) for q in (0, 40)]
    assert np.allclose([rates.bpp[0], rates.bpp[40]], sizes, rtol=1e-3)
    assert (rates.dataset, rates.count) == ("waves", 2)
    return replace(rates, bpp=RATES)


@pytest.fixture
def model(own_models: Path, rates: Rates) -> store.Model:
    return write_variable_rate_codec(own_models / "codec-2", rates)


@pytest.fixture
def variable(model: store.Model) -> Codec:
    return Codec.load(model.directory)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 9), (72, 88)])
@pytest.mark.parametrize("q", [0, 8, 9, 63])
def test_symbols_come_back(variable: Codec, height: int, width: int, q: int) -> None:
    image = smooth_image(height, width)
    data = variable.compress(image, quality=q)
    assert variable.quality(data) == q
    assert torch.equal(variable.symbols([bitstream.read(data).full])[0], variable.analyze(image, q))
    assert variable.decode(data).shape == image.shape


def test_latent_is_symbols_times_the_step(variable: Codec) -> None:
    assert isinstance(variable.coding, VariableRate)
    for q in (5, 40):
        latent = variable.latent(variable.compress(IMAGE, quality=q))
        step = variable.coding.ungain[q][:, None, None]
        assert torch.equal(latent[0], variable.analyze(IMAGE, q) * step)


def test_channel_that_is_off_is_zero(variable: Codec) -> None:
    assert not variable.analyze(IMAGE, 8)[2].any()
    assert variable.analyze(IMAGE, 9)[2].any()


def test_error_falls_and_bytes_rise_with_quality(variable: Codec) -> None:
    streams = [variable.compress(IMAGE, quality=q) for q in (0, 20, 40, 63)]
    sizes = list(map(len, streams))
    assert sizes == sorted(sizes)
    latents = [variable.latent(data) for data in streams]
    errors = [(latent - latents[-1]).square().mean() for latent in latents[:-1]]
    assert errors == sorted(errors, reverse=True)


def test_streams_of_several_qualities_are_decoded_together(variable: Codec) -> None:
    streams = [variable.read(variable.compress(IMAGE, quality=q)) for q in (3, 60, 3, 17)]
    for stream, latent in zip(streams, variable.latents(streams), strict=True):
        assert torch.equal(latent, variable.latent(stream))


def test_bytes_beside_the_payload(variable: Codec) -> None:
    data = variable.compress(smooth_image(224, 224), quality=30)
    (tile,) = bitstream.read(data).full.tiles
    assert len(data) - len(tile) <= 19


def test_gray_images_are_decoded_without_color(variable: Codec) -> None:
    image = np.repeat(smooth_image(40, 56)[..., :1], 3, 2)
    for data in (variable.compress(image, quality=5), variable.compress(image, target_psnr=15)):
        assert variable.read(data).header.gray
        decoded = variable.decode(data)
        assert (decoded == decoded[..., :1]).all()
    assert psnr(image, decoded) >= 15
    image[3, 4, 2] ^= 1
    assert not variable.read(variable.compress(image, quality=5)).header.gray


def test_thumbnail_layer_is_decoded_alone(variable: Codec, codec: Codec) -> None:
    image = smooth_image(1024, 1100)
    for one, quality in ((variable, 20), (codec, None)):
        data = one.compress(image, quality=quality)
        assert one.decode(data, thumbnail=True).shape == (256, 275, 3)
        assert one.decode(one.compress(IMAGE, quality=quality), thumbnail=True).shape == IMAGE.shape


def test_default_quality_is_of_the_named_rate(variable: Codec) -> None:
    q = variable.quality(variable.compress(IMAGE))
    assert q == variable.point_of_rate(0.0983)
    assert abs(np.log(RATES[q] / 0.0983)) <= np.log(1.06) / 2


def test_card_without_rates_has_no_default(model: store.Model) -> None:
    bare = store.amend(model, lambda card: replace(card, rates=None))
    with pytest.raises(ValueError, match="name the quality, 0 to 63"):
        Codec.from_model(bare).compress(IMAGE)


@pytest.mark.parametrize("most", [600, 1500, 3000])
def test_budget_is_kept_and_used(variable: Codec, most: int) -> None:
    for seed in range(4):
        image = smooth_image(224, 200, seed=seed)
        data = variable.compress(image, target_bytes=most)
        assert 0.9 * most <= len(data) <= most


def test_budget_below_every_quality(variable: Codec) -> None:
    smallest = len(variable.compress(IMAGE, quality=0))
    assert len(variable.compress(IMAGE, target_bytes=smallest)) <= smallest
    with pytest.raises(UsageError, match=f"the smallest file has {smallest}"):
        variable.compress(IMAGE, target_bytes=smallest - 30)
    fitted = variable.compress(IMAGE, target_bytes=smallest - 30, fit=True)
    assert len(fitted) <= smallest - 30
    height, width, _ = variable.decode(fitted).shape
    assert width < 88
    assert abs(height / width - 72 / 88) < 0.1
    with pytest.raises(UsageError, match="not even a smaller image"):
        variable.compress(IMAGE, target_bytes=5, fit=True)


def test_psnr_that_is_reached(variable: Codec) -> None:
    reached = [Encoding(variable, IMAGE).psnr(q) for q in range(64)]
    wanted = sorted(reached)[50]
    data = variable.compress(IMAGE, target_psnr=wanted)
    assert psnr(IMAGE, variable.decode(data)) >= wanted
    with pytest.raises(UsageError, match="no operating point reaches 99 dB"):
        variable.compress(IMAGE, target_psnr=99)


@pytest.mark.parametrize(
    "arguments",
    [
        {"quality": 64},
        {"quality": -1},
        {"quality": 3, "target_bytes": 300},
        {"target_bytes": 300, "target_psnr": 30.0},
        {"target_bytes": 0},
        {"fit": True},
    ],
)
def test_arguments_out_of_range(variable: Codec, arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"quality|target_bytes"):
        variable.compress(IMAGE, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [{"quality": 1.0}, {"quality": True}, {"target_bytes": "300"}])
def test_arguments_of_other_types(variable: Codec, arguments: dict[str, int]) -> None:
    with pytest.raises(TypeError):
        variable.compress(IMAGE, **arguments)  # type: ignore[arg-type]


def test_codec_of_one_rate_has_no_other_quality_and_no_metadata(codec: Codec) -> None:
    assert codec.compress(IMAGE, quality=0) == codec.compress(IMAGE)
    arguments: dict[str, Any]
    for arguments in ({"quality": 1}, {"metadata": b"x"}):
        with pytest.raises(ValueError, match=r"quality is 0 to 0|no metadata"):
            codec.compress(IMAGE, **arguments)


def test_streams_of_the_other_version_are_refused(variable: Codec) -> None:
    tiles = bitstream.read(variable.compress(IMAGE, quality=3)).full.tiles
    with pytest.raises(InvalidInputError, match="version 1"):
        variable.decode(bitstream.write(bitstream.Header(variable.identity, 3), 88, 72, [tiles]))


def test_every_step_and_integer_has_its_part_in_the_fingerprint(variable: Codec) -> None:
    for name in ("ungain", "context.00.1.bias", "context.coded"):
        tensors = random_variable_rate_codec()
        tensors[name] = tensors[name].clone()
        tensors[name].view(-1)[-1] = 1 - tensors[name].view(-1)[-1]
        assert Codec(tensors, "changed").fingerprint != variable.fingerprint
    tensors = random_variable_rate_codec()
    tensors["gain"] = tensors["gain"] * 2  # the encoder's own
    assert Codec(tensors, "changed").fingerprint == variable.fingerprint


def test_integers_that_fit_are_stored_in_16_bits(variable: Codec) -> None:
    tensors = random_variable_rate_codec()
    types = {name: tensor.dtype for name, tensor in tensors.items() if name.startswith("context.")}
    assert types["context.00.1.weight"] == torch.int16
    assert types["context.ends"] == torch.int32  # up to 65536
    wide = {name: tensor.int() if name in types else tensor for name, tensor in tensors.items()}
    assert Codec(wide, "wide").fingerprint == variable.fingerprint
    assert Codec(wide, "wide").compress(IMAGE, quality=9) == variable.compress(IMAGE, quality=9)


@pytest.mark.parametrize("name", ["gain", "ungain", "context.coded", "synthesis.bias.anchors"])
def test_weights_of_other_shapes(name: str) -> None:
    tensors = random_variable_rate_codec()
    tensors[name] = tensors[name][:2]
    with pytest.raises(UnavailableError):
        Codec(tensors, "broken")


class Curve:
    """Bitstreams whose lengths are known, with estimates that are wrong in scale and, a little, in shape."""

    image: ImageArray = IMAGE
    points = 64

    def __init__(self, tilt: float) -> None:
        self.sizes = [round(100 * 1.05**q) for q in range(64)]
        self.estimates = [8 * 1.7 * size ** (1 + tilt) for size in self.sizes]
        self.written: list[int] = []
        self.decoded: list[int] = []

    def write(self, q: int) -> bytes:
        self.written.append(q)
        return bytes(self.sizes[q])

    def psnr(self, q: int) -> float:
        self.decoded.append(q)
        return 20.0 + q / 4

    def estimated_bits(self) -> Sequence[float]:
        return self.estimates


@pytest.mark.parametrize("tilt", [0.0, 0.03, -0.03])
def test_a_budget_gets_the_highest_operating_point_that_fits_after_few_bitstreams(tilt: float) -> None:
    for most in range(100, 2300, 37):
        curve = Curve(tilt)
        data = rate_control.within_bytes(curve, most)
        assert len(data) == max(size for size in curve.sizes if size <= most)
        assert len(curve.written) <= 4


def test_fitting_tries_every_reduced_image() -> None:
    made: list[Curve] = []

    def encode(image: ImageArray) -> Curve:
        made.append(Curve(0.0))
        made[-1].sizes = [8 if len(made) == rate_control.TRIES else 9] * 64
        return made[-1]

    curve = Curve(0.0)
    curve.image = np.zeros((4096, 4096, 3), np.uint8)
    assert rate_control.fitting(curve, encode, 8) == bytes(8)
    assert len(made) == rate_control.TRIES


def test_six_images_are_enough_for_a_psnr() -> None:
    for q in range(64):
        curve = Curve(0.0)
        assert len(rate_control.reaching_psnr(curve, 20.0 + q / 4)) == curve.sizes[max(q, 1)]
        assert len(curve.decoded) <= 6


def test_nearest_rate() -> None:
    assert rate_control.nearest([0.1, 0.2, 0.4], 0.29) == 2
    assert rate_control.nearest([0.1, 0.2, 0.4], 0.27) == 1
    assert rate_control.nearest([0.1, 0.2, 0.4], 9.0) == 2
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="positive"):
            rate_control.nearest([0.1], wrong)
