from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcu import bitstream
from dcu.errors import InvalidInputError

sides = st.integers(1, 5000)


def tiles_of(width: int, height: int, draw: st.DataObject) -> list[bytes]:
    count = len(bitstream.tile_grid(width, height))
    return [draw.draw(st.binary(max_size=20)) for _ in range(count)]


@given(st.binary(min_size=4, max_size=4), st.integers(0, 127), sides, sides, st.data())
def test_what_is_written_is_read(codec: bytes, point: int, width: int, height: int, draw: st.DataObject) -> None:
    small = bitstream.thumbnail_size(width, height)
    layers = [tiles_of(*size, draw) for size in (small, (width, height)) if size]
    data = bitstream.write(codec, point, width, height, layers)
    stream = bitstream.read(data)
    assert (stream.codec, stream.operating_point) == (codec, point)
    assert (stream.full.width, stream.full.height) == (width, height)
    assert [list(layer.tiles) for layer in stream.layers] == layers
    assert stream.size == len(data) == stream.header_bytes + sum(stream.payload_bytes) + 4


@given(st.integers(0, 2**35 - 1))
def test_numbers_come_back(value: int) -> None:
    data = bitstream.write_number(value)
    assert bitstream.read_number(memoryview(data), 0) == (value, len(data))
    assert len(data) <= 5


@pytest.mark.parametrize("data", [b"\x80\x00", b"\xff\xff\xff\xff\xff\x01", b"\x80" * 6, b"\x80"])
def test_malformed_numbers_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        bitstream.read_number(memoryview(data), 0)


STREAM = bitstream.write(b"abcd", 0, 224, 200, [[b"payload of one tile"]])


def test_worked_example_of_docs_format() -> None:
    assert STREAM.hex(" ") == (
        "dc 75 01 00 61 62 63 64 df 01 c7 01 13 "
        "70 61 79 6c 6f 61 64 20 6f 66 20 6f 6e 65 20 74 69 6c 65 " + STREAM[-4:].hex(" ")
    )


@pytest.mark.parametrize("end", range(len(STREAM)))
def test_cut_at_every_byte(end: int) -> None:
    with pytest.raises(InvalidInputError):
        bitstream.read(STREAM[:end])


@pytest.mark.parametrize("bit", range(8 * len(STREAM)))
def test_every_flipped_bit_is_noticed(bit: int) -> None:
    damaged = bytearray(STREAM)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(InvalidInputError):
        bitstream.read(bytes(damaged))


def test_streams_follow_one_another() -> None:
    file = io.BytesIO(STREAM + STREAM + b"rest")
    for _ in range(2):
        stream = bitstream.read_from(file)
        assert stream is not None
        assert stream.size == len(STREAM)
    with pytest.raises(InvalidInputError):
        bitstream.read_from(file)
    assert bitstream.read_from(file) is None


@pytest.mark.parametrize(
    "data",
    [
        b"no stream",
        bytes(100),
        STREAM[:3] + b"\x01" + STREAM[4:],
        STREAM[:8] + b"\xff" * 30,
        bitstream.write(b"abcd", 0, 8, 8, [[bytes(4 * 64 + 1)]]),
    ],
)
def test_what_is_no_stream_is_refused_after_its_header(data: bytes) -> None:
    class Endless(io.RawIOBase):
        taken = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            part = (data + bytes(len(buffer)))[self.taken : self.taken + len(buffer)] if self.taken < len(data) else b""
            part = part or bytes(len(buffer))
            buffer[: len(part)] = part
            self.taken += len(part)
            return len(part)

    endless = Endless()
    with pytest.raises(InvalidInputError):
        bitstream.read_from(io.BufferedReader(endless))
    assert endless.taken <= 2 * io.DEFAULT_BUFFER_SIZE


@pytest.mark.parametrize(
    ("size", "small"),
    [((1023, 4000), None), ((1024, 1024), (256, 256)), ((4000, 3000), (341, 256)), ((1500, 6001), (256, 1024))],
)
def test_thumbnail_layer(size: tuple[int, int], small: tuple[int, int] | None) -> None:
    assert bitstream.thumbnail_size(*size) == small


def test_header_of_too_many_pixels_is_refused_before_anything_is_allocated() -> None:
    data = bitstream.write(b"abcd", 0, 100_000, 100_000, [[b""], [b""]])
    with pytest.raises(InvalidInputError, match="2\\^28"):
        bitstream.read(data)


def test_tile_longer_than_its_layer_is_refused() -> None:
    assert bitstream.unpack_tiles(memoryview(b"\x01a\x00"), 2) == (b"a", b"")
    for payload in (b"\x05a\x00", b"\x01a\x00x", b"\x01a"):
        with pytest.raises(InvalidInputError):
            bitstream.unpack_tiles(memoryview(payload), 2)
