"""Read FAT12, FAT16 and FAT32, as far as to list a directory and read the beginning of a file.

Source: Microsoft, FAT32 File System Specification 1.03.
"""

import struct

from clouduploader.image.partitions import ReadAt
from clouduploader.util.frozen import frozen

_BOOT_BYTES = 512
_BOOT = struct.Struct("<11xHBHBHHxHHHIII4xI")  # up to the root directory's cluster of FAT32
_SECTOR_SIZES = (512, 1024, 2048, 4096)
_FAT_CACHE_BYTES = 1 << 23  # ours: the FAT of 2 GiB in clusters of 1 KiB; what lies behind is read anew each time
_DIRECTORY_LIMIT_BYTES = 1 << 17  # ours: 4096 entries; a directory with boot loaders has ten
_MAX_FAT12, _MAX_FAT16 = 4085, 65525  # clusters that these kinds stay below; "FAT Type Determination"
_ENTRY = struct.Struct("<11sB8xH4xHI")
_DELETED, _END = 0xE5, 0x00
_LABEL, _DIRECTORY, _LONG_NAME = 0x08, 0x10, 0x0F  # attributes; parts of long names have that of a label too
_LONG_PARTS = (slice(1, 11), slice(14, 26), slice(28, 32))  # of UTF-16 in an entry, "Long Directory Entries"
_LONG_CHECKSUM, _LONG_LAST, _LONG_NUMBER = 13, 0x40, 0x3F


@frozen()
class DirectoryEntry:
    """A file or directory.

    Attributes:
        name: Upper case; the long one, if it has one.
        is_directory: Whether it is one.
        cluster: The first.
        size_bytes: Of a file.
    """

    name: str
    is_directory: bool
    cluster: int
    size_bytes: int


class FatVolume:
    """A FAT file system. No bytes raise an error: what can't be read isn't there.

    Args:
        read_at: Reads the disk.
        start: Where on the disk it begins.
    """

    def __init__(self, read_at: ReadAt, start: int) -> None:
        self._read_at = read_at
        self._bits = 0
        boot = read_at(start, _BOOT_BYTES)
        if len(boot) != _BOOT_BYTES or not boot.endswith(b"\x55\xaa"):
            return
        (
            sector_bytes, cluster_sectors, reserved, copies, root_entries, total16, fat16, _, _, _, total32, fat32,
            root,
        ) = _BOOT.unpack_from(boot)  # fmt: skip
        fat_bytes = (fat16 or fat32) * sector_bytes
        if sector_bytes not in _SECTOR_SIZES or not (cluster_sectors and reserved and copies and fat_bytes):
            return
        root_start = start + reserved * sector_bytes + copies * fat_bytes
        root_bytes = -(-root_entries * 32 // sector_bytes) * sector_bytes
        self._cluster_bytes = cluster_sectors * sector_bytes
        self._data_start = root_start + root_bytes
        end = start + (total16 or total32) * sector_bytes
        self._clusters = (end - self._data_start) // self._cluster_bytes
        self._root_cluster = root
        self._fat_start = start + reserved * sector_bytes
        self._fat_bytes = fat_bytes
        self._fat = read_at(self._fat_start, min(fat_bytes, _FAT_CACHE_BYTES))
        if fat16:
            self._bits = 12 if self._clusters < _MAX_FAT12 else 16
            self._root = read_at(root_start, min(root_bytes, _DIRECTORY_LIMIT_BYTES))
        else:
            self._bits = 32

    def list(self, *names: str) -> "list[DirectoryEntry]":
        """Return the entries of a directory, given by the names that lead to it; empty if there is none."""
        if not self._bits:
            return []
        data = self._chain(self._root_cluster, _DIRECTORY_LIMIT_BYTES) if self._bits == 32 else self._root
        for name in names:
            found = next((one for one in _entries(data) if one.name == name and one.is_directory), None)
            if found is None:
                return []
            data = self._chain(found.cluster, _DIRECTORY_LIMIT_BYTES)
        return _entries(data)

    def head(self, entry: DirectoryEntry, size: int) -> bytes:
        """Return the first bytes of a file."""
        return self._chain(entry.cluster, min(size, entry.size_bytes))

    def _chain(self, cluster: int, size: int) -> bytes:
        """Return the first bytes of a chain of clusters; `size` bounds a chain that is a ring."""
        pieces = []
        while size > 0 and 2 <= cluster < self._clusters + 2:
            wanted = min(size, self._cluster_bytes)
            piece = self._read_at(self._data_start + (cluster - 2) * self._cluster_bytes, wanted)
            pieces.append(piece)
            if len(piece) < wanted:
                break
            size -= wanted
            cluster = self._next(cluster)
        return b"".join(pieces)

    def _next(self, cluster: int) -> int:
        """Return the cluster that follows one, or a number that is none."""
        width = 4 if self._bits == 32 else 2
        offset = cluster * self._bits // 8
        data = self._fat[offset : offset + width]
        if not data and offset < self._fat_bytes:
            data = self._read_at(self._fat_start + offset, width)
        value = int.from_bytes(data.ljust(width, b"\0"), "little")
        if self._bits == 12:
            return value >> 4 if cluster % 2 else value & 0xFFF
        return value & 0x0FFFFFFF  # of 32 bits only 28 count


def _entries(data: bytes) -> list[DirectoryEntry]:
    found = []
    long_name = _LongName()
    for offset in range(0, len(data) // 32 * 32, 32):
        entry = data[offset : offset + 32]
        raw_name, attributes, high, low, size_bytes = _ENTRY.unpack(entry)
        if raw_name[0] == _END:
            break
        if raw_name[0] != _DELETED and attributes & _LONG_NAME == _LONG_NAME:
            long_name.take(entry)
            continue
        name, long_name = long_name.of(raw_name), _LongName()
        if raw_name[0] != _DELETED and not attributes & _LABEL:
            found.append(DirectoryEntry(name.upper(), bool(attributes & _DIRECTORY), high << 16 | low, size_bytes))
    return found


class _LongName:
    """A long name, whose parts come before the entry that it belongs to, the last one first."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._next = self._checksum = 0

    def take(self, entry: bytes) -> None:
        """Take the next part."""
        number = entry[0] & _LONG_NUMBER
        if entry[0] & _LONG_LAST:
            self._parts, self._checksum, self._next = [], entry[_LONG_CHECKSUM], number
        if number != self._next or entry[_LONG_CHECKSUM] != self._checksum:
            self._parts, self._next = [], 0
            return
        self._parts.insert(0, b"".join(entry[part] for part in _LONG_PARTS))
        self._next -= 1

    def of(self, raw_name: bytes) -> str:
        """Return the name of the entry with this short name: the long one, if it is whole and belongs to that."""
        checksum = 0
        for byte in raw_name:
            checksum = ((checksum >> 1 | checksum << 7) + byte) & 0xFF
        if self._parts and not self._next and checksum == self._checksum:
            return b"".join(self._parts).decode("utf-16-le", "replace").partition("\0")[0]
        stem, ending = (part.decode("latin-1").rstrip() for part in (raw_name[:8], raw_name[8:]))
        return f"{stem}.{ending}" if ending else stem
