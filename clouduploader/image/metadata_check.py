"""Refuse virtual disks that are cut off: all that their tables point to must lie inside the file.

QEMU reads what lies behind the end of a file as zeros, so that a file that was cut off is, to it, a disk with fewer
data: tables that are gone are holes, and `qemu-img check` passes what lacks less than a cluster. A dynamic VHD is
left to QEMU, which refuses one that is cut off.
"""

import os
import struct
import sys
import zlib
from array import array
from collections.abc import Iterator

from clouduploader.errors import ImageError, LocalIOError
from clouduploader.model.disk import DiskFormat
from clouduploader.util.cancel import Cancel

MAX_TABLES = 1 << 18  # ours: of the second level, some 25 MB to remember; 128 TiB of qcow2 as all tools make it
_SECTOR_BYTES = 512
_PART_BYTES = 1 << 20  # read at a time

# QEMU, docs/interop/qcow2.rst: version, cluster_bits, size, l1_size, l1_table_offset, incompatible_features
_QCOW2 = struct.Struct(">4sI12xIQ4xIQ24xQ")
_CLUSTER_BITS = range(9, 22)  # what QEMU takes, block/qcow2.h
_ZSTD, _EXTENDED_L2 = 1 << 3, 1 << 4  # incompatible feature bits; the first is for any compression that is not deflate
_OFFSET = 0x00FF_FFFF_FFFF_FE00  # "L1 table entry", "Standard Cluster Descriptor": bits 9 to 55
_COMPRESSED, _ZEROS = 1 << 62, 1 << 0  # "L2 table entry"
_SUBCLUSTERS = 32  # "Extended L2 Entries"

# Virtual Disk Format 5.0, VMware, "Hosted Sparse Extent Header":
# version, flags, capacity, grainSize, numGTEsPerGT, gdOffset
_VMDK = struct.Struct("<4sIIQQ16xI8xQ")
_COMPRESSED_GRAINS = 1 << 16  # of the flags
_MAX_IN_TABLE = 512  # what QEMU takes, block/vmdk.c
_AT_END = (1 << 64) - 1  # the directory is found by a footer, without which QEMU takes the file for damaged


class _File:
    """A file that raises an error where it is too short."""

    def __init__(self, fd: int, filename: str, cancel: Cancel) -> None:
        self.filename = filename
        self.size_bytes = os.fstat(fd).st_size
        self._fd, self._cancel = fd, cancel

    def head(self, layout: struct.Struct) -> tuple[int, ...]:
        """Return the fields of the header; zeros where the file ends before."""
        return layout.unpack(self._pread(0, layout.size).ljust(layout.size, b"\0"))

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes, all of which must be there."""
        self._cancel.raise_if_requested()
        self.check_end(offset + size)
        return self._pread(offset, size)

    def check_end(self, end: int) -> None:
        """Check that the file reaches this far."""
        if end > self.size_bytes:
            raise ImageError(
                f"{self.filename} is cut off or damaged: it ends at byte {self.size_bytes}, and by its tables there "
                f"are data up to byte {end}"
            )

    def tables(self, offset: int, count: int, code: str, scale: int, table_bytes: int) -> Iterator[tuple[int, bytes]]:
        """Yield the tables of the second level, each once, with the numbers of their entries in the first.

        Args:
            offset: Of the first level.
            count: Of its entries.
            code: Of an entry, as `array` has it; big-endian if it is "Q".
            scale: What an entry is to be multiplied with; its bits that are no offset are left aside.
            table_bytes: Of a table of the second level.
        """
        seen: set[int] = set()
        size = 8 if code == "Q" else 4
        self.check_end(offset + count * size)
        for start in range(0, count, _PART_BYTES // size):
            part = self.read(offset + start * size, min(count - start, _PART_BYTES // size) * size)
            for number, entry in enumerate(numbers(code, part), start):
                place = (entry & _OFFSET if code == "Q" else entry) * scale
                if not place or place in seen:
                    continue
                if len(seen) == MAX_TABLES:
                    raise ImageError(
                        f"{self.filename} has more than {MAX_TABLES} tables of where its data are",
                        hint="qemu-img convert makes a disk of larger clusters, with fewer tables.",
                    )
                seen.add(place)
                table = self.read(place, table_bytes)
                if table.count(0) < len(table):
                    yield number, table

    def _pread(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._fd, size, offset)
        except (OSError, OverflowError) as exc:
            raise LocalIOError(f"the image {self.filename} can't be read at byte {offset}: {exc}") from exc


def check(fd: int, disk_format: DiskFormat, filename: str, cancel: Cancel) -> None:
    """Check the tables of a virtual disk; takes about 0.1 s for each 100 GiB of it.

    A header that makes no sense is left to QEMU.

    Args:
        fd: Of the file.
        disk_format: See DiskFormat; nothing is done but for QCOW2 and VMDK.
        filename: For errors.
        cancel: Honoured at each table.

    Raises:
        ImageError: Something lies behind the end of the file.
        LocalIOError: It can't be read.
        StoppedError: The stop was requested.
    """
    file = _File(fd, filename, cancel)
    if disk_format is DiskFormat.QCOW2:
        _check_qcow2(file)
    elif disk_format is DiskFormat.VMDK:
        _check_vmdk(file)


def numbers(code: str, data: bytes) -> "array[int]":
    """Return numbers of 8 bytes, big-endian ("Q"), or of 4, little-endian ("I")."""
    found = array(code, data)
    if sys.byteorder != ("big" if code == "Q" else "little"):
        found.byteswap()
    return found


def _check_qcow2(file: _File) -> None:
    _, version, bits, disk_bytes, count, offset, features = file.head(_QCOW2)
    if bits not in _CLUSTER_BITS:
        return
    features *= version > 2  # version 2 ends before them
    is_extended = bool(features & _EXTENDED_L2)
    cluster_bytes = 1 << bits
    in_table = cluster_bytes // (16 if is_extended else 8)
    mask = (1 << 70 - bits) - 1  # "Compressed Clusters Descriptor": the offset, below the number of sectors
    needed = -(-disk_bytes // (in_table * cluster_bytes))
    last = size = packed = 0  # where the last cluster of the file lies, how much of it counts; the last compressed one
    for number, table in file.tables(offset, min(count, needed), "Q", 1, cluster_bytes):
        entries = numbers("Q", table)
        bitmaps = entries[1::2]
        entries = entries[::2] if is_extended else entries
        places = [0 if entry & (_COMPRESSED | _ZEROS) else entry & _OFFSET for entry in entries]
        place = max(places)
        if place > last:
            index = places.index(place)
            last, size = place, min(cluster_bytes, disk_bytes - (number * in_table + index) * cluster_bytes)
            if is_extended:  # the bits from the highest on are of what was never written
                size = min(size, (bitmaps[index] & 0xFFFFFFFF).bit_length() * cluster_bytes // _SUBCLUSTERS)
        packed = max([packed, *(entry for entry in entries if entry & _COMPRESSED)], key=mask.__and__)
    file.check_end(last + max(size, 0))
    if packed:
        start, sectors = packed & mask, (packed & _COMPRESSED - 1) >> 70 - bits
        end = (start // _SECTOR_BYTES + sectors + 1) * _SECTOR_BYTES
        # The file may end where the data do, within the last sector. QEMU notices what zstd lacks, but not deflate.
        is_within = end - _SECTOR_BYTES < file.size_bytes < end
        if not (
            is_within and (features & _ZSTD or _is_whole(file.read(start, file.size_bytes - start), cluster_bytes))
        ):
            file.check_end(end)


def _is_whole(deflated: bytes, cluster_bytes: int) -> bool:
    decoder = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        decoder.decompress(deflated, cluster_bytes + 1)
    except zlib.error:
        return False
    return decoder.eof


def _check_vmdk(file: _File) -> None:
    _, _, flags, sectors, grain_sectors, in_table, offset = file.head(_VMDK)
    if offset == _AT_END or not grain_sectors or not 0 < in_table <= _MAX_IN_TABLE:
        return
    needed = -(-sectors // (in_table * grain_sectors))
    last = size = 0
    for number, table in file.tables(offset * _SECTOR_BYTES, needed, "I", _SECTOR_BYTES, in_table * 4):
        entries = numbers("I", table)  # 0 is a hole, 1 a grain of zeros
        place = max(entries)
        if place > last:
            index = number * in_table + entries.index(place)
            last, size = place, min(grain_sectors, sectors - index * grain_sectors)
    if flags & _COMPRESSED_GRAINS:
        size = 1  # of which QEMU finds the end, and whether it is damaged
    file.check_end((last + max(size, 0)) * _SECTOR_BYTES)
