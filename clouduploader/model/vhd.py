"""The footer of a virtual hard disk: Virtual Hard Disk Image Format Specification 1.0, Microsoft, 2006."""

import enum
import struct

from clouduploader.util.frozen import frozen

FOOTER_BYTES = 512
ALIGNMENT_BYTES = 1 << 20  # a fixed VHD holds whole MiB: Azure refuses all others, so none are made
COOKIE = b"conectix"
_LAYOUT = struct.Struct(">8sIIQI4sI4sQQIII")  # up to the checksum, which begins at byte 64
_CHECKSUM = slice(64, 68)
_FORMAT_VERSION = 0x00010000
_SECTOR_BYTES = 512
_FEATURES = 2  # the bit that is reserved, and always set
_NO_DATA_OFFSET = (1 << 64) - 1  # of a fixed disk
_TIMESTAMP = 0  # 2000-01-01: the same disk gives the same footer
_CREATOR = (b"qem2", 0x00050003, b"Wi2k")
"""As `qemu-img convert -O vpc -o force_size` writes it, which Azure's guide for Linux tells to run.

For all but a few creators QEMU goes by the geometry instead of the size, and cuts off the end; block/vpc.c.
"""


class VhdKind(enum.Enum):
    """How the disk is stored; the values are those of "Disk Type"."""

    FIXED = 2
    """The raw disk, then the footer."""
    DYNAMIC = 3
    """Blocks as they were written, between two copies of the footer."""
    DIFFERENCING = 4
    """Only what differs from another file."""


@frozen()
class VhdFooter:
    """The fields of a footer.

    Attributes:
        kind: See VhdKind.
        size_bytes: Of the raw disk ("Current Size").
    """

    kind: VhdKind
    size_bytes: int


def parse_footer(data: bytes) -> VhdFooter | None:
    """Read the last 512 bytes of a VHD, or the first of a dynamic one.

    Returns:
        None if these are anything else: a cookie without the right checksum is no footer.
    """
    if len(data) != FOOTER_BYTES or not data.startswith(COOKIE):
        return None
    _, _, version, _, _, _, _, _, _, size_bytes, _, disk_type, checksum = _LAYOUT.unpack_from(data)
    if version != _FORMAT_VERSION or checksum != ~(sum(data) - sum(data[_CHECKSUM])) & 0xFFFFFFFF:
        return None
    try:
        return VhdFooter(VhdKind(disk_type), size_bytes)
    except ValueError:
        return None


def padded_bytes(size_bytes: int) -> int:
    """Return the size of a fixed disk that has room for so many bytes, its footer not counted."""
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def fixed_footer(size_bytes: int, unique_id: bytes) -> bytes:
    """Make the footer of a fixed disk.

    Args:
        size_bytes: Of the raw disk; a multiple of ALIGNMENT_BYTES for Azure.
        unique_id: 16 bytes; programs that keep a list of disks know this one by it.

    Returns:
        512 bytes, always the same for the same arguments.
    """
    head = _LAYOUT.pack(
        COOKIE,
        _FEATURES,
        _FORMAT_VERSION,
        _NO_DATA_OFFSET,
        _TIMESTAMP,
        *_CREATOR,
        size_bytes,
        size_bytes,
        _geometry(size_bytes),
        VhdKind.FIXED.value,
        0,
    )
    rest = unique_id.ljust(FOOTER_BYTES - len(head), b"\0")
    checksum = ~(sum(head) + sum(rest)) & 0xFFFFFFFF
    return head[: _CHECKSUM.start] + checksum.to_bytes(4, "big") + rest


def _geometry(size_bytes: int) -> int:
    """Cylinders, heads and sectors per track as the footer has them: 2 bytes, 1 and 1.

    By the specification's appendix, "CHS Calculation"; they multiply to the size or somewhat less, and at most to
    127 GiB.
    """
    sectors = min(size_bytes // _SECTOR_BYTES, 65535 * 16 * 255)
    if sectors >= 65535 * 16 * 63:
        heads, per_track = 16, 255
    else:
        per_track = 17
        heads = max(4, -(-(sectors // per_track) // 1024))
        if heads > 16 or sectors // per_track >= heads * 1024:
            heads, per_track = 16, 31
        if sectors // per_track >= heads * 1024:
            heads, per_track = 16, 63
    return (sectors // per_track // heads) << 16 | heads << 8 | per_track
