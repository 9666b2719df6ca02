"""Bitstreams as images of Pillow: what ``dcu.register_pillow()`` registers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from PIL import Image, ImageFile

from dcu.bitstream import MAGIC, MOST_HEAD, Stream, read_from, read_head
from dcu.errors import DcuError, InvalidInputError
from dcu.image.limits import TooLargeError
from dcu.walk import BITSTREAMS

FORMAT = "DCU"
MIME = "image/x-dcu"


def register_pillow() -> None:
    """Make ``PIL.Image.open`` read bitstreams, and ``Image.save`` write them (``.dcu``, ``.bin``).

    Size and mode (RGB) come from the header; pixels are decoded when they are first needed, by the installed codec that
    made the bitstream. ``Image.draft`` and ``Image.thumbnail`` decode the thumbnail layer alone where it is large
    enough. ``Image.save`` takes ``codec``, the name of an installed one, and ``quality`` as :meth:`dcu.Codec.compress`.

    Errors are those of Pillow: ``UnidentifiedImageError`` where the header is invalid, ``OSError`` where the bitstream
    is damaged or its codec is not installed, ``DecompressionBombError`` above Pillow's limit of pixels or that of dcu.
    Nothing is registered before this call; further calls change nothing.
    """
    Image.register_open(FORMAT, BitstreamImageFile, accept)
    Image.register_save(FORMAT, save)
    Image.register_extensions(FORMAT, sorted(BITSTREAMS, reverse=True))
    Image.register_mime(FORMAT, MIME)


def accept(prefix: bytes) -> bool:
    """Whether a file that begins so is a bitstream."""
    return prefix.startswith(MAGIC)


class BitstreamImageFile(ImageFile.ImageFile):
    """A bitstream that is decoded when its pixels are needed, the thumbnail layer alone after :meth:`draft`."""

    format = FORMAT
    format_description = "dcu bitstream"

    def _open(self) -> None:
        assert self.fp is not None
        try:
            head = read_head(memoryview(self.fp.read(MOST_HEAD)))
        except TooLargeError as error:
            raise Image.DecompressionBombError(str(error)) from error
        except InvalidInputError as error:
            raise SyntaxError(str(error)) from error
        *self.smaller, self._size = head.sizes
        self._mode = "RGB"
        self.tile = [ImageFile._Tile("dcu", (0, 0, *self._size), 0, None)]

    def draft(self, mode: str | None, size: tuple[int, int] | None) -> tuple[str, tuple[int, int, float, float]] | None:
        """Choose the thumbnail layer where it is there and has at least ``size``; mode and box if it is chosen."""
        if not (self.tile and self.smaller and size) or any(
            there < wanted for there, wanted in zip(self.smaller[0], size, strict=True)
        ):
            return None
        self._size = self.smaller.pop()
        return self.mode, (0, 0, *self._size)

    def verify(self) -> None:
        """Check structure and checksum; raises OSError."""
        with pillow_errors():
            self.stream()
        super().verify()

    def load(self) -> Any:
        """Decode the pixels, once; raises OSError."""
        if self.tile:
            from dcu.codec import codec_of

            with pillow_errors():
                stream = self.stream()
                thumbnail = stream.thumbnail is not None and not self.smaller
                image = codec_of(stream.codec).decode(stream, thumbnail=thumbnail)
            self.im, self.tile = Image.fromarray(image).im, []
            super().verify()  # closes the file
        return super().load()

    def stream(self) -> Stream:
        """The parsed bitstream; raises InvalidInputError."""
        assert self.fp is not None
        self.fp.seek(0)
        stream = read_from(self.fp)  # type: ignore[arg-type]
        if stream is None:
            raise InvalidInputError("empty stream")
        return stream


def save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    """Write a Pillow image as a bitstream; raises OSError, and ValueError for options that the codec does not have."""
    from dcu import store
    from dcu.codec import codec_of

    options: dict[str, Any] = image.encoderinfo
    with pillow_errors():
        codec = codec_of(store.find(options.get("codec"), "codec").identity)
        file.write(codec.compress(image, quality=options.get("quality")))


@contextmanager
def pillow_errors() -> Iterator[None]:
    """Raise OSError for errors of dcu, as programs that use Pillow expect."""
    try:
        yield
    except DcuError as error:
        raise OSError(str(error)) from error
