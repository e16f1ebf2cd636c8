"""How an image is packed, and how large it is unpacked.

The packing is told by the first bytes, never by the name: in OBS's spool every image is `N.file`.
"""

import bz2
import dataclasses
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from clouduploader.errors import ImageError, LocalIOError, MissingFileError
from clouduploader.platform import Image, Packing
from clouduploader.stop import Stop

HEAD_BYTES = 512  # all magics lie in it; a block of tar
CHUNK_BYTES = 1 << 20  # unpacked at a time: constant memory, and few calls
MAGICS = (
    (0, b"\xfd7zXZ\x00", Packing.XZ),  # xz file format 1.2.1, section 2.1.1.1
    (0, b"\x1f\x8b", Packing.GZIP),  # RFC 1952, section 2.3.1
    (0, b"BZh", Packing.BZIP2),
    (0, b"\x28\xb5\x2f\xfd", Packing.ZSTD),  # RFC 8878, section 3.1.1
    (257, b"ustar", Packing.TAR),  # POSIX.1-1988, kept by all tar formats since
)
XZ_MEMORY_BYTES = 1 << 28  # four times what `xz -9` needs to unpack, xz(1); a header can ask for 4 GiB
XZ_PADDING_BYTES = 4  # stream padding is zeros in multiples of this; xz file format 1.2.1, section 2.2


def describe(path: Path, filename: str) -> Image:
    """Look at an image file.

    Args:
        path: The file, or a link to it.
        filename: Its real base name.

    Raises:
        MissingFileError: There is no such file.
        LocalIOError: It can't be read.
        ImageError: It is empty, or no regular file.
    """
    try:
        if not path.is_file():
            if path.exists():
                raise ImageError(f"the image {path} is not a regular file")
            raise MissingFileError(f"there is no image {path}")
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        size_bytes = path.stat().st_size
    except OSError as exc:
        raise LocalIOError(f"the image {path} can't be read: {exc.strerror}") from exc
    if not size_bytes:
        raise ImageError(f"the image {filename} is empty")
    image = Image(path, filename, packing_of(head), size_bytes)
    return dataclasses.replace(image, is_tarball=_holds_tar(image))


def packing_of(head: bytes) -> Packing:
    """Tell the packing by the first 512 bytes of a file."""
    for offset, magic, packing in MAGICS:
        if head[offset : offset + len(magic)] == magic:
            return packing
    return Packing.RAW


def _holds_tar(image: Image) -> bool:
    """Whether the file is a tarball, packed or not; unpacks its head only."""
    if image.packing is Packing.ZSTD:
        return False
    try:
        with image.path.open("rb") as file:
            head = next(_unpacked(file, image, lambda _done: None, chunk_bytes=HEAD_BYTES), b"")
    except ImageError:
        return False
    return packing_of(head) is Packing.TAR


def measure(image: Image, *, on_bytes: Callable[[int], None], stop: Stop) -> int:
    """Unpack an image to its end, keeping nothing, so that damage shows before anything is sent.

    Blocks for as long as unpacking takes; one thread, constant memory.

    Args:
        image: Any packing but zstd, which the standard library of Python 3.11 cannot unpack. A raw image
            has nothing that could show damage, and is not read.
        on_bytes: Called now and then with how much of the file was read.
        stop: Honoured between two chunks.

    Returns:
        The size of what is inside: of the `.raw` file where it is a tarball.

    Raises:
        ImageError: Truncated, damaged, with garbage behind its end, or a tarball without exactly
            one `.raw` file.
        LocalIOError: It can't be read.
        StoppedError: `stop` was requested.
    """
    if image.packing is Packing.RAW:
        return image.size_bytes

    def progress(done_bytes: int) -> None:
        stop.raise_if_requested()
        on_bytes(done_bytes)

    try:
        with image.path.open("rb") as file:
            chunks = _unpacked(file, image, progress)
            if image.is_tarball:
                from clouduploader.image import tarball  # tarfile is slow to import, and seldom needed

                return tarball.raw_size(chunks, image.filename)
            return sum(map(len, chunks))
    except OSError as exc:
        raise LocalIOError(f"the image {image.path} can't be read: {exc.strerror or exc}") from exc


def _unpacked(
    file: BinaryIO, image: Image, progress: Callable[[int], None], *, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[bytes]:
    """The contents of a file, chunk by chunk; all streams in it, to the last byte."""
    match image.packing:
        case Packing.RAW | Packing.TAR:
            while chunk := file.read(chunk_bytes):
                progress(file.tell())
                yield chunk
        case Packing.XZ:
            yield from _streams(file, image, progress, _xz_decoder, chunk_bytes)
        case Packing.BZIP2:
            yield from _streams(file, image, progress, bz2.BZ2Decompressor, chunk_bytes)
        case Packing.GZIP:
            yield from _streams(file, image, progress, _GzipDecoder, chunk_bytes)
        case Packing.ZSTD:
            raise ImageError(f"{image.filename} is packed with zstd, which can't be unpacked here")


def _xz_decoder() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY_BYTES)


class _GzipDecoder:
    """zlib's gzip decoder with the interface of those of lzma and bz2."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(16 + zlib.MAX_WBITS)  # 16: a gzip header, zlib manual

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


_AnyDecoder = lzma.LZMADecompressor | bz2.BZ2Decompressor | _GzipDecoder


def _streams(
    file: BinaryIO,
    image: Image,
    progress: Callable[[int], None],
    make_decoder: Callable[[], _AnyDecoder],
    chunk_bytes: int,
) -> Iterator[bytes]:
    rest = b""
    while True:
        decoder = make_decoder()
        while not decoder.eof:
            data = rest or (file.read(CHUNK_BYTES) if decoder.needs_input else b"")
            rest = b""
            if not data and decoder.needs_input:
                raise ImageError(f"{image.filename} is cut off: the {image.packing} data end too early")
            progress(file.tell())
            try:
                yield decoder.decompress(data, max_length=chunk_bytes)
            except (lzma.LZMAError, zlib.error, OSError) as exc:
                where = file.tell()
                raise ImageError(
                    f"{image.filename} is damaged: bad {image.packing} data before byte {where} ({exc})"
                ) from exc
        rest = _next_stream(decoder.unused_data, file, image)
        if not rest:
            return


def _next_stream(rest: bytes, file: BinaryIO, image: Image) -> bytes:
    """Skip the padding that xz allows; return the beginning of a further stream, or nothing."""
    padding = 0
    while True:
        if image.packing is Packing.XZ:
            stripped = rest.lstrip(b"\0")
            padding += len(rest) - len(stripped)
            rest = stripped
        if rest:
            break
        rest = file.read(CHUNK_BYTES)
        if not rest:
            break
    where = file.tell() - len(rest)
    if padding % XZ_PADDING_BYTES:
        raise ImageError(f"{image.filename} has {padding} stray zero bytes before byte {where}")
    rest += file.read(16) if rest else b""  # so that a magic is whole
    if rest and packing_of(rest) is not image.packing:
        raise ImageError(f"{image.filename} has garbage behind the end of its data, at byte {where}")
    return rest
