"""The boot images of an ISO 9660 file system: El Torito, Bootable CD-ROM Format Specification 1.0."""

import struct

from clouduploader.image.partitions import ReadAt

_BLOCK_BYTES = 2048
_RECORD_BLOCK = 17
_RECORD = b"\0CD001\x01EL TORITO SPECIFICATION"
_CATALOG = struct.Struct("<I")  # figure 7, at byte 71: where the catalog is
_CATALOG_AT = 71
_ENTRY = struct.Struct("<B7xI20x")  # figures 3 and 5: bootable or not, first block
_BOOTABLE, _EFI = 0x88, 0xEF
_HEADERS = (0x90, 0x91)  # of a section; figure 4


def efi_images(read_at: ReadAt) -> list[int]:
    """Where the images for UEFI firmware begin, in bytes; empty if there are none."""
    record = read_at(_RECORD_BLOCK * _BLOCK_BYTES, _BLOCK_BYTES)
    if len(record) < _BLOCK_BYTES or not record.startswith(_RECORD):
        return []
    (block,) = _CATALOG.unpack_from(record, _CATALOG_AT)
    catalog = read_at(block * _BLOCK_BYTES, _BLOCK_BYTES)
    found = []
    platform = catalog[1:2]
    for at in range(_ENTRY.size, len(catalog) - _ENTRY.size + 1, _ENTRY.size):
        kind, first = _ENTRY.unpack_from(catalog, at)
        if kind in _HEADERS:
            platform = catalog[at + 1 : at + 2]
        elif kind == _BOOTABLE and platform == bytes([_EFI]):
            found.append(first * _BLOCK_BYTES)
    return found
