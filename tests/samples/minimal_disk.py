"""The least that a file must have to be taken for a disk."""

import struct

SECTOR_BYTES = 512


def as_disk(content: bytes) -> bytes:
    """The same bytes with an MBR at the end of the first sector, and zeros up to the end of the last.

    Its only partition takes the rest of the disk, or where there is no rest, is left out.
    """
    sectors = max(-(-len(content) // SECTOR_BYTES), 1)
    partition = struct.pack("<B3xB3xII", 0, 0x83, 1, sectors - 1) if sectors > 1 else b""
    table = partition.ljust(64, b"\0") + b"\x55\xaa"
    whole = content.ljust(sectors * SECTOR_BYTES, b"\0")
    return whole[: SECTOR_BYTES - len(table)] + table + whole[SECTOR_BYTES:]
