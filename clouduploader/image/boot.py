"""What firmware starts from a disk: programs of UEFI in FAT file systems, and boot code of a PC's BIOS.

A BIOS runs the code in the first sector, which must find what to load next. UEFI firmware starts programs by their
names; on a CD the file system with them is a boot image of El Torito (Bootable CD-ROM Format Specification 1.0).
"""

import struct

from clouduploader.image import fat
from clouduploader.image.partial_read import TooFarError
from clouduploader.image.partitions import PartitionKind, PartitionTable, ReadAt
from clouduploader.util.frozen import frozen

LOADERS = {
    "BOOTX64.EFI": "x86_64",
    "BOOTAA64.EFI": "arm64",
    "BOOTIA32.EFI": "i386",
    "BOOTARM.EFI": "arm",
    "BOOTIA64.EFI": "ia64",
    "BOOTRISCV32.EFI": "riscv32",
    "BOOTRISCV64.EFI": "riscv64",
    "BOOTLOONGARCH32.EFI": "loongarch32",
    "BOOTLOONGARCH64.EFI": "loongarch64",
}
"""The programs that UEFI firmware starts by itself, each on its architecture: UEFI specification 2.10, 3.5.1.1."""

_MACHINES = {
    0x8664: "x86_64",
    0xAA64: "arm64",
    0x014C: "i386",
    0x01C0: "arm",
    0x01C2: "arm",
    0x01C4: "arm",
    0x0200: "ia64",
    0x5032: "riscv32",
    0x5064: "riscv64",
    0x6232: "loongarch32",
    0x6264: "loongarch64",
}
"""PE format, "Machine Types"."""

_PE_OFFSET = 0x3C  # PE format, "MS-DOS Stub"
_LOADER_BYTES = 1 << 13  # ours: the PE header begins within the first few hundred bytes
_MAX_VOLUMES = 32  # ours: one is the rule, and looking at all of a hostile disk takes time
_MAX_KERNELS = 8  # ours: of EFI/Linux; a system keeps two or three

_SECTOR_BYTES = 512
_SIGNATURE = b"\x55\xaa"
_CODE_BYTES = 440  # UEFI specification 2.10, 5.2.1, table 5.1
_BOOT_PARAMETER_BYTES = 120  # of an exFAT, which has most before its code; exFAT specification, 3.1
_SELF_SUFFICIENT = (b"GRUB", b"LILO", b"Limine", b"isolinux.bin")  # boot code that knows itself what to load next
_CHAINS = (
    b"\xfa\xb8\x00\x10\x8e\xd0\xbc\x00\xb0\xb8\x00\x00\x8e\xd8",  # parted, libparted/labels/dos.c
    b"Missing operating system",  # syslinux and Windows
    b"Missing OS",
    b"Invalid partition table",
)
"""Boot code that only loads the boot sector of the active partition."""
_NOT_BOOTABLE = b"This is not a bootable disk"  # what mkfs.fat and mkntfs write for code

_CD_BLOCK_BYTES = 2048
_RECORD_BLOCK = 17
_RECORD = b"\0CD001\x01EL TORITO SPECIFICATION"
_CATALOG = struct.Struct("<I")  # figure 7, at byte 71: where the catalog is
_CATALOG_AT = 71
_ENTRY = struct.Struct("<B7xI20x")  # figures 3 and 5: bootable or not, first block
_BOOTABLE, _EFI = 0x88, 0xEF
_HEADERS = (0x90, 0x91)  # of a section; figure 4


@frozen()
class UefiPrograms:
    """The programs of UEFI on a disk, each by its architecture; see ImageFacts for the words.

    Attributes:
        loaders: Those that firmware starts by itself.
        kernels: Unified kernel images, of `EFI/Linux`: it takes a loader, or a boot entry, to start them.
        is_whole: Whether all places were read.
    """

    loaders: frozenset[str]
    kernels: frozenset[str]
    is_whole: bool


def find_programs(read_at: ReadAt, table: PartitionTable | None) -> UefiPrograms:
    """Return the programs in `EFI` of the first FAT file system that has some.

    Firmware reads each file system that it can, whatever its partition's type, so all are read: EFI system
    partitions first. The name of a loader says which firmware looks for it, the PE header which can run it: one of
    another architecture, or that is no PE, starts nowhere.
    """
    is_whole = table is None or table.is_whole
    try:
        starts = _starts(read_at, table)
    except TooFarError:
        return UefiPrograms(frozenset(), frozenset(), is_whole=False)
    kernels: frozenset[str] = frozenset()
    for start in starts:
        try:
            volume = fat.FatVolume(read_at, start)
            loaders = _loaders(volume)
            kernels = kernels or _kernels(volume)
        except TooFarError:
            is_whole = False
            continue
        if loaders:
            return UefiPrograms(loaders, kernels, is_whole)
    return UefiPrograms(frozenset(), kernels, is_whole)


def _starts(read_at: ReadAt, table: PartitionTable | None) -> list[int]:
    """Return where FAT file systems may begin, in bytes, in the order in which they are read."""
    images = _el_torito_images(read_at)
    if table is None:
        return [0, *images]
    ordered = sorted(table.partitions, key=lambda one: (one.kind is not PartitionKind.ESP, one.start))
    return list(dict.fromkeys([*(one.start for one in ordered), *images]))[:_MAX_VOLUMES]


def _loaders(volume: fat.FatVolume) -> frozenset[str]:
    found = set()
    for entry in volume.list("EFI", "BOOT"):
        wanted = LOADERS.get(entry.name)
        if wanted and not entry.is_directory and _machine(volume.head(entry, _LOADER_BYTES)) == wanted:
            found.add(wanted)
    return frozenset(found)


def _kernels(volume: fat.FatVolume) -> frozenset[str]:
    files = [one for one in volume.list("EFI", "LINUX") if one.name.endswith(".EFI") and not one.is_directory]
    machines = {_machine(volume.head(one, _LOADER_BYTES)) for one in files[:_MAX_KERNELS]}
    return frozenset(machine for machine in machines if machine)


def _machine(head: bytes) -> str | None:
    """Return the architecture of a PE program; see ImageFacts for the words."""
    if not head.startswith(b"MZ"):
        return None
    start = int.from_bytes(head[_PE_OFFSET : _PE_OFFSET + 4], "little")
    if head[start : start + 4] != b"PE\0\0":
        return None
    return _MACHINES.get(int.from_bytes(head[start + 4 : start + 6], "little"))


def _el_torito_images(read_at: ReadAt) -> list[int]:
    """Return where the boot images for UEFI firmware begin, in bytes; empty if there are none."""
    record = read_at(_RECORD_BLOCK * _CD_BLOCK_BYTES, _CD_BLOCK_BYTES)
    if len(record) < _CD_BLOCK_BYTES or not record.startswith(_RECORD):
        return []
    (block,) = _CATALOG.unpack_from(record, _CATALOG_AT)
    catalog = read_at(block * _CD_BLOCK_BYTES, _CD_BLOCK_BYTES)
    found = []
    platform = catalog[1:2]
    for at in range(_ENTRY.size, len(catalog) - _ENTRY.size + 1, _ENTRY.size):
        kind, first = _ENTRY.unpack_from(catalog, at)
        if kind in _HEADERS:
            platform = catalog[at + 1 : at + 2]
        elif kind == _BOOTABLE and platform == bytes([_EFI]):
            found.append(first * _CD_BLOCK_BYTES)
    return found


def boots_bios(read_at: ReadAt, table: PartitionTable | None) -> bool | None:
    """Return whether a BIOS starts the disk; None if that can't be told."""
    sector = read_at(0, _SECTOR_BYTES)
    if table is None:
        return _has_code(sector, _BOOT_PARAMETER_BYTES)
    code = sector[:_CODE_BYTES]
    if not any(code) or table.sector_bytes != _SECTOR_BYTES:
        return False
    if any(name in code for name in _SELF_SUFFICIENT):
        return True
    is_chain = any(mark in code for mark in _CHAINS)
    if not is_chain and any(one.kind is PartitionKind.BIOS_BOOT for one in table.partitions):
        return True
    try:
        followed = [_has_code(read_at(one.start, _SECTOR_BYTES), 0) for one in table.partitions if one.is_active]
    except TooFarError:
        return None
    if any(followed):
        return True
    return False if is_chain and table.is_whole else None  # other code may know more places than the active partition


def _has_code(sector: bytes, start: int) -> bool:
    """Return whether a sector has boot code."""
    return sector.endswith(_SIGNATURE) and any(sector[start:_CODE_BYTES]) and _NOT_BOOTABLE not in sector
