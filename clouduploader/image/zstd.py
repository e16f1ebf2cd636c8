"""The headers of a zstd file: RFC 8878, section 3.1. Nothing is unpacked."""

from clouduploader.errors import ImageError
from clouduploader.image import magic, packed_file
from clouduploader.image.packed_file import PackedFile
from clouduploader.model.disk import Compression
from clouduploader.util.frozen import frozen

MAX_FRAME_HEADER_BYTES = 18  # with the magic
_MAGIC = b"\x28\xb5\x2f\xfd"
_DICTIONARY_ID_BYTES = (0, 1, 2, 4)  # section 3.1.1.1.1.6, by the flag
_CONTENT_SIZE_BYTES = (0, 2, 4, 8)  # section 3.1.1.1.1.1, by the flag; with 2 bytes, 256 are to be added
MAX_HEADERS = 1 << 22  # ours: those of 512 GiB in blocks as zstd makes them, looked through in some seconds
_SKIPPABLE_HEADER_BYTES = 8  # section 3.1.2
_CHECKSUM_BYTES = 4  # section 3.1.1
_BLOCK_HEADER_BYTES = 3  # section 3.1.1.2
_RLE, _RESERVED = 1, 3  # section 3.1.1.2.2


@frozen(kw_only=True)
class ZstdFrame:
    """The header of a frame.

    Attributes:
        size_bytes: What it holds; None if it does not tell.
        header_bytes: How long the header is, with the magic.
        has_checksum: Whether there is one at its end.
        window_bytes: How much memory it takes to unpack it.
        dictionary: The number of the dictionary that it needs, or 0.
    """

    size_bytes: int | None
    header_bytes: int
    has_checksum: bool
    window_bytes: int
    dictionary: int


def read_frame(head: bytes) -> ZstdFrame | None:
    """Read the header of a frame; None of one that is to be skipped."""
    if not head.startswith(_MAGIC):
        return None
    descriptor = head[4] if len(head) > 4 else 0
    is_single_segment = bool(descriptor & 0x20)
    size_flag = descriptor >> 6
    size_bytes = 1 if is_single_segment and not size_flag else _CONTENT_SIZE_BYTES[size_flag]
    dictionary_start = 5 + (not is_single_segment)
    start = dictionary_start + _DICTIONARY_ID_BYTES[descriptor & 3]
    content = int.from_bytes(head[start : start + size_bytes], "little") + (256 if size_bytes == 2 else 0)
    window = head[5] if len(head) > 5 and not is_single_segment else 0
    base = 1 << 10 + (window >> 3)  # section 3.1.1.1.2
    return ZstdFrame(
        size_bytes=content if size_bytes else None,
        header_bytes=start + size_bytes,
        has_checksum=bool(descriptor & 4),
        window_bytes=content if is_single_segment else base + base // 8 * (window & 7),
        dictionary=int.from_bytes(head[dictionary_start:start], "little"),
    )


def unpacked_size(file: PackedFile) -> int | None:
    """Return the unpacked size in bytes, by the headers of all frames; their blocks are skipped.

    Returns:
        None if a frame does not tell, or there are too many headers to look at.

    Raises:
        ImageError: It is cut off, damaged, or has garbage behind its end.
        LocalIOError: It can't be read.
    """
    total = offset = headers = 0
    is_between_frames, has_checksum = True, False
    while offset < file.size_bytes:
        headers += 1
        if headers > MAX_HEADERS:
            return None
        head = file.peek(offset, MAX_FRAME_HEADER_BYTES)
        if is_between_frames:
            if magic.compression_of(head) is not Compression.ZSTD:
                raise packed_file.garbage_error(file, Compression.ZSTD, offset)
            found = read_frame(head)
            if found is None:
                offset += _SKIPPABLE_HEADER_BYTES + int.from_bytes(head[4:8], "little")
                continue
            if found.header_bytes > len(head):
                raise packed_file.truncation_error(file, Compression.ZSTD)
            if found.size_bytes is None:
                return None
            total += found.size_bytes
            offset += found.header_bytes
            is_between_frames, has_checksum = False, found.has_checksum
            continue
        block = int.from_bytes(head[:_BLOCK_HEADER_BYTES], "little")
        kind, size = block >> 1 & 3, block >> 3
        if kind == _RESERVED:
            raise ImageError(f"{file.filename} is damaged: bad zst data at byte {offset}")
        offset += _BLOCK_HEADER_BYTES + (1 if kind == _RLE else size)
        if block & 1:  # the last of its frame
            offset += _CHECKSUM_BYTES * has_checksum
            is_between_frames = True
    if offset > file.size_bytes or not is_between_frames:
        raise packed_file.truncation_error(file, Compression.ZSTD)
    return total
