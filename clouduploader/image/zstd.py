"""What the headers of a zstd file tell: RFC 8878, section 3.1. Nothing is unpacked."""

from clouduploader.errors import ImageError
from clouduploader.image import decompress, magic, zstd_frame
from clouduploader.image.decompress import PackedFile
from clouduploader.model.disk import Compression

MAX_HEADERS = 1 << 22  # ours: those of 512 GiB in blocks as zstd makes them, looked through in some seconds
_SKIPPABLE_HEADER_BYTES = 8  # section 3.1.2
_CHECKSUM_BYTES = 4  # section 3.1.1
_BLOCK_HEADER_BYTES = 3  # section 3.1.1.2
_RLE, _RESERVED = 1, 3  # section 3.1.1.2.2


def unpacked_size(file: PackedFile) -> int | None:
    """Add up what the frames of a file claim to hold; their blocks are passed over.

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
        head = file.peek(offset, zstd_frame.MAX_BYTES)
        if is_between_frames:
            if magic.packing_of(head) is not Compression.ZSTD:
                raise decompress.garbage(file, Compression.ZSTD, offset)
            found = zstd_frame.read(head)
            if found is None:
                offset += _SKIPPABLE_HEADER_BYTES + int.from_bytes(head[4:8], "little")
                continue
            if found.header_bytes > len(head):
                raise decompress.cut_off(file, Compression.ZSTD)
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
        raise decompress.cut_off(file, Compression.ZSTD)
    return total
