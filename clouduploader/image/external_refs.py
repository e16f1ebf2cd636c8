"""Refuse virtual disks that refer to other files.

Checked here, before any program opens the disk: qemu-img opens the external data file of a qcow2 even
to show its header (CVE-2024-4467).
"""

import os
import struct

from clouduploader.errors import ImageError, LocalIOError
from clouduploader.model import vhd
from clouduploader.model.disk import DiskFormat

MAX_DISK_BYTES = 1 << 46  # 64 TiB: no cloud that is known has a larger disk
_HEAD_BYTES = 512
_QCOW2 = struct.Struct(">4sIQIIQI36xQ")  # QEMU, docs/interop/qcow2.rst; the last is read of version 3 only
_QCOW2_EXTERNAL = 1 << 2  # incompatible feature bit: the data are in another file
_VMDK = struct.Struct("<4sIIQQQQ")  # Virtual Disk Format 5.0, VMware, "Hosted Sparse Extent Header"
_SECTOR_BYTES = 512
_DESCRIPTOR_BYTES = 20 * _SECTOR_BYTES  # the most that QEMU reads of one, block/vmdk.c
_DESCRIPTOR_OFFSET = 0x200  # where QEMU looks for the name of a parent, whatever the header says
_PARENTS = (b"parentFileNameHint", b"parentfilenamehint")
_KINDS = (b"monolithicSparse", b"streamOptimized")  # the ones with all in one file


def check(fd: int, disk_format: DiskFormat, filename: str) -> None:
    """Refuse a virtual disk that names other files, is encrypted, or absurd.

    Args:
        fd: Of the file.
        disk_format: QCOW2, VMDK or VHD_DYNAMIC.
        filename: For errors.

    Raises:
        ImageError: See above.
        LocalIOError: It can't be read.
    """
    size_bytes = _size(fd, disk_format, filename)
    if not 0 < size_bytes <= MAX_DISK_BYTES:
        raise ImageError(f"{filename} claims to be a disk of {size_bytes} bytes")


def _size(fd: int, disk_format: DiskFormat, filename: str) -> int:
    """Return the size in bytes of the raw disk, as the header has it."""
    head = _read(fd, 0, _HEAD_BYTES, filename)
    match disk_format:
        case DiskFormat.QCOW2:
            return _qcow2_size(head, filename)
        case DiskFormat.VMDK:
            return _vmdk_size(fd, head, filename)
        case DiskFormat.VHD_DYNAMIC:
            footer = vhd.parse_footer(head)
            if footer is None:
                raise _damaged(filename)
            if footer.kind is not vhd.VhdKind.DYNAMIC:
                raise ImageError(f"{filename} is a {footer.kind.name.lower()} VHD, not a dynamic one")
            return footer.size_bytes
        case _:
            raise AssertionError(disk_format)


def _qcow2_size(head: bytes, filename: str) -> int:
    magic, version, backing, _, _, size_bytes, encryption, features = _QCOW2.unpack_from(head.ljust(_QCOW2.size, b"\0"))
    if magic != b"QFI\xfb" or version not in (2, 3):
        raise _damaged(filename)
    if backing:
        raise _led_away(filename, "a backing file")
    if encryption:
        raise ImageError(f"{filename} is encrypted")
    if version == 3 and features & _QCOW2_EXTERNAL:
        raise _led_away(filename, "an external data file")
    return int(size_bytes)


def _vmdk_size(fd: int, head: bytes, filename: str) -> int:
    magic, _, _, sectors, _, descriptor, _ = _VMDK.unpack_from(head.ljust(_VMDK.size, b"\0"))
    if magic != b"KDMV" or not sectors:  # a text that names extents, or a header that QEMU takes for one
        raise _led_away(filename, "extents in other files")
    texts = [
        _read(fd, offset, _DESCRIPTOR_BYTES, filename)
        for offset in {_DESCRIPTOR_OFFSET, descriptor * _SECTOR_BYTES}
        if offset + _DESCRIPTOR_BYTES < 1 << 63  # what pread takes
    ]
    if any(name in text for name in _PARENTS for text in texts):
        raise _led_away(filename, "a parent disk")
    if not any(kind in text for kind in _KINDS for text in texts):
        raise ImageError(f"{filename} is a VMDK of another kind than {' and '.join(map(bytes.decode, _KINDS))}")
    return int(sectors) * _SECTOR_BYTES


def _read(fd: int, offset: int, size_bytes: int, filename: str) -> bytes:
    try:
        return os.pread(fd, size_bytes, offset)
    except OSError as exc:
        raise LocalIOError(f"the image {filename} can't be read: {exc.strerror}") from exc


def _damaged(filename: str) -> ImageError:
    return ImageError(f"the header of {filename} is damaged")


def _led_away(filename: str, what: str) -> ImageError:
    return ImageError(f"{filename} has {what}", hint="Make one file of it: qemu-img convert -O qcow2 OLD NEW.")
