"""Unpack a file piece by piece, and check it to its last byte."""

import bz2
import functools
import itertools
import lzma
import sys
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import Protocol, cast

from clouduploader.errors import ImageError, UnavailableError
from clouduploader.image import magic, packed_file, zstd
from clouduploader.image.packed_file import PackedFile
from clouduploader.model.disk import Compression

PIECE_BYTES = 1 << 17  # less, and threads that send get in the way each time; more is no faster
XZ_PADDING_BYTES = 4  # stream padding is zeros in multiples of this; xz file format 1.2.1, section 2.2
HEADER_BYTES = zstd.MAX_FRAME_HEADER_BYTES  # the other headers that are looked at are shorter
MAX_STREAMS = 1000  # ours: of whatever kind; of more, each must give a sector on the average
SECTOR_BYTES = 512
ZSTD_WINDOW_LOG = 27  # 128 MiB, what zstd itself unpacks without --long; zstd(1)
MAX_GZIP_HEADER_BYTES = 1 << 18  # ours: the extra field has 64 KiB at most, name and comment are a line each
_GZIP_RESERVED = 0xE0  # RFC 1952, 2.3.1: bits of the flags; 2.3.1.2 demands an error
_GZIP_HEAD_BYTES = 10  # up to the fields that may be there, by these flags
_GZIP_CHECKSUM, _GZIP_EXTRA, _GZIP_TEXTS = 0x02, 0x04, (0x08, 0x10)
DECODER_ERRORS = (EOFError, ValueError, RuntimeError)
"""What the modules bz2, lzma, zlib, isal and zstd raise besides their own errors."""
_IS_PADDED = (
    Compression.GZIP,
    Compression.BZIP2,
)  # with zeros up to the end: gzip manual, "Tapes"; bzip2(1) passes anything


class Decoder(Protocol):
    """A decoder of one stream, as bz2, lzma and Python 3.14's zstd have it."""

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
        """Take some packed bytes, and return some unpacked ones."""


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
    """Return a decoder of one xz stream, with a limit of memory."""
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, packed_file.XZ_MEMORY_BYTES)


def _codec(compression: Compression) -> tuple[Callable[[], Decoder], type[Exception]]:
    """Return the constructor of a decoder, and the error that it raises for damage.

    Raises:
        UnavailableError: It can't be unpacked here.
    """
    match compression:
        case Compression.XZ:
            return xz_decoder, lzma.LZMAError
        case Compression.BZIP2:
            return bz2.BZ2Decompressor, OSError
        case Compression.GZIP:
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


def split_head(pieces: Iterator[bytes], size: int) -> tuple[bytes, Iterator[bytes]]:
    """Return the first pieces of a stream, `size` bytes at least if there are, and the whole stream."""
    found = b""
    for piece in pieces:
        found += piece
        if len(found) >= size:
            break
    return found, itertools.chain([found] if found else [], pieces)


def unpack(file: PackedFile, compression: Compression) -> Generator[bytes, None, None]:
    """Return an iterator over the contents of a file: pieces, none empty, of all streams in it; uses one core.

    Raises:
        UnavailableError: It can't be unpacked here; at once. All others come from the iterator.
        TransientError: There is not enough memory.
        ImageError: It is cut off, damaged, or has garbage behind its end.
        LocalIOError: It can't be read.
        StoppedError: The stop was requested.
    """
    if compression in (Compression.RAW, Compression.TAR):
        return _as_it_is(file)
    return _decoded(file, compression, *_codec(compression))


def _as_it_is(file: PackedFile) -> Generator[bytes, None, None]:
    while data := file.read(packed_file.READ_BYTES):
        yield data


def _decoded(
    file: PackedFile, compression: Compression, make_decoder: Callable[[], Decoder], damage: type[Exception]
) -> Generator[bytes, None, None]:
    rest = b""
    count = done_bytes = 0
    while True:
        count += 1
        if count > MAX_STREAMS and done_bytes < count * SECTOR_BYTES:  # each costs as much time as a whole block
            raise ImageError(
                f"{file.filename} is in too many pieces: {count} up to byte {file.offset} hold nearly nothing",
                hint="Unpack it, and pack it anew.",
            )
        rest = _at_least(rest, HEADER_BYTES, file)
        _check_header(rest, file, compression)
        if compression is Compression.GZIP:
            rest = _with_gzip_header(rest, file)
        decoder = make_decoder()
        while not decoder.eof:
            data = b""
            if decoder.needs_input:
                data = rest or file.read(packed_file.READ_BYTES)
                rest = b""
                if not data:
                    raise packed_file.truncation_error(file, compression)
            try:
                piece = decoder.decompress(data, PIECE_BYTES)
            except MemoryError as exc:
                raise packed_file.memory_error(file.filename) from exc
            except (damage, *DECODER_ERRORS) as exc:
                raise packed_file.damage_error(file.filename, compression, f"before byte {file.offset}", exc) from exc
            if piece:
                done_bytes += len(piece)
                yield piece
        rest = _next_stream(decoder.unused_data, file, compression)
        if not rest:
            return


def _at_least(data: bytes, size: int, file: PackedFile) -> bytes:
    """Return the data with more behind them, until there are so many bytes, or the file ends."""
    while len(data) < size and (more := file.read(packed_file.READ_BYTES)):
        data += more
    return data


def _check_header(head: bytes, file: PackedFile, compression: Compression) -> None:
    """Refuse a stream by its header, where a decoder would pass it or give no reason."""
    where = file.offset - len(head)
    match compression:
        case Compression.GZIP:
            if len(head) > 3 and head[3] & _GZIP_RESERVED:
                raise ImageError(
                    f"{file.filename} is damaged, or of a gzip that is yet to come: reserved bits are set in its "
                    f"header at byte {where}"
                )
        case Compression.XZ:
            check_xz_flags(head[6:8], file, where)
        case Compression.ZSTD:
            frame = zstd.read_frame(head)
            if frame and frame.window_bytes > 1 << ZSTD_WINDOW_LOG:
                raise packed_file.memory_limit_error(file.filename, 1 << ZSTD_WINDOW_LOG)
            if frame and frame.dictionary:
                raise ImageError(
                    f"{file.filename} was packed by means of a dictionary, number {frame.dictionary}",
                    hint="Unpack it first: zstd -d -D DICTIONARY.",
                )


def _with_gzip_header(data: bytes, file: PackedFile) -> bytes:
    """Return the data with more behind them, until the header is whole: isal 1.9 fails if it gets one in parts."""
    start = file.offset - len(data)
    while not _is_gzip_header_whole(data) and (more := file.read(packed_file.READ_BYTES)):
        data += more
        if len(data) > MAX_GZIP_HEADER_BYTES and not _is_gzip_header_whole(data[:MAX_GZIP_HEADER_BYTES]):
            raise ImageError(
                f"{file.filename} has a gzip header of more than {MAX_GZIP_HEADER_BYTES} bytes at byte {start}",
                hint="Unpack it, and pack it anew.",
            )
    return data


def _is_gzip_header_whole(data: bytes) -> bool:
    """Return whether all fields of a header are there; RFC 1952, 2.3."""
    flags = data[3] if len(data) > 3 else 0
    end = _GZIP_HEAD_BYTES
    if flags & _GZIP_EXTRA:
        end += 2 + int.from_bytes(data[end : end + 2], "little")
    for flag in _GZIP_TEXTS:
        if flags & flag:
            end = data.find(b"\0", end) + 1
            if not end:
                return False
    return len(data) >= end + 2 * bool(flags & _GZIP_CHECKSUM)


def check_xz_flags(flags: bytes, file: PackedFile, where: int) -> None:
    """Object to a stream of xz whose check liblzma can't make; damage would not show.

    Args:
        flags: Of its header; xz file format 1.2.1, section 2.1.1.2.
        file: The file.
        where: Where the stream begins, in bytes.
    """
    if len(flags) == 2 and not flags[0] and flags[1] <= lzma.CHECK_ID_MAX and not lzma.is_check_supported(flags[1]):
        file.object_to(
            f"{file.filename} has an integrity check of type {flags[1]} in its xz data at byte {where}, which is not "
            "known here, so that damage would not show",
            "Pack it anew, with `xz --check=sha256`.",
        )


def _next_stream(rest: bytes, file: PackedFile, compression: Compression) -> bytes:
    """Skip the padding that is allowed; return the beginning of a further stream, or nothing."""
    end = file.offset - len(rest)
    padding = 0
    while True:
        if compression is Compression.XZ or compression in _IS_PADDED:
            stripped = rest.lstrip(b"\0")
            padding += len(rest) - len(stripped)
            rest = stripped
        if rest:
            break
        rest = file.read(packed_file.READ_BYTES)
        if not rest:
            break
    if compression is Compression.XZ and padding % XZ_PADDING_BYTES:
        raise ImageError(
            f"{file.filename} has {padding} zeros behind its xz data at byte {end}, where only multiples of "
            f"{XZ_PADDING_BYTES} are allowed",
            hint=packed_file.cut_hint(end),
        )
    rest = _at_least(rest, HEADER_BYTES, file) if rest else b""
    is_stream = magic.compression_of(rest) is compression and not (padding and compression in _IS_PADDED)
    if not rest or is_stream:
        return rest
    if compression in _IS_PADDED:
        file.object_to(*packed_file.trailing_data(file, compression, end))
        while file.read(packed_file.READ_BYTES):
            pass
        return b""
    raise packed_file.garbage_error(file, compression, end)
