from __future__ import annotations

import io
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcu import bitstream
from dcu.errors import InvalidInputError

sides = st.integers(1, 5000)


def tiles_of(width: int, height: int, draw: st.DataObject) -> list[bytes]:
    count = len(bitstream.tile_grid(width, height))
    return [draw.draw(st.binary(max_size=20)) for _ in range(count)]


def headers() -> st.SearchStrategy[bitstream.Header]:
    codec = st.binary(min_size=4, max_size=4)
    two = st.tuples(codec, st.integers(0, 63), st.just(2), st.booleans(), st.binary(max_size=300))
    return st.builds(bitstream.Header, codec, st.integers(0, 127)) | two.map(lambda fields: bitstream.Header(*fields))


@given(headers(), sides, sides, st.data())
def test_what_is_written_is_read(header: bitstream.Header, width: int, height: int, draw: st.DataObject) -> None:
    small = bitstream.thumbnail_size(width, height)
    layers = [tiles_of(*size, draw) for size in (small, (width, height)) if size]
    data = bitstream.write(header, width, height, layers)
    stream = bitstream.read(data)
    assert stream.header == header
    assert (stream.full.width, stream.full.height) == (width, height)
    assert [list(layer.tiles) for layer in stream.layers] == layers
    assert stream.size == len(data) == stream.header_bytes + len(header.metadata) + sum(stream.payload_bytes) + 4


@given(st.integers(0, 2**35 - 1))
def test_numbers_come_back(value: int) -> None:
    data = bitstream.write_number(value)
    assert bitstream.read_number(memoryview(data), 0) == (value, len(data))
    assert len(data) <= 5


@pytest.mark.parametrize("data", [b"\x80\x00", b"\xff\xff\xff\xff\xff\x01", b"\x80" * 6, b"\x80"])
def test_malformed_numbers_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        bitstream.read_number(memoryview(data), 0)


STREAM = bitstream.write(bitstream.Header(b"abcd"), 224, 200, [[b"payload of one tile"]])


def test_worked_example_of_docs_format() -> None:
    assert STREAM.hex(" ") == (
        "dc 75 01 00 61 62 63 64 df 01 c7 01 13 "
        "70 61 79 6c 6f 61 64 20 6f 66 20 6f 6e 65 20 74 69 6c 65 " + STREAM[-4:].hex(" ")
    )


STREAM_2 = bitstream.write(
    bitstream.Header(b"abcd", 41, version=2, machines=True, gray=True, metadata=b"when"),
    224,
    200,
    [[b"payload of one tile"]],
)


def test_worked_example_of_version_2() -> None:
    assert STREAM_2.hex(" ") == (
        "dc 75 02 a9 03 61 62 63 64 df 01 c7 01 04 13 77 68 65 6e "
        "70 61 79 6c 6f 61 64 20 6f 66 20 6f 6e 65 20 74 69 6c 65 " + STREAM_2[-4:].hex(" ")
    )


def test_version_2_has_at_most_19_bytes_beside_the_payload() -> None:
    payload = bytes(2000)
    assert len(bitstream.write(bitstream.Header(b"abcd", 63, version=2), 224, 224, [[payload]])) == 2019


@pytest.mark.parametrize("bit", range(10, 16))
def test_reserved_flags_are_refused(bit: int) -> None:
    body = bytearray(STREAM_2[:-4])
    body[3 + bit // 8] |= 1 << bit % 8
    with pytest.raises(InvalidInputError, match="flags"):
        bitstream.read(bytes(body) + zlib.crc32(body).to_bytes(4, "little"))


@pytest.mark.parametrize(
    "header",
    [
        bitstream.Header(b"abcd", 128),
        bitstream.Header(b"abcd", machines=True),
        bitstream.Header(b"abcd", gray=True),
        bitstream.Header(b"abcd", metadata=b"x"),
        bitstream.Header(b"abcd", 64, version=2),
        bitstream.Header(b"abcd", version=2, metadata=bytes(2**20 + 1)),
    ],
)
def test_headers_that_a_version_cannot_hold(header: bitstream.Header) -> None:
    with pytest.raises(ValueError, match=r"version 1|operating points"):
        bitstream.write(header, 8, 8, [[b""]])


@pytest.mark.parametrize("stream", [STREAM, STREAM_2], ids=["1", "2"])
def test_cut_at_every_byte(stream: bytes) -> None:
    for end in range(len(stream)):
        with pytest.raises(InvalidInputError):
            bitstream.read(stream[:end])


@pytest.mark.parametrize("stream", [STREAM, STREAM_2], ids=["1", "2"])
def test_every_flipped_bit_is_noticed(stream: bytes) -> None:
    for bit in range(8 * len(stream)):
        damaged = bytearray(stream)
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
        bitstream.write(bitstream.Header(b"abcd"), 8, 8, [[bytes(4 * 64 + 1)]]),
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
    data = bitstream.write(bitstream.Header(b"abcd"), 100_000, 100_000, [[b""], [b""]])
    with pytest.raises(InvalidInputError, match="2\\^28"):
        bitstream.read(data)


def test_tile_longer_than_its_layer_is_refused() -> None:
    assert bitstream.unpack_tiles(memoryview(b"\x01a\x00"), 2) == (b"a", b"")
    for payload in (b"\x05a\x00", b"\x01a\x00x", b"\x01a"):
        with pytest.raises(InvalidInputError):
            bitstream.unpack_tiles(memoryview(payload), 2)
