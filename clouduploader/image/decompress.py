"""The contents of a packed file, piece by piece, checked to the file's last byte."""

import bz2
import contextlib
import functools
import hashlib
import itertools
import lzma
import os
import sys
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import BinaryIO, Protocol, cast

from clouduploader.errors import ImageError, LocalIOError, TransientError, UnavailableError
from clouduploader.image import magic, zstd_frame
from clouduploader.model.disk import Compression, Image
from clouduploader.util.cancel import Cancel

PIECE_BYTES = 1 << 17  # less, and threads that send get in the way each time; more is no faster
READ_BYTES = 1 << 17  # more is no faster, and damage is told to within this
XZ_MEMORY_BYTES = 1 << 28  # four times what `xz -9` needs to unpack, xz(1); a header can ask for 4 GiB
XZ_PADDING_BYTES = 4  # stream padding is zeros in multiples of this; xz file format 1.2.1, section 2.2
HEADER_BYTES = zstd_frame.MAX_BYTES  # the other headers that are looked at are shorter
MAX_STREAMS = 1000  # ours: of whatever kind; of more, each must give a sector on the average
SECTOR_BYTES = 512
ZSTD_WINDOW_LOG = 27  # 128 MiB, what zstd itself unpacks without --long; zstd(1)
MAX_GZIP_HEADER_BYTES = 1 << 18  # ours: the extra field has 64 KiB at most, name and comment are a line each
_GZIP_RESERVED = 0xE0  # RFC 1952, 2.3.1: bits of the flags; 2.3.1.2 demands an error
_GZIP_HEAD_BYTES = 10  # up to the fields that may be there, by these flags
_GZIP_CHECKSUM, _GZIP_EXTRA, _GZIP_TEXTS = 0x02, 0x04, (0x08, 0x10)
DECODER_ERRORS = (EOFError, ValueError, RuntimeError)
"""What the modules of bz2, lzma, zlib, isal and zstd have for states of their libraries besides their own errors."""
_IS_PADDED = (
    Compression.GZIP,
    Compression.BZIP2,
)  # with zeros up to the end: gzip manual, "Tapes"; bzip2(1) passes anything


class PackedFile:
    """A file that is read once, from its first byte to its last.

    Attributes:
        filename: Names it in errors.
        offset: How much was read.
        size_bytes: How large it was when it was described.
    """

    def __init__(
        self,
        file: BinaryIO,
        image: Image,
        on_bytes: Callable[[int], None] | None,
        cancel: Cancel,
        overlook: Callable[[str], None] | None,
    ) -> None:
        self.filename = image.filename
        self.size_bytes = image.size_bytes
        self.offset = 0
        self._file = file
        self._path = image.path
        self._on_bytes = on_bytes
        self._cancel = cancel
        self._overlook = overlook
        self._digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """The next bytes; fewer only at the end.

        Raises:
            LocalIOError: They can't be read.
            StoppedError: The stop was requested.
        """
        self._cancel.raise_if_requested()
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
        self._cancel.raise_if_requested()
        with _translated(self._path):
            return os.pread(self.fd, size, offset)

    def object_to(self, message: str, hint: str) -> None:
        """Refuse what another program may pass, unless that is forced.

        Raises:
            ImageError: It is not forced.
        """
        if self._overlook is None:
            raise ImageError(message, hint=f"{hint} Or give force, if you know better.")
        self._overlook(message)

    @property
    def fd(self) -> int:
        """Its descriptor, open as long as the file is."""
        return self._file.fileno()

    def sha256(self) -> str:
        """The digest, in hex, of what was read."""
        return self._digest.hexdigest()


@contextlib.contextmanager
def opened(
    image: Image,
    *,
    cancel: Cancel,
    on_bytes: Callable[[int], None] | None = None,
    overlook: Callable[[str], None] | None = None,
) -> Iterator[PackedFile]:
    """Open an image's file.

    Args:
        image: See Image.
        cancel: Honoured at each read.
        on_bytes: Called now and then with how much of the file was read.
        overlook: Called with what is passed over because that is forced; None if it is not.

    Raises:
        LocalIOError: It can't be opened.
    """
    with contextlib.ExitStack() as stack:
        with _translated(image.path):
            file = stack.enter_context(image.path.open("rb"))
        yield PackedFile(file, image, on_bytes, cancel, overlook)


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


def _codec(packing: Compression) -> tuple[Callable[[], Decoder], type[Exception]]:
    """What makes a decoder, and the error by which that tells of damage.

    Raises:
        UnavailableError: It can't be unpacked here.
    """
    match packing:
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


def head(pieces: Iterator[bytes], size: int) -> tuple[bytes, Iterator[bytes]]:
    """What a stream begins with, so many bytes at least if there are, and the whole of it."""
    found = b""
    for piece in pieces:
        found += piece
        if len(found) >= size:
            break
    return found, itertools.chain([found] if found else [], pieces)


def unpacked(file: PackedFile, packing: Compression) -> Generator[bytes, None, None]:
    """The contents of a file in pieces, none empty; all streams in it, to the last byte, by one core.

    Raises:
        UnavailableError: It can't be unpacked here; at once. All others come from the iterator.
        TransientError: There is not enough memory.
        ImageError: It is cut off, damaged, or has garbage behind its end.
        LocalIOError: It can't be read.
        StoppedError: The stop was requested.
    """
    if packing in (Compression.RAW, Compression.TAR):
        return _as_it_is(file)
    return _decoded(file, packing, *_codec(packing))


def _as_it_is(file: PackedFile) -> Generator[bytes, None, None]:
    while data := file.read(READ_BYTES):
        yield data


def _decoded(
    file: PackedFile, packing: Compression, make_decoder: Callable[[], Decoder], damage: type[Exception]
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
        _check_header(rest, file, packing)
        if packing is Compression.GZIP:
            rest = _with_gzip_header(rest, file)
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
            except MemoryError as exc:
                raise no_memory(file.filename) from exc
            except (damage, *DECODER_ERRORS) as exc:
                raise damaged(file.filename, packing, f"before byte {file.offset}", exc) from exc
            if piece:
                done_bytes += len(piece)
                yield piece
        rest = _next_stream(decoder.unused_data, file, packing)
        if not rest:
            return


def _at_least(data: bytes, size: int, file: PackedFile) -> bytes:
    """So many bytes, or all there are."""
    while len(data) < size and (more := file.read(READ_BYTES)):
        data += more
    return data


def _check_header(head: bytes, file: PackedFile, packing: Compression) -> None:
    """Refuse a stream for what its header says, where a decoder would pass it or give no reason."""
    where = file.offset - len(head)
    match packing:
        case Compression.GZIP:
            if len(head) > 3 and head[3] & _GZIP_RESERVED:
                raise ImageError(
                    f"{file.filename} is damaged, or of a gzip that is yet to come: reserved bits are set in its "
                    f"header at byte {where}"
                )
        case Compression.XZ:
            check_xz_flags(head[6:8], file, where)
        case Compression.ZSTD:
            frame = zstd_frame.read(head)
            if frame and frame.window_bytes > 1 << ZSTD_WINDOW_LOG:
                raise too_much_memory(file.filename, 1 << ZSTD_WINDOW_LOG)
            if frame and frame.dictionary:
                raise ImageError(
                    f"{file.filename} was packed by means of a dictionary, number {frame.dictionary}",
                    hint="Unpack it first: zstd -d -D DICTIONARY.",
                )


def _with_gzip_header(data: bytes, file: PackedFile) -> bytes:
    """The same data, and more, so that the header in front is whole: isal 1.9 fails where it gets one in parts."""
    start = file.offset - len(data)
    while not _is_gzip_header_whole(data) and (more := file.read(READ_BYTES)):
        data += more
        if len(data) > MAX_GZIP_HEADER_BYTES and not _is_gzip_header_whole(data[:MAX_GZIP_HEADER_BYTES]):
            raise ImageError(
                f"{file.filename} has a gzip header of more than {MAX_GZIP_HEADER_BYTES} bytes at byte {start}",
                hint="Unpack it, and pack it anew.",
            )
    return data


def _is_gzip_header_whole(data: bytes) -> bool:
    """Whether all fields of a header are there; RFC 1952, 2.3."""
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
    """Object to a stream of xz whose check nobody here can make; then damage does not show.

    Args:
        flags: Of its header; xz file format 1.2.1, section 2.1.1.2.
        file: Where it is in.
        where: At which byte.
    """
    if len(flags) == 2 and not flags[0] and flags[1] <= lzma.CHECK_ID_MAX and not lzma.is_check_supported(flags[1]):
        file.object_to(
            f"{file.filename} has an integrity check of type {flags[1]} in its xz data at byte {where}, which is not "
            "known here, so that nobody can tell whether it is whole",
            "Pack it anew, with `xz --check=sha256`.",
        )


def _next_stream(rest: bytes, file: PackedFile, packing: Compression) -> bytes:
    """Skip the padding that is allowed; return the beginning of a further stream, or nothing."""
    end = file.offset - len(rest)
    padding = 0
    while True:
        if packing is Compression.XZ or packing in _IS_PADDED:
            stripped = rest.lstrip(b"\0")
            padding += len(rest) - len(stripped)
            rest = stripped
        if rest:
            break
        rest = file.read(READ_BYTES)
        if not rest:
            break
    if packing is Compression.XZ and padding % XZ_PADDING_BYTES:
        raise ImageError(
            f"{file.filename} has {padding} zeros behind its xz data at byte {end}, where only multiples of "
            f"{XZ_PADDING_BYTES} are allowed",
            hint=_without(end),
        )
    rest = _at_least(rest, HEADER_BYTES, file) if rest else b""
    is_stream = magic.packing_of(rest) is packing and not (padding and packing in _IS_PADDED)
    if not rest or is_stream:
        return rest
    if packing in _IS_PADDED:
        file.object_to(*_trailing(file, packing, end))
        while file.read(READ_BYTES):
            pass
        return b""
    raise garbage(file, packing, end)


def damaged(filename: str, packing: Compression, where: str, exc: Exception) -> ImageError:
    """What a decoder says of its data, in our words."""
    reason = str(exc)
    if "emory" in reason:  # "Memory usage limit exceeded", of lzma
        return too_much_memory(filename, XZ_MEMORY_BYTES)
    if "nsupported options" in reason:
        return ImageError(
            f"{filename} can't be unpacked: its {packing} data {where} need a filter that is not known here",
            hint="Unpack it first, with a newer xz.",
        )
    return ImageError(f"{filename} is damaged: bad {packing} data {where} ({reason})")


def too_much_memory(filename: str, limit_bytes: int) -> ImageError:
    """It may be sound, but unpacking it takes more memory than we allow."""
    return ImageError(
        f"{filename} needs more than {limit_bytes >> 20} MiB of memory to be unpacked, the most that is allowed here",
        hint="Unpack it first, or pack it anew in a way that needs less, such as `xz -9` or `zstd -19`.",
    )


def no_memory(filename: str) -> TransientError:
    """There is less memory than we allow."""
    return TransientError(f"there is not enough memory on this machine to unpack {filename}", hint="Unpack it first.")


def cut_off(file: PackedFile, packing: Compression) -> ImageError:
    """The packing ends where more should come."""
    return ImageError(f"{file.filename} is cut off: the {packing} data end too early, at byte {file.size_bytes}")


def garbage(file: PackedFile, packing: Compression, where: int) -> ImageError:
    """What lies behind the end of a packing is no further stream of it."""
    message, hint = _trailing(file, packing, where)
    return ImageError(message, hint=hint)


def _trailing(file: PackedFile, packing: Compression, where: int) -> tuple[str, str]:
    """Message and hint for that."""
    return (
        f"{file.filename} has something else behind the end of its {packing} data, at byte {where}: a signature, or "
        "more data that are damaged",
        _without(where),
    )


def _without(where: int) -> str:
    return f"If the image ends there, `head -c {where}` makes a file without it; or unpack it first."
