"""The footer of a virtual hard disk: Virtual Hard Disk Image Format Specification 1.0, Microsoft, 2006."""

import enum
import struct

from clouduploader.util.frozen import frozen

FOOTER_BYTES = 512
COOKIE = b"conectix"
_LAYOUT = struct.Struct(">8sIIQI4sI4sQQIII")  # up to the checksum, which begins at byte 64
_CHECKSUM = slice(64, 68)
_FORMAT_VERSION = 0x00010000


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
    """What a footer says.

    Attributes:
        kind: See Kind.
        size_bytes: Of the raw disk ("Current Size").
    """

    kind: VhdKind
    size_bytes: int


def footer(data: bytes) -> VhdFooter | None:
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
