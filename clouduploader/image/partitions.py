"""The partition table of a disk: GPT (UEFI specification 2.10, chapter 5) or MBR."""

import binascii
import dataclasses
import enum
import struct
import uuid
from collections.abc import Callable, Iterable, Iterator

from clouduploader.image.partial_read import TooFarError
from clouduploader.model.disk import MISSING_COPY
from clouduploader.util.frozen import frozen

ReadAt = Callable[[int, int], bytes]
"""Offset and size in bytes; fewer bytes than asked for where the disk ends. It may raise TooFarError."""

SECTOR_BYTES = 512  # of the disks that clouds have; the MBR's is always taken for it
_SECTOR_SIZES = (512, 4096)  # of the disks that a table may have been made on
_SIGNATURE = b"\x55\xaa"
_MBR_ENTRIES, _MBR_ENTRY = 446, struct.Struct("<B3xB3xII")  # state, type, first sector, number of sectors
_ACTIVE = 0x80
_PROTECTIVE, _MBR_ESP = 0xEE, 0xEF  # UEFI 5.2.2 and 5.2.3
_EXTENDED = (0x05, 0x0F, 0x85)
_MAX_LOGICAL = 60  # ours; Linux shows as many on most disks
_ISO_OFFSET, _ISO = 0x8001, b"CD001"  # ECMA-119, 8.1: isohybrid's first partition is the whole disk

_GPT_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")  # UEFI 5.3.2, table 5.5
_GPT_CRC = slice(16, 20)
_GPT_ENTRY = struct.Struct("<16s16sQQQ72x")  # UEFI 5.3.3, table 5.6; longer ones may come
_GPT_ARRAY_BYTES = 1 << 20  # ours: 64 times what all tools write
_LEGACY_BOOTABLE = 1 << 2  # UEFI 5.3.3, table 5.8; what syslinux's gptmbr.bin looks for


class PartitionKind(enum.Enum):
    """What a partition is for."""

    ESP = "EFI system partition"
    BIOS_BOOT = "BIOS boot partition"
    OTHER = "other"


_GPT_KINDS = {
    uuid.UUID("C12A7328-F81F-11D2-BA4B-00A0C93EC93B"): PartitionKind.ESP,  # UEFI 5.3.3, table 5.7
    uuid.UUID("21686148-6449-6E6F-744E-656564454649"): PartitionKind.BIOS_BOOT,  # GRUB manual, "BIOS installation"
    uuid.UUID("83BD6B9D-7F41-11DC-BE0B-001560B84F0F"): PartitionKind.BIOS_BOOT,  # freebsd-boot, gpart(8)
}


@frozen()
class Partition:
    """A partition.

    Attributes:
        start: Its first byte.
        end: The byte behind its last.
        kind: See PartitionKind.
        is_active: Whether boot code in the first sector may load this one's.
    """

    start: int
    end: int
    kind: PartitionKind
    is_active: bool


@frozen(kw_only=True)
class PartitionTable:
    """A partition table.

    Attributes:
        name: "gpt" or "mbr".
        partitions: In the order of the disk.
        sector_bytes: What it counts in.
        minimum_bytes: Where the last partition ends.
        copy_bytes: Where a GPT's copy, at the end of the disk that it was made for, ends; 0 for an MBR.
        is_whole: Whether these are all partitions: a GPT can be damaged, and others lie too far behind.
        warnings: What is wrong with it, each a clause.
    """

    name: str
    partitions: tuple[Partition, ...]
    sector_bytes: int = SECTOR_BYTES
    minimum_bytes: int = 0
    copy_bytes: int = 0
    is_whole: bool = True
    warnings: tuple[str, ...] = ()


def is_iso(read_at: ReadAt) -> bool:
    """Return whether there is an ISO 9660 file system."""
    return read_at(_ISO_OFFSET, len(_ISO)) == _ISO


def read(read_at: ReadAt, size_bytes: int | None = None) -> PartitionTable | None:
    """Read the table of a disk; no bytes raise an error.

    Args:
        read_at: Reads the disk.
        size_bytes: Of the disk, where its end can be read too, as firmware does for the copy of a GPT.

    Returns:
        None if there is none, as in a bare file system.
    """
    entries = _mbr_entries(read_at(0, SECTOR_BYTES))
    if any(not partition.start for _, partition in entries) and not is_iso(read_at):
        return None  # no table, but what a file system has in that place
    if not entries:
        return None
    others = [partition for type_, partition in entries if type_ != _PROTECTIVE]
    if len(others) < len(entries):
        if found := _gpt(read_at, size_bytes):
            hybrid = [one for one in others if one.is_active]  # for boot code, that knows no GPT
            return dataclasses.replace(found, partitions=_in_order({*found.partitions, *hybrid}))
        where = "" if size_bytes else ", as far as that can be told of a packed disk, whose end is not read"
        return _table("mbr" if others else "gpt", others, is_whole=False, warnings=(f"its GPT is damaged{where}",))
    is_whole = True
    try:
        for _, extended in [entry for entry in entries if entry[0] in _EXTENDED]:
            others += _logical(read_at, extended.start)
    except TooFarError:
        is_whole = False
    return _table("mbr", others, is_whole=is_whole)


def _table(
    name: str, partitions: Iterable[Partition], *, is_whole: bool, warnings: tuple[str, ...] = ()
) -> PartitionTable:
    ordered = _in_order(partitions)
    end = max((one.end for one in ordered), default=0)
    return PartitionTable(name=name, partitions=ordered, minimum_bytes=end, is_whole=is_whole, warnings=warnings)


def _mbr_entries(sector: bytes) -> list[tuple[int, Partition]]:
    """Return the types and partitions of an MBR; none if it is anything else, as the first sector of a file system."""
    if len(sector) != SECTOR_BYTES or not sector.endswith(_SIGNATURE):
        return []
    found = []
    for state, type_, first, count in _MBR_ENTRY.iter_unpack(sector[_MBR_ENTRIES:-2]):
        if state not in (0, _ACTIVE):
            return []
        if (type_ or state) and count:  # isohybrid's active one is of type 0
            kind = PartitionKind.ESP if type_ == _MBR_ESP else PartitionKind.OTHER
            found.append((type_, Partition(first * 512, (first + count) * 512, kind, state == _ACTIVE)))
    return found


def _logical(read_at: ReadAt, base: int) -> Iterator[Partition]:
    """Yield the partitions in an extended one: a chain of tables, each with a partition and a link to the next."""
    here = base
    for _ in range(_MAX_LOGICAL):
        follower = None
        for type_, one in _mbr_entries(read_at(here, SECTOR_BYTES)):
            if type_ in _EXTENDED:
                follower = base + one.start
            else:
                yield dataclasses.replace(one, start=here + one.start, end=here + one.end)
        if follower is None or follower <= here:
            return
        here = follower


def _gpt(read_at: ReadAt, size_bytes: int | None) -> PartitionTable | None:
    """Return the first table that is sound: at the beginning, else at the end of the disk."""
    for sector_bytes in _SECTOR_SIZES:
        if found := _gpt_at(read_at, sector_bytes, 1):
            is_copy_there = size_bytes is None or _has_copy(read_at, found, size_bytes)
            return found if is_copy_there else dataclasses.replace(found, warnings=(MISSING_COPY,))
    for sector_bytes in _SECTOR_SIZES if size_bytes else ():
        if found := _gpt_at(read_at, sector_bytes, (size_bytes or 0) // sector_bytes - 1):
            warning = "its GPT is damaged, only the copy at the end of the disk is whole"
            return dataclasses.replace(found, copy_bytes=size_bytes or 0, warnings=(warning,))
    return None


def _has_copy(read_at: ReadAt, table: PartitionTable, size_bytes: int) -> bool:
    here = table.copy_bytes // table.sector_bytes - 1
    return table.copy_bytes <= size_bytes and _gpt_at(read_at, table.sector_bytes, here) is not None


def _gpt_at(read_at: ReadAt, sector_bytes: int, place: int) -> PartitionTable | None:
    """Return the table whose header is in this sector; None if header or array are not what their checksums say."""
    if place < 1:
        return None  # a disk too small for one
    sector = read_at(place * sector_bytes, sector_bytes)
    if len(sector) != sector_bytes:
        return None
    (signature, _, header_bytes, crc, _, here, copy, _, _, _, array, count, entry_bytes, array_crc) = (
        _GPT_HEADER.unpack_from(sector)
    )
    if signature != b"EFI PART" or here != place or not _GPT_HEADER.size <= header_bytes <= sector_bytes:
        return None
    header = bytearray(sector[:header_bytes])
    header[_GPT_CRC] = bytes(4)
    if binascii.crc32(header) != crc:
        return None
    if entry_bytes < _GPT_ENTRY.size or count * entry_bytes > _GPT_ARRAY_BYTES:
        return None
    try:
        data = read_at(array * sector_bytes, count * entry_bytes)
    except TooFarError:
        return None
    if len(data) != count * entry_bytes or binascii.crc32(data) != array_crc:
        return None
    partitions = _in_order(_gpt_partitions(data, entry_bytes, sector_bytes))
    return PartitionTable(
        name="gpt",
        partitions=partitions,
        sector_bytes=sector_bytes,
        minimum_bytes=max((one.end for one in partitions), default=0),
        copy_bytes=(copy + 1) * sector_bytes,
    )


def _gpt_partitions(data: bytes, entry_bytes: int, sector_bytes: int) -> Iterator[Partition]:
    for offset in range(0, len(data), entry_bytes):
        type_, _, first, last, attributes = _GPT_ENTRY.unpack_from(data, offset)
        if any(type_) and first <= last:
            kind = _GPT_KINDS.get(uuid.UUID(bytes_le=type_), PartitionKind.OTHER)
            is_active = bool(attributes & _LEGACY_BOOTABLE)
            yield Partition(first * sector_bytes, (last + 1) * sector_bytes, kind, is_active)


def _in_order(partitions: Iterable[Partition]) -> tuple[Partition, ...]:
    return tuple(sorted(partitions, key=lambda one: (one.start, one.end)))
