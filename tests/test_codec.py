from __future__ import annotations

import numpy as np
import pytest
import torch

from dcu import bitstream, install, regions
from dcu.codec import Codec
from dcu.errors import InvalidInputError, UnavailableError
from dcu.nets.quantizer import Quantizer

from .conftest import fixed, random_codec, smooth_image, write_codec


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 9), (40, 52), (64, 8)])
def test_size_comes_back_exactly(codec: Codec, height: int, width: int) -> None:
    image = smooth_image(height, width)
    data = codec.compress(image)
    assert codec.decode(data).shape == image.shape
    assert data == codec.compress(image)


def test_latent_is_the_centers_of_the_symbols_that_analysis_chose(codec: Codec) -> None:
    image = smooth_image(40, 56)
    symbols = codec.analyze(image)
    assert symbols.shape == (3, 5, 7)
    assert symbols.float().std() > 0
    latent = codec.latent(codec.compress(image))
    assert torch.equal(latent[0, 1], fixed(codec).quantizer.centers[1][symbols[1].long()])


def test_symbols_are_the_nearest_centers_of_a_channel_in_any_order() -> None:
    quantizer = Quantizer([2, 5, 32])
    with torch.no_grad():  # as training may leave them; what is behind a channel's last level is no center
        quantizer.centers.copy_(torch.randn(3, 32, generator=torch.Generator().manual_seed(3)) * 4)
    y = torch.randn(2, 3, 9, 11, generator=torch.Generator().manual_seed(4)) * 6
    nearest = quantizer.squared_distance(y).argmin(2)
    assert nearest[:, 0].max() == 1
    assert nearest[:, 1].max() == 4
    assert torch.equal(quantizer.symbols(y), nearest.to(torch.uint8))


def test_thumbnail_layer_is_what_networks_read(codec: Codec) -> None:
    data = codec.compress(smooth_image(1024, 1100))
    stream = bitstream.read(data)
    assert stream.thumbnail is not None
    assert (stream.thumbnail.width, stream.thumbnail.height) == (275, 256)
    assert codec.latent(data).shape == (1, 3, 32, 35)
    assert codec.decode(data).shape == (1024, 1100, 3)


def test_tiles_of_a_wide_image(codec: Codec) -> None:
    image = smooth_image(16, 2100)
    data = codec.compress(image)
    assert len(bitstream.read(data).full.tiles) == 2
    assert torch.equal(codec.symbols([bitstream.read(data).full])[0], codec.analyze(image))


def test_streams_of_any_size_are_decoded_together(codec: Codec) -> None:
    images = [smooth_image(height, width) for height, width in ((40, 56), (64, 64), (40, 56), (9, 300))]
    streams = [codec.read(codec.compress(image)) for image in images]
    for stream, latent in zip(streams, codec.latents(streams), strict=True):
        assert torch.equal(latent, codec.latent(stream))


def test_pieces_give_what_one_piece_gives(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Halo = receptive field: symbols as from one piece, pixels within 1."""
    image = smooth_image(200, 264)
    whole = codec.analyze(image)
    latent = fixed(codec).quantizer.latent(whole[None])
    decoded = codec.synthesize(latent)
    monkeypatch.setattr(regions, "ONE_PIECE", 0)
    monkeypatch.setattr(regions, "PIECE", 10)
    assert (codec.analyze(image) != whole).float().mean() < 1e-3
    assert np.abs(codec.synthesize(latent).astype(int) - decoded).max() <= 1


def test_halo_smaller_than_the_receptive_field_would_show(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    image = smooth_image(200, 264)
    whole = codec.analyze(image)
    latent = fixed(codec).quantizer.latent(whole[None])
    decoded = codec.synthesize(latent)
    monkeypatch.setattr(regions, "ONE_PIECE", 0)
    monkeypatch.setattr(regions, "PIECE", 10)
    monkeypatch.setattr(codec, "analysis_halo", 1)
    assert (codec.analyze(image) != whole).float().mean() > 1e-3
    monkeypatch.setattr(codec, "synthesis_halo", 0)
    assert np.abs(codec.synthesize(latent).astype(int) - decoded).max() > 1


def test_stream_of_another_codec_is_refused(codec: Codec) -> None:
    other = Codec(random_codec(7), "other")
    assert other.fingerprint != codec.fingerprint
    stream = other.compress(smooth_image(8, 8))
    with pytest.raises(UnavailableError, match=f"no codec with the fingerprint {other.identity.hex()}"):
        codec.decode(stream)
    write_codec(install.place_for("other", None), seed=7)
    with pytest.raises(UnavailableError, match=r"made by other, not by codec-0\.0983"):
        codec.decode(stream)


def test_operating_point_that_the_codec_lacks_is_refused(codec: Codec) -> None:
    data = codec.compress(smooth_image(8, 8))
    payload = bitstream.read(data).full.tiles
    with pytest.raises(InvalidInputError):
        codec.decode(bitstream.write(bitstream.Header(codec.identity, 3), 8, 8, [payload]))


def test_bytes_after_the_stream_are_refused(codec: Codec) -> None:
    with pytest.raises(InvalidInputError):
        codec.decode(codec.compress(smooth_image(8, 8)) + b"x")


def test_weights_of_something_else(codec: Codec) -> None:
    tensors = random_codec(0)
    del tensors["synthesis.stem.weight"]
    with pytest.raises(UnavailableError):
        Codec(tensors, "broken")
