"""The contents of a packed file, piece by piece, checked to the file's last byte."""

import bz2
import contextlib
import functools
import hashlib
import lzma
import os
import sys
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import BinaryIO, Protocol, cast

from clouduploader.errors import ImageError, LocalIOError, UnavailableError
from clouduploader.image import magic
from clouduploader.platform import Image, Packing
from clouduploader.stop import Stop

PIECE_BYTES = 1 << 17  # less, and threads that send get in the way each time; more is no faster
READ_BYTES = 1 << 17  # more is no faster, and damage is told to within this
XZ_MEMORY_BYTES = 1 << 28  # four times what `xz -9` needs to unpack, xz(1); a header can ask for 4 GiB
XZ_PADDING_BYTES = 4  # stream padding is zeros in multiples of this; xz file format 1.2.1, section 2.2
MAX_STREAMS = 1000  # ours: of whatever kind; of more, each must give a sector on the average
SECTOR_BYTES = 512
ZSTD_WINDOW_LOG = 27  # 128 MiB, what zstd itself unpacks without --long; zstd(1)


class PackedFile:
    """A file that is read once, from its first byte to its last.

    Attributes:
        filename: Names it in errors.
        offset: How much was read.
        size_bytes: How large it was when it was described.
    """

    def __init__(self, file: BinaryIO, image: Image, on_bytes: Callable[[int], None] | None, stop: Stop) -> None:
        self.filename = image.filename
        self.size_bytes = image.size_bytes
        self.offset = 0
        self._file = file
        self._path = image.path
        self._on_bytes = on_bytes
        self._stop = stop
        self._digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """The next bytes; fewer only at the end.

        Raises:
            LocalIOError: They can't be read.
            StoppedError: The stop was requested.
        """
        self._stop.raise_if_requested()
        with _translated(self._path):
            data = self._file.read(size)
        self.offset += len(data)
        self._digest.update(data)
        if self._on_bytes:
            self._on_bytes(self.offset)
        return data

    def peek(self, offset: int, size: int) -> bytes:
        """Bytes from anywhere, fewer only at the end; `read` goes on as if nothing had been.

        Raises:
            LocalIOError: They can't be read.
            StoppedError: The stop was requested.
        """
        self._stop.raise_if_requested()
        with _translated(self._path):
            return os.pread(self.fd, size, offset)

    @property
    def fd(self) -> int:
        """Its descriptor, open as long as the file is."""
        return self._file.fileno()

    def sha256(self) -> str:
        """The digest, in hex, of what was read."""
        return self._digest.hexdigest()


@contextlib.contextmanager
def opened(image: Image, *, stop: Stop, on_bytes: Callable[[int], None] | None = None) -> Iterator[PackedFile]:
    """Open an image's file.

    Args:
        image: See Image.
        stop: Honoured at each read.
        on_bytes: Called now and then with how much of the file was read.

    Raises:
        LocalIOError: It can't be opened.
    """
    with contextlib.ExitStack() as stack:
        with _translated(image.path):
            file = stack.enter_context(image.path.open("rb"))
        yield PackedFile(file, image, on_bytes, stop)


@contextlib.contextmanager
def _translated(path: object) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise LocalIOError(f"the image {path} can't be read: {exc.strerror or exc}") from exc


class Decoder(Protocol):
    """One stream's decoder, as bz2, lzma and Python 3.14's zstd have it."""

    @property
    def eof(self) -> bool:
        """Whether the end of the stream has been reached."""

    @property
    def unused_data(self) -> bytes:
        """What lies behind the end."""

    @property
    def needs_input(self) -> bool:
        """Whether there is nothing more to come from what it was given."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Take some packed bytes, give some unpacked ones."""


class _GzipDecoder:
    """zlib's gzip decoder with the interface of the others."""

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


def xz_decoder() -> lzma.LZMADecompressor:
    """A decoder of one xz stream that can't be made to take all memory."""
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY_BYTES)


def _codec(packing: Packing) -> tuple[Callable[[], Decoder], type[Exception]]:
    """What makes a decoder, and the error by which that tells of damage.

    Raises:
        UnavailableError: It can't be unpacked here.
    """
    match packing:
        case Packing.XZ:
            return xz_decoder, lzma.LZMAError
        case Packing.BZIP2:
            return bz2.BZ2Decompressor, OSError
        case Packing.GZIP:
            try:
                from isal import igzip_lib
            except ImportError:
                return _GzipDecoder, zlib.error
            damage = cast("type[Exception]", igzip_lib.error)
            return functools.partial(igzip_lib.IgzipDecompressor, flag=igzip_lib.DECOMP_GZIP), damage
        case _:
            return _zstd_codec()


def _zstd_codec() -> tuple[Callable[[], Decoder], type[Exception]]:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError as exc:
        raise UnavailableError(
            "an image packed with zstd can't be unpacked: this Python has no zstd",
            hint="pip install 'clouduploader[fast]', or pack it with xz.",
        ) from exc
    options = {int(zstd.DecompressionParameter.window_log_max): ZSTD_WINDOW_LOG}
    return functools.partial(zstd.ZstdDecompressor, options=options), zstd.ZstdError


def unpacked(file: PackedFile, packing: Packing) -> Generator[bytes, None, None]:
    """The contents of a file in pieces, none empty; all streams in it, to the last byte, by one core.

    Raises:
        UnavailableError: It can't be unpacked here; at once. All others come from the iterator.
        ImageError: It is cut off, damaged, or has garbage behind its end.
        LocalIOError: It can't be read.
        StoppedError: The stop was requested.
    """
    if packing in (Packing.RAW, Packing.TAR):
        return _as_it_is(file)
    return _decoded(file, packing, *_codec(packing))


def _as_it_is(file: PackedFile) -> Generator[bytes, None, None]:
    while data := file.read(READ_BYTES):
        yield data


def _decoded(
    file: PackedFile, packing: Packing, make_decoder: Callable[[], Decoder], damage: type[Exception]
) -> Generator[bytes, None, None]:
    rest = b""
    count = done_bytes = 0
    while True:
        count += 1
        if count > MAX_STREAMS and done_bytes < count * SECTOR_BYTES:  # each costs as much time as a whole block
            raise ImageError(
                f"{file.filename} is in too many pieces: {count} up to byte {file.offset} hold nearly nothing"
            )
        decoder = make_decoder()
        while not decoder.eof:
            data = b""
            if decoder.needs_input:
                data = rest or file.read(READ_BYTES)
                rest = b""
                if not data:
                    raise cut_off(file, packing)
            try:
                piece = decoder.decompress(data, PIECE_BYTES)
            except damage as exc:
                raise ImageError(
                    f"{file.filename} is damaged: bad {packing} data before byte {file.offset} ({exc})"
                ) from exc
            if piece:
                done_bytes += len(piece)
                yield piece
        rest = _next_stream(decoder.unused_data, file, packing)
        if not rest:
            return


def _next_stream(rest: bytes, file: PackedFile, packing: Packing) -> bytes:
    """Skip the padding that xz allows; return the beginning of a further stream, or nothing."""
    padding = 0
    while True:
        if packing is Packing.XZ:
            stripped = rest.lstrip(b"\0")
            padding += len(rest) - len(stripped)
            rest = stripped
        if rest:
            break
        rest = file.read(READ_BYTES)
        if not rest:
            break
    where = file.offset - len(rest)
    if padding % XZ_PADDING_BYTES:
        raise ImageError(f"{file.filename} has {padding} stray zero bytes before byte {where}")
    rest += file.read(16) if rest else b""  # so that a magic is whole
    if rest and magic.packing_of(rest) is not packing:
        raise garbage(file, where)
    return rest


def cut_off(file: PackedFile, packing: Packing) -> ImageError:
    """The packing ends where more should come."""
    return ImageError(f"{file.filename} is cut off: the {packing} data end too early, at byte {file.size_bytes}")


def garbage(file: PackedFile, where: int) -> ImageError:
    """What lies behind the end of a packing is no further stream of it."""
    return ImageError(f"{file.filename} has garbage behind the end of its data, at byte {where}")
