"""Tell formats by their first bytes; never by names: in OBS's spool every image is `N.file`."""

import struct

from clouduploader.model import vhd
from clouduploader.model.disk import Compression, DiskFormat

HEAD_BYTES = 512  # all magics lie in it; a block of tar
COMPRESSIONS = (
    (0, b"\xfd7zXZ\x00", Compression.XZ),  # xz file format 1.2.1, section 2.1.1.1
    (0, b"\x1f\x8b", Compression.GZIP),  # RFC 1952, section 2.3.1
    (0, b"BZh", Compression.BZIP2),
    (0, b"\x28\xb5\x2f\xfd", Compression.ZSTD),  # RFC 8878, section 3.1.1
    (1, b"\x2a\x4d\x18", Compression.ZSTD),  # section 3.1.2: a skippable frame, the first byte is 50 to 5f
    (257, b"ustar", Compression.TAR),  # POSIX.1-1988; older ones, and some headers of GNU tar, have a checksum only
)
DISK_FORMATS = (
    (b"QFI\xfb", DiskFormat.QCOW2),  # docs/interop/qcow2.txt of QEMU; version 1 of the format too
    (b"KDMV", DiskFormat.VMDK),  # Virtual Disk Format 5.0, VMware, "Hosted Sparse Extents"
    (vhd.COOKIE, DiskFormat.VHD_DYNAMIC),  # begins with a copy of its footer; a fixed one begins with the disk
)
_TAR_CHECKSUM = slice(148, 156)  # POSIX.1-2017, pax, "ustar Interchange Format": as if it were spaces
_ZSTD_BEFORE_0_8 = (0x1E, *range(0x22, 0x28))  # lib/legacy of zstd, versions 0.1 to 0.7
FOREIGN_FORMATS = (
    # Disks of virtual machines, and copies of disks
    (0, b"# Disk DescriptorFile", "the descriptor of a VMDK"),  # Virtual Disk Format 5.0, "The Descriptor File"
    (0, b"COWD", "a VMDK of ESX"),  # the same, "ESX Server Sparse Extents"
    (0, b"vhdxfile", "a VHDX"),  # MS-VHDX, 2.2.1
    (64, b"\x7f\x10\xda\xbe", "a VDI"),  # VirtualBox, VDICore.h
    (0, b"QED\0", "a QED disk"),  # QEMU, docs/interop/qed_spec.rst
    (0, b"WithoutFreeSpace", "a disk of Parallels"),  # QEMU, docs/interop/parallels.rst
    (0, b"WithouFreSpacExt", "a disk of Parallels"),
    (0, b"Bochs Virtual HD Image", "a disk of Bochs"),  # QEMU, block/bochs.c
    (0, b"#!/bin/sh\n#V", "a cloop image"),  # QEMU, block/cloop.c; a script that mounts it, then the version
    (0, b"\x3a\xff\x26\xed", "a sparse image of Android"),  # libsparse, sparse_format.h
    (0, b"ANDROID!", "a boot image of Android"),  # bootimg.h
    (0, b"MSWIM\0\0\0", "a WIM archive"),  # Microsoft, "Windows Imaging File Format (WIM)"
    (0, b"EVF\x09\x0d\x0a\xff\0", "an EnCase image"),  # libewf, "Expert Witness Compression Format"
    (0, b"EVF2\x0d\x0a\x81", "an EnCase image"),
    (0, b"partclone-image", "an image of Partclone"),  # partclone.h
    (0, b"IsZ!", "an ISZ image"),  # EZB Systems, "ISZ Format Specification"
    (0, b"CISO", "a CISO image"),
    # Archives
    (0, b"PK\x03\x04", "a zip archive"),  # APPNOTE.TXT, 4.3.7
    (0, b"PK\x05\x06", "an empty zip archive"),  # 4.3.16
    (0, b"PK00PK\x03\x04", "a zip archive"),  # 8.5.5
    (0, b"PK\x07\x08PK\x03\x04", "a part of a zip archive"),  # 8.5.4
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),  # 7zFormat.txt
    (0, b"Rar!\x1a\x07", "a rar archive"),  # RAR 5.0 archive format; 1.5 has the same first bytes
    (0, b"\xed\xab\xee\xdb", "an RPM package"),  # RPM, "Package format"
    (0, b"!<arch>\n", "an ar archive, as Debian's packages are"),  # deb(5)
    (0, b"070701", "a cpio archive"),  # cpio(5)
    (0, b"070702", "a cpio archive"),
    (0, b"070707", "a cpio archive"),
    (0, b"MSCF\0\0\0\0", "a cabinet archive"),  # MS-CAB, 2.3
    (0, b"xar!", "a xar archive"),
    (2, b"-lh", "an lha archive"),
    (0, b"7kSt", "a zpaq archive"),  # with the tag by which a stream is found
    (0, b"zPQ", "a zpaq archive"),
    # Packed
    (0, b"\x04\x22\x4d\x18", "packed with lz4"),  # LZ4 frame format
    (0, b"\x02\x21\x4c\x18", "packed with lz4"),  # the same, "Legacy frame"
    (0, b"LZIP", "packed with lzip"),  # lzip manual, "File format"
    (0, b"\x89LZO\0\r\n\x1a\n", "packed with lzop"),  # lzop.c
    (0, b"LRZI", "packed with lrzip"),  # lrzip, doc/magic.header.txt
    (0, b"RZIP", "packed with rzip"),
    (0, b"\x1f\x9d", "packed with compress"),  # gzip.h has these three
    (0, b"\x1f\x1e", "packed with pack"),
    (0, b"\x1f\xa0", "packed with compress -H"),
    (0, b"BZ0", "packed with bzip, from before bzip2"),
    (0, b"\xff\x06\0\0sNaPpY", "packed with snappy"),  # framing_format.txt, 4.1
    (0, b"bvx", "packed with lzfse"),  # lzfse_internal.h
    *((0, bytes([version]) + b"\xb5\x2f\xfd", "packed with zstd from before 0.8") for version in _ZSTD_BEFORE_0_8),
    # Encrypted
    (0, b"Salted__", "encrypted with openssl"),  # openssl-enc(1)
    (0, b"age-encryption.org/", "encrypted with age"),
)
"""Formats that are not supported, and would be taken for a raw disk."""

_LZMA = struct.Struct("<BIQB")  # lzma-file-format.txt, 1: properties, dictionary size, unpacked size; then the data
_LZMA_PROPERTIES = range(9 * 5 * 5)
_LZMA_MIN_DICTIONARY = 1 << 12  # LZMA_DICT_SIZE_MIN
_LZMA_MAX_BYTES = 1 << 38  # what liblzma takes for the most that a header says in earnest, alone_decoder.c


def foreign_format_of(head: bytes) -> str | None:
    """Name an unsupported format by the first 512 bytes of a file; None for all else."""
    if _is_lzma(head):
        return "packed with lzma"
    return next((name for offset, magic, name in FOREIGN_FORMATS if head.startswith(magic, offset)), None)


def _is_lzma(head: bytes) -> bool:
    """Return whether a file is `.lzma`, which has no magic, by the rules of xz(1), alone_decoder.c."""
    if len(head) < _LZMA.size:
        return False
    properties, dictionary, size_bytes, first = _LZMA.unpack_from(head)
    bits = f"{dictionary:032b}".rstrip("0")  # 2^n or 2^n + 2^(n-1), or the largest
    is_size = 0 < size_bytes < _LZMA_MAX_BYTES or size_bytes == 0xFFFF_FFFF_FFFF_FFFF  # the last is for "not known"
    return (
        properties in _LZMA_PROPERTIES
        and dictionary >= _LZMA_MIN_DICTIONARY
        and (bits.lstrip("0") in ("1", "11") or dictionary == 0xFFFF_FFFF)
        and is_size
        and not first  # of the range coder, always
    )


def compression_of(head: bytes) -> Compression:
    """Return the compression of a file by its first 512 bytes."""
    for offset, magic, compression in COMPRESSIONS:
        if head[offset : offset + len(magic)] == magic and (offset != 1 or head[0] & 0xF0 == 0x50):
            return compression
    return Compression.TAR if is_tar_header(head) else Compression.RAW


def is_tar_header(block: bytes) -> bool:
    """Return whether 512 bytes are a header of tar, by the checksum, which some old programs summed as signed bytes."""
    digits = block[_TAR_CHECKSUM].split(b"\0", 1)[0].strip(b" ")
    if len(block) < HEAD_BYTES or not digits or digits.strip(b"01234567"):
        return False
    others = block[: _TAR_CHECKSUM.start] + b" " * 8 + block[_TAR_CHECKSUM.stop : HEAD_BYTES]
    total = sum(others)
    return int(digits, 8) in (total, total - 256 * sum(byte > 0x7F for byte in others))


def disk_format_of(head: bytes) -> DiskFormat:
    """Return the format of a disk by its first bytes; a fixed VHD can't be told from a raw disk by them."""
    for magic, disk_format in DISK_FORMATS:
        if head.startswith(magic):
            return disk_format
    return DiskFormat.RAW
