"""What bytes are, by how they begin; names are never asked: in OBS's spool every image is `N.file`."""

from clouduploader.contents import DiskFormat
from clouduploader.image import vhd
from clouduploader.platform import Packing

HEAD_BYTES = 512  # all magics lie in it; a block of tar
PACKINGS = (
    (0, b"\xfd7zXZ\x00", Packing.XZ),  # xz file format 1.2.1, section 2.1.1.1
    (0, b"\x1f\x8b", Packing.GZIP),  # RFC 1952, section 2.3.1
    (0, b"BZh", Packing.BZIP2),
    (0, b"\x28\xb5\x2f\xfd", Packing.ZSTD),  # RFC 8878, section 3.1.1
    (1, b"\x2a\x4d\x18", Packing.ZSTD),  # section 3.1.2: a skippable frame, the first byte is 50 to 5f
    (257, b"ustar", Packing.TAR),  # POSIX.1-1988, kept by all tar formats since
)
DISK_FORMATS = (
    (b"QFI\xfb", DiskFormat.QCOW2),  # docs/interop/qcow2.txt of QEMU; version 1 of the format too
    (b"KDMV", DiskFormat.VMDK),  # Virtual Disk Format 5.0, VMware, "Hosted Sparse Extents"
    (vhd.COOKIE, DiskFormat.VHD_DYNAMIC),  # begins with a copy of its footer; a fixed one begins with the disk
)
FOREIGN_FORMATS = (
    (0, b"# Disk DescriptorFile", "the descriptor of a VMDK"),  # Virtual Disk Format 5.0, "The Descriptor File"
    (0, b"COWD", "a VMDK of ESX"),  # the same, "ESX Server Sparse Extents"
    (0, b"vhdxfile", "a VHDX"),  # MS-VHDX, 2.2.1
    (64, b"\x7f\x10\xda\xbe", "a VDI"),  # VirtualBox, VDICore.h
    (0, b"PK\x03\x04", "a zip archive"),  # APPNOTE.TXT, 4.3.7
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),  # 7zFormat.txt
    (0, b"\x04\x22\x4d\x18", "packed with lz4"),  # LZ4 frame format
    (0, b"\x5d\x00\x00\x80\x00\xff\xff\xff\xff\xff\xff\xff\xff", "packed with lzma"),  # xz -6 --format=lzma
)
"""What is neither packed in a way that we unpack nor a disk, though it would be taken for a raw one."""


def foreign_format_of(head: bytes) -> str | None:
    """Name the format that is none of ours, by the first 512 bytes of a file; None for all else."""
    return next((name for offset, magic, name in FOREIGN_FORMATS if head.startswith(magic, offset)), None)


def packing_of(head: bytes) -> Packing:
    """Tell the packing by the first 512 bytes of a file."""
    for offset, magic, packing in PACKINGS:
        if head[offset : offset + len(magic)] == magic and (offset != 1 or head[0] & 0xF0 == 0x50):
            return packing
    return Packing.RAW


def disk_format_of(head: bytes) -> DiskFormat:
    """Tell the format of a disk by its first bytes; a fixed VHD can't be told from a raw disk by them."""
    for magic, disk_format in DISK_FORMATS:
        if head.startswith(magic):
            return disk_format
    return DiskFormat.RAW
