"""Whether a PC's BIOS starts a disk: it runs the code in the first sector, which must know where to go on."""

from clouduploader.image.partial_read import TooFarError
from clouduploader.image.partitions import PartitionTable, ReadAt, TableKind

_SECTOR_BYTES = 512
_SIGNATURE = b"\x55\xaa"
_CODE_BYTES = 440  # UEFI specification 2.10, 5.2.1, table 5.1
_BOOT_PARAMETER_BYTES = 120  # of an exFAT, which has most before its code; exFAT specification, 3.1
_SELF_SUFFICIENT = (b"GRUB", b"LILO", b"Limine", b"isolinux.bin")  # boot code that knows itself where to go on
_CHAINS = (
    b"\xfa\xb8\x00\x10\x8e\xd0\xbc\x00\xb0\xb8\x00\x00\x8e\xd8",  # parted, libparted/labels/dos.c
    b"Missing operating system",  # syslinux and Windows
    b"Missing OS",
    b"Invalid partition table",
)
"""Boot code that can do nothing but go on in the active partition."""
_NOT_BOOTABLE = b"This is not a bootable disk"  # what mkfs.fat and mkntfs write for code


def boots(read_at: ReadAt, table: PartitionTable | None) -> bool | None:
    """Whether a BIOS starts it; None if that can't be told."""
    sector = read_at(0, _SECTOR_BYTES)
    if table is None:
        return _has_code(sector, _BOOT_PARAMETER_BYTES)
    code = sector[:_CODE_BYTES]
    if not any(code) or table.sector_bytes != _SECTOR_BYTES:
        return False
    if any(name in code for name in _SELF_SUFFICIENT):
        return True
    is_chain = any(mark in code for mark in _CHAINS)
    if not is_chain and any(one.kind is TableKind.BIOS_BOOT for one in table.partitions):
        return True
    try:
        followed = [_has_code(read_at(one.start, _SECTOR_BYTES), 0) for one in table.partitions if one.is_active]
    except TooFarError:
        return None
    if any(followed):
        return True
    return False if is_chain and table.is_whole else None  # other code may know more places than the active partition


def _has_code(sector: bytes, start: int) -> bool:
    """Whether a sector is one that can be started."""
    return sector.endswith(_SIGNATURE) and any(sector[start:_CODE_BYTES]) and _NOT_BOOTABLE not in sector
