"""The header of a frame of zstd: RFC 8878, section 3.1.1.1."""

from clouduploader.util.frozen import frozen

MAX_BYTES = 18  # of a header, with the magic
_MAGIC = b"\x28\xb5\x2f\xfd"
_DICTIONARY_ID_BYTES = (0, 1, 2, 4)  # section 3.1.1.1.1.6, by the flag
_CONTENT_SIZE_BYTES = (0, 2, 4, 8)  # section 3.1.1.1.1.1, by the flag; with 2 bytes, 256 are to be added


@frozen(kw_only=True)
class ZstdFrame:
    """What the header of a frame says.

    Attributes:
        size_bytes: What it holds; None if it does not tell.
        header_bytes: How long the header is, with the magic.
        has_checksum: Whether there is one at its end.
        window_bytes: How much memory it takes to unpack it.
        dictionary: The number of the one that it takes, or 0.
    """

    size_bytes: int | None
    header_bytes: int
    has_checksum: bool
    window_bytes: int
    dictionary: int


def read(head: bytes) -> ZstdFrame | None:
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
