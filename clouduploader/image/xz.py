"""The index of an xz file, and its blocks unpacked by several threads: xz file format 1.2.1.

The index tells the unpacked size without unpacking, and where the blocks are. A block is unpacked by making a
stream of its own of it, so that liblzma checks all that it checks in the whole: headers, digest, and whether the
index tells the truth about it.
"""

import collections
import lzma
import zlib
from array import array
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from clouduploader.errors import ImageError
from clouduploader.image import decompress, packed_file
from clouduploader.image.packed_file import PackedFile
from clouduploader.model.disk import Compression
from clouduploader.util.frozen import frozen

if TYPE_CHECKING:
    from concurrent.futures import Future

MAX_BLOCK_BYTES = 64 << 20  # ours: a block is in memory as a whole, a few of them at once; `xz -T0` makes 24 MiB
MAX_FLIGHT_BYTES = 512 << 20  # ours: of all blocks that are being unpacked or wait, whatever the number of cores
MAX_INDEX_BYTES = (
    1 << 20
)  # ours: of all streams, with headers and footers: 3 TiB in blocks of 24 MiB; parsed in a second
FIRST_BYTES = 1 << 9  # ours: read first to see whether there is padding; there may be 100,000 streams, and seldom is
_HEADER_MAGIC = b"\xfd7zXZ\x00"  # section 2.1.1.1
_FOOTER_MAGIC = b"YZ"  # section 2.1.2.4
_HEADER_BYTES = _FOOTER_BYTES = 12  # sections 2.1.1 and 2.1.2
_MAX_FLAGS = b"\0\x0f"  # section 2.1.1.2: all else is reserved
_CRC_BYTES = 4
_MAX_NUMBER_BYTES = 9  # section 1.2
_MIN_UNPADDED_BYTES = 5  # what liblzma takes for the least, UNPADDED_SIZE_MIN


@frozen()
class XzStream:
    """One of the streams of a file.

    Attributes:
        flags: Of header and footer.
        sizes: Of the blocks, two numbers each: "Unpadded Size" and "Uncompressed Size".
        index: All of it, with its padding and digest.
        padding_bytes: Zeros behind its end.
    """

    flags: bytes
    sizes: "array[int]"
    index: bytes
    padding_bytes: int


def read_streams(file: PackedFile) -> list[XzStream] | None:
    """Read the indexes of a file, from its end.

    Returns:
        The streams in their order; None if there are too many of them, or of blocks.

    Raises:
        ImageError: It is cut off, damaged, or has garbage behind its end.
        LocalIOError: It can't be read.
    """
    found: list[XzStream] = []
    end, budget = file.size_bytes, MAX_INDEX_BYTES
    while end:
        behind = _without_padding(file, end)
        padding, end = end - behind, behind
        footer = file.peek(max(end - _FOOTER_BYTES, 0), _FOOTER_BYTES)
        flags, size = footer[8:10], (int.from_bytes(footer[4:8], "little") + 1) * 4  # section 2.1.2.2
        if padding % decompress.XZ_PADDING_BYTES or footer != _footer(flags, size) or flags > _MAX_FLAGS:
            raise ImageError(
                f"{file.filename} is cut off, or has something else behind its end: no xz data end at byte {end}",
                hint="Get it anew. If it is a signature, `xz --single-stream -dc` unpacks what is before it.",
            )
        end -= _FOOTER_BYTES + size
        budget -= _HEADER_BYTES + size + _FOOTER_BYTES
        if budget < 0:
            return None
        index = file.peek(end, size) if end > 0 else b""
        try:
            sizes = _sizes(index)
        except ValueError as exc:
            raise ImageError(f"{file.filename} is damaged: bad xz index at byte {max(end, 0)} ({exc})") from exc
        end -= sum(map(_padded, sizes[::2])) + _HEADER_BYTES
        if end < 0 or file.peek(end, _HEADER_BYTES) != _header(flags):
            raise ImageError(f"{file.filename} is damaged: its xz index does not fit its data at byte {max(end, 0)}")
        found.append(XzStream(flags, sizes, index, padding))
    return found[::-1]


def _without_padding(file: PackedFile, end: int) -> int:
    """Return where the zeros before `end` begin."""
    size = FIRST_BYTES
    while end:
        start = max(end - size, 0)
        rest = file.peek(start, end - start).rstrip(b"\0")
        if rest:
            return start + len(rest)
        end = start
        size = min(2 * size, packed_file.READ_BYTES)
    return 0


def _sizes(index: bytes) -> "array[int]":
    """Read an index, section 4; see `XzStream.sizes`.

    Raises:
        ValueError: What is wrong with it.
    """
    body = index[:-_CRC_BYTES]
    if index[-_CRC_BYTES:] != _crc(body) or body[0]:
        raise ValueError("its digest is wrong")
    count, at = _number(body, 1)
    found = array("Q")
    for _ in range(2 * count):
        number, at = _number(body, at)
        found.append(number)
    if len(body) - at > 3 or any(body[at:]) or any(size < _MIN_UNPADDED_BYTES for size in found[::2]):
        raise ValueError("its records make no sense")
    return found


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of section 1.2, and where it ends."""
    value = 0
    for place in range(_MAX_NUMBER_BYTES):
        if at + place >= len(data):
            break
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            if place and not byte:
                break
            return value, at + place + 1
    raise ValueError("a number in it is wrong")


def unpacked_size(found: list[XzStream]) -> int:
    """Return the unpacked size in bytes, by the indexes."""
    return sum(sum(stream.sizes[1::2]) for stream in found)


def block_count(found: list[XzStream]) -> int:
    """Return how many blocks there are."""
    return sum(len(stream.sizes) // 2 for stream in found)


def thread_count(found: list[XzStream], cores: int) -> int:
    """Return how many threads can unpack this within the limits of memory; 1 if the blocks are too large."""
    largest = max((size for stream in found for size in stream.sizes), default=0)
    if largest > MAX_BLOCK_BYTES:
        return 1
    return min(cores, block_count(found), MAX_FLIGHT_BYTES // (largest or 1) - 1)


def unpack(file: PackedFile, found: list[XzStream], threads: int) -> Generator[bytes, None, None]:
    """Yield the contents of a file in pieces, none empty, in order, to its last byte.

    One block more than there are threads is in memory. The threads end with the iterator.

    Args:
        file: Not read yet.
        found: Its streams.
        threads: How many.

    Raises:
        ImageError: It is damaged.
        TransientError: There is not enough memory.
        LocalIOError: It can't be read.
        StoppedError: The stop was requested.
    """
    from concurrent.futures import ThreadPoolExecutor  # slow to import, and most files are of one block

    waiting: collections.deque[Future[list[bytes]]] = collections.deque()
    pool = ThreadPoolExecutor(threads, "xz")
    try:
        for block in _blocks(file, found):
            waiting.append(pool.submit(_unpacked_block, file.filename, *block))
            if len(waiting) > threads:
                yield from _drained(waiting.popleft().result())
        while waiting:
            yield from _drained(waiting.popleft().result())
    finally:
        pool.shutdown(cancel_futures=True)


def _drained(pieces: list[bytes]) -> Iterator[bytes]:
    """Yield the items of a list, and remove each, so that it can be freed."""
    pieces.reverse()
    while pieces:
        yield pieces.pop()


def _blocks(file: PackedFile, found: list[XzStream]) -> Iterator[tuple[int, bytes, bytes, int, int]]:
    """Read all of a file, and compare it with its indexes; yield the arguments of `_unpacked_block` for each block."""
    for stream in found:
        decompress.check_xz_flags(stream.flags, file, file.offset)
        _expect(file, _header(stream.flags))
        for unpadded_bytes, unpacked_bytes in zip(stream.sizes[::2], stream.sizes[1::2], strict=True):
            offset = file.offset
            yield offset, stream.flags, file.read(_padded(unpadded_bytes)), unpadded_bytes, unpacked_bytes
        _expect(file, stream.index + _footer(stream.flags, len(stream.index)))
        for left in range(stream.padding_bytes, 0, -packed_file.READ_BYTES):
            _expect(file, bytes(min(left, packed_file.READ_BYTES)))
    if file.read(1):
        raise packed_file.garbage_error(file, Compression.XZ, file.offset - 1)


def _expect(file: PackedFile, wanted: bytes) -> None:
    offset = file.offset
    if file.read(len(wanted)) != wanted:
        raise ImageError(f"{file.filename} changed while it was read, at byte {offset}")


def _unpacked_block(
    filename: str, offset: int, flags: bytes, data: bytes, unpadded_bytes: int, unpacked_bytes: int
) -> list[bytes]:
    """Unpack one block, with its padding, in pieces.

    Raises:
        ImageError: It is damaged, or not what the index says.
    """
    body = b"\0\1" + _packed_number(unpadded_bytes) + _packed_number(unpacked_bytes)
    body += bytes(-len(body) % 4)
    index = body + _crc(body)
    decoder = decompress.xz_decoder()
    pieces, left = [], unpacked_bytes
    try:
        piece = decoder.decompress(
            b"".join((_header(flags), data, index, _footer(flags, len(index)))), decompress.PIECE_BYTES
        )
        while piece:
            left -= len(piece)
            if left < 0:
                raise lzma.LZMAError("it holds more than the index says")
            pieces.append(piece)
            piece = b"" if decoder.eof else decoder.decompress(b"", decompress.PIECE_BYTES)
        if not decoder.eof or decoder.unused_data:
            raise lzma.LZMAError("it ends where the index does not say")
    except MemoryError as exc:
        raise packed_file.memory_error(filename) from exc
    except (lzma.LZMAError, *decompress.DECODER_ERRORS) as exc:
        raise packed_file.damage_error(filename, Compression.XZ, f"in the block at byte {offset}", exc) from exc
    return pieces


def _packed_number(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _padded(size: int) -> int:
    return -(-size // 4) * 4  # section 3.3


def _header(flags: bytes) -> bytes:
    return _HEADER_MAGIC + flags + _crc(flags)


def _footer(flags: bytes, index_bytes: int) -> bytes:
    fields = (index_bytes // 4 - 1).to_bytes(4, "little") + flags
    return _crc(fields) + fields + _FOOTER_MAGIC


def _crc(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(_CRC_BYTES, "little")
