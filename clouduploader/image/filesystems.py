"""The size of a bare file system by its superblock: the kernel mounts none that is larger than its disk."""

import struct

from clouduploader.image.partitions import ReadAt

_EXT, _EXT_64BIT = 0x400, 0x80  # ext4's documentation, "The Super Block"
_MAX_SHIFT = 16  # blocks of 64 KiB; what tells of larger ones is no superblock


def find_end(read_at: ReadAt) -> int:
    """Return where the file system ends that begins with the disk, in bytes; 0 if there is none of a known kind.

    Args:
        read_at: Reads the disk; no bytes raise an error.
    """
    return max(
        _ext(read_at),
        _product(read_at, 0, b"XFSB", ">4xIQ"),  # XFS Algorithms & Data Structures, "Superblocks"
        _shifted(read_at, 0x400, b"\x10\x20\xf5\xf2", "<16xI16xQ"),  # F2FS, include/linux/f2fs_fs.h
        _shifted(read_at, 0x400, b"\xe2\xe1\xf5\xe0", "<12xB23xI"),  # EROFS, fs/erofs/erofs_fs.h
        _plain(read_at, 0, b"hsqs", "<40xQ"),  # Documentation/filesystems/squashfs.rst
        # btrfs' documentation, "On-disk format": the size of this device; there may be others
        _plain(read_at, 0x10040, b"_BHRfS_M", "<145xQ"),
    )


def _fields(read_at: ReadAt, offset: int, magic: bytes, form: str) -> tuple[int, ...] | None:
    """Return the numbers behind a magic; None if they are not there."""
    data = read_at(offset, struct.calcsize(form))
    return struct.unpack(form, data) if data.startswith(magic) and len(data) == struct.calcsize(form) else None


def _plain(read_at: ReadAt, offset: int, magic: bytes, form: str) -> int:
    found = _fields(read_at, offset, magic, form)
    return found[0] if found else 0


def _product(read_at: ReadAt, offset: int, magic: bytes, form: str) -> int:
    found = _fields(read_at, offset, magic, form)
    return found[0] * found[1] if found and found[0] <= 1 << _MAX_SHIFT else 0


def _shifted(read_at: ReadAt, offset: int, magic: bytes, form: str) -> int:
    found = _fields(read_at, offset, magic, form)
    return found[1] << found[0] if found and found[0] <= _MAX_SHIFT else 0


def _ext(read_at: ReadAt) -> int:
    found = _fields(read_at, _EXT, b"", "<4xI16xI28xH38xI236xI")
    if not found:
        return 0
    low, shift, magic, incompatible, high = found
    if magic != 0xEF53 or shift > _MAX_SHIFT - 10:
        return 0
    return (low + ((high << 32) if incompatible & _EXT_64BIT else 0)) << (10 + shift)
