"""The partition table of a disk: GPT (UEFI specification 2.10, chapter 5) or MBR."""

import binascii
import dataclasses
import enum
import struct
import uuid
from collections.abc import Callable, Iterable, Iterator

ReadAt = Callable[[int, int], bytes]
"""Offset and size in bytes; fewer bytes than asked for where the disk ends, or what may be read of it."""

SECTOR_SIZES = (512, 4096)  # of the disks there are; the MBR's is always taken for 512
_MBR_BYTES = 512
_SIGNATURE = b"\x55\xaa"
_BOOT_CODE_BYTES = 440  # UEFI 5.2.1, table 5.1
_MBR_ENTRIES, _MBR_ENTRY = 446, struct.Struct("<B3xB3xII")  # state, type, first sector, number of sectors
_ACTIVE = 0x80
_PROTECTIVE, _MBR_ESP = 0xEE, 0xEF  # UEFI 5.2.2 and 5.2.3
_ISO_OFFSET, _ISO = 0x8001, b"CD001"  # ECMA-119, 8.1: isohybrid's first partition is the whole disk
_SELF_SUFFICIENT = (b"GRUB", b"LILO")  # boot code that knows itself where to go on; others' needs an active partition

_GPT_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")  # UEFI 5.3.2, table 5.5
_GPT_CRC = slice(16, 20)
_GPT_ENTRY = struct.Struct("<16s16sQQQ72x")  # UEFI 5.3.3, table 5.6; longer ones may come
_GPT_ARRAY_BYTES = 1 << 20  # ours: 64 times what all tools write
_LEGACY_BOOTABLE = 1 << 2  # UEFI 5.3.3, table 5.8; what syslinux's gptmbr.bin looks for


class Kind(enum.Enum):
    """What a partition is for."""

    ESP = "EFI system partition"
    BIOS_BOOT = "BIOS boot partition"
    OTHER = "other"


_GPT_KINDS = {
    uuid.UUID("C12A7328-F81F-11D2-BA4B-00A0C93EC93B"): Kind.ESP,  # UEFI 5.3.3, table 5.7
    uuid.UUID("21686148-6449-6E6F-744E-656564454649"): Kind.BIOS_BOOT,  # GRUB manual, "BIOS installation"
}


@dataclasses.dataclass(frozen=True)
class Partition:
    """A partition.

    Attributes:
        start: Its first byte.
        end: The byte behind its last.
        kind: See Kind.
        is_active: Whether boot code in the first sector may go on there.
    """

    start: int
    end: int
    kind: Kind
    is_active: bool


@dataclasses.dataclass(frozen=True)
class Table:
    """A partition table.

    Attributes:
        name: "gpt" or "mbr".
        partitions: In the order of the disk.
        minimum_bytes: Where the last partition, and a GPT's copy at the end, end.
        boots_bios: Whether there is boot code in the first sector, and what it needs.
    """

    name: str
    partitions: tuple[Partition, ...]
    minimum_bytes: int
    boots_bios: bool


def read(read_at: ReadAt) -> Table | None:
    """Read the table at the beginning of a disk; whatever the bytes are, there is no error.

    Returns:
        None if there is none, as in a bare file system, or if it is damaged.
    """
    sector = read_at(0, _MBR_BYTES)
    entries = _mbr_entries(sector)
    if any(not partition.start for _, partition in entries) and read_at(_ISO_OFFSET, len(_ISO)) != _ISO:
        return None  # no table, but what a file system has in that place
    if not entries:
        return None
    partitions = [partition for type_, partition in entries if type_ != _PROTECTIVE]
    code = sector[:_BOOT_CODE_BYTES]
    has_code = any(code)
    has_active = any(partition.is_active for partition in partitions)
    if len(partitions) < len(entries):
        for sector_bytes in SECTOR_SIZES:
            found = _gpt(read_at, sector_bytes)
            if found:
                own, minimum_bytes = found
                has_place = has_active or any(one.is_active or one.kind is Kind.BIOS_BOOT for one in own)
                return Table("gpt", own, minimum_bytes, has_code and has_place)
    if not partitions:
        return None  # a GPT that is damaged
    knows_place = has_active or any(name in code for name in _SELF_SUFFICIENT)
    return Table("mbr", _in_order(partitions), max(one.end for one in partitions), has_code and knows_place)


def _mbr_entries(sector: bytes) -> list[tuple[int, Partition]]:
    """The types and partitions of an MBR; none if it is anything else, such as most file systems' first sectors."""
    if len(sector) != _MBR_BYTES or not sector.endswith(_SIGNATURE):
        return []
    found = []
    for state, type_, first, count in _MBR_ENTRY.iter_unpack(sector[_MBR_ENTRIES:-2]):
        if state not in (0, _ACTIVE):
            return []
        if type_ and count:
            kind = Kind.ESP if type_ == _MBR_ESP else Kind.OTHER
            found.append((type_, Partition(first * 512, (first + count) * 512, kind, state == _ACTIVE)))
    return found


def _gpt(read_at: ReadAt, sector_bytes: int) -> tuple[tuple[Partition, ...], int] | None:
    """The partitions and the least size; None if header or array are not what their checksums say."""
    sector = read_at(sector_bytes, sector_bytes)
    if len(sector) != sector_bytes:
        return None
    (signature, _, header_bytes, crc, _, here, copy, _, _, _, array, count, entry_bytes, array_crc) = (
        _GPT_HEADER.unpack_from(sector)
    )
    if signature != b"EFI PART" or here != 1 or not _GPT_HEADER.size <= header_bytes <= sector_bytes:
        return None
    header = bytearray(sector[:header_bytes])
    header[_GPT_CRC] = bytes(4)
    if binascii.crc32(header) != crc:
        return None
    if entry_bytes < _GPT_ENTRY.size or count * entry_bytes > _GPT_ARRAY_BYTES:
        return None
    data = read_at(array * sector_bytes, count * entry_bytes)
    if len(data) != count * entry_bytes or binascii.crc32(data) != array_crc:
        return None
    partitions = _in_order(_gpt_partitions(data, entry_bytes, sector_bytes))
    return partitions, max([(copy + 1) * sector_bytes, *(one.end for one in partitions)])


def _gpt_partitions(data: bytes, entry_bytes: int, sector_bytes: int) -> Iterator[Partition]:
    for offset in range(0, len(data), entry_bytes):
        type_, _, first, last, attributes = _GPT_ENTRY.unpack_from(data, offset)
        if any(type_) and first <= last:
            kind = _GPT_KINDS.get(uuid.UUID(bytes_le=type_), Kind.OTHER)
            is_active = bool(attributes & _LEGACY_BOOTABLE)
            yield Partition(first * sector_bytes, (last + 1) * sector_bytes, kind, is_active)


def _in_order(partitions: Iterable[Partition]) -> tuple[Partition, ...]:
    return tuple(sorted(partitions, key=lambda one: (one.start, one.end)))
