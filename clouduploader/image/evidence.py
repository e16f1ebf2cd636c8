"""Signs that an image holds no disk: its bytes show none, or are not what its name says.

A raw disk shows that it is one by a partition table, a file system, or the signature of a boot sector. A list of what
is no disk is never complete, so all that shows none of these is refused. Where no other source is named, the
signatures are those that libblkid of util-linux probes for.

What a file is, its bytes tell. But where they show no compression and no format though the name is that of one, they
are damaged, or something else altogether: a single bit in the first bytes of an `.xz` makes it look like a raw disk.
"""

import re

from clouduploader.image import magic, partitions
from clouduploader.image.partitions import ReadAt
from clouduploader.model.disk import Compression, DiskFormat, Image, NoDisk

HEAD_BYTES = 0x41000  # all signatures lie in it, the last is that of a UFS behind 256 KiB
_TEXT_BYTES = 1024  # ours: enough to tell what a text is
_BOOT_SIGNATURE = (510, b"\x55\xaa")
_UFS = (b"\x54\x19\x01\x00", b"\x00\x01\x19\x54", b"\x19\x01\x54\x19", b"\x19\x54\x01\x19")  # 1, 2, both byte orders

_TABLES = (
    (508, b"\xda\xbe"),  # Sun
    (512, b"\x57\x45\x56\x82"),  # BSD, without an MBR around it
    (576, b"\x57\x45\x56\x82"),  # the same on Alpha
    (512, b"PM\0\0"),  # Apple
    (0, b"\x0b\xe5\xa9\x41"),  # SGI
)
"""Partition tables beside GPT and MBR."""

_FILE_SYSTEMS = (
    (3, b"NTFS    "),
    (3, b"EXFAT   "),
    (0, b"XFSB"),
    (0x10040, b"_BHRfS_M"),  # btrfs
    (0x8001, b"CD001"),  # ISO 9660
    (0x8001, b"BEA01"),  # UDF
    *((superblock + 1372, one) for superblock in (0, 0x2000, 0x10000, 0x40000) for one in _UFS),
    (0, b"hsqs"),  # squashfs
    (0x400, b"\x10\x20\xf5\xf2"),  # F2FS
    (0x400, b"\xe2\xe1\xf5\xe0"),  # EROFS
    (0x400, b"\x02\0\0\0\0\0\x34\x34"),  # NILFS2
    (0x400, b"H+\0\x04"),  # HFS+
    (0x400, b"HX\0\x05"),
    *((0x410, one + b"\x01\0") for one in (b"\x7f\x13", b"\x8f\x13", b"\x68\x24", b"\x78\x24")),  # Minix, clean
    (0x418, b"\x5a\x4d\0\0"),  # Minix 3
    (0x1018, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"),  # bcachefs
    (0x8000, b"JFS1"),
    (0x10034, b"ReIsEr"),
    (0x2034, b"ReIsEr"),
    (0x10000, b"ReIsEr4"),
    (32, b"NXSB"),  # APFS
    (0, b"\x45\x3d\xcd\x28"),  # cramfs
    (0, b"-rom1fs-"),
)
_EXT, _EXT_LOG_BLOCK_BYTES = (0x438, b"\x53\xef"), slice(0x418, 0x41C)
_MAX_EXT_LOG_BLOCK_BYTES = 6  # 64 KiB, ext4's documentation, "The Super Block"; two bytes of magic alone say little
_ZFS_UBERBLOCKS = range(0x20000, 0x40000, 0x400)
_ZFS_UBERBLOCK = (b"\x0c\xb1\xba\0\0\0\0\0", b"\0\0\0\0\0\xba\xb1\x0c")

_MEMBERS = (
    (0, b"LUKS\xba\xbe", "a LUKS volume"),
    (3, b"-FVE-FS-", "a BitLocker volume"),
    *((sector * 512 + 24, b"LVM2 001", "a physical volume of LVM") for sector in range(4)),
    (0, b"\xfc\x4e\x2b\xa9", "a member of a RAID"),  # md, metadata 1.1
    (0x1000, b"\xfc\x4e\x2b\xa9", "a member of a RAID"),  # metadata 1.2
    (0x1018, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", "a device of bcache"),
    (0x204, b"!Stra0tis\x86\xff\x02^\x41rh", "a device of Stratis"),
    (0, b"dmvdo001", "a VDO volume"),
    (0, b"integrt\0", "a volume of dm-integrity"),
    (0, b"verity\0\0", "the hashes of dm-verity"),
    *(
        (page_bytes - 10, one, "swap space")
        for page_bytes in (1 << 12, 1 << 13, 1 << 14, 1 << 16)
        for one in (b"SWAPSPACE2", b"SWAP-SPACE")
    ),
)
"""What can fill a disk, but is nothing that a machine starts from."""

_OTHERS = (
    (0x202, b"HdrS", "a Linux kernel"),  # Documentation/arch/x86/boot.rst; has the signature of a boot sector too
    (56, b"ARM\x64", "a Linux kernel"),  # Documentation/arch/arm64/booting.rst
    (0, b"MZ", "a program of UEFI or Windows"),
    (0, b"\x7fELF", "a program (ELF)"),
    (0, b"%PDF-", "a PDF"),
)
_TEXTS = (
    (rb"<(!doctype\s+html|html|head|body)\b", "a web page (HTML)"),
    (rb"<\?xml|<error>", "an XML document, as an object store answers with in place of what is not there"),
    (rb"version https://git-lfs", "a Git LFS pointer"),
    (rb"-----BEGIN PGP", "a PGP message"),
    (rb"-----BEGIN ", "a certificate or key (PEM)"),
    (rb"(\\?[0-9a-f]{32,128} [ *]|(MD5|SHA|BLAKE)\S* \()", "text: checksums"),
    (rb"#!", "a script"),
    (rb"\{\s*(\"|\})", "text: JSON"),
)
"""Kinds of texts by their beginning."""

_TAR = ".tar"
_COMPRESSIONS = {".xz", ".gz", ".bz2", ".zst", ".zstd", _TAR}
_TARBALLS = {".txz": ".xz", ".tgz": ".gz", ".tbz": ".bz2", ".tbz2": ".bz2", ".tzst": ".zst"}
_FOREIGN = {".lzma", ".lz", ".lz4", ".lzo", ".z", ".zip", ".7z", ".rar", ".cpio", ".vhdx", ".vdi", ".qed"}
_VHD = {".vhd", ".vhdfixed"}
_DISKS = {".qcow2", ".vmdk", *_VHD}
_FLAT = "-flat.vmdk"  # the raw disk of a VMDK in two files; Virtual Disk Format 5.0, "Flat"


def check_content(read_at: ReadAt) -> NoDisk | None:
    """Return why the bytes are no raw disk; None if they show that they are one. Raises no error for any bytes."""
    head = read_at(0, HEAD_BYTES)
    if foreign := magic.foreign_format_of(head[: magic.HEAD_BYTES]):
        return NoDisk(reason=f"it is no raw disk, but {foreign}", is_known=True)
    if partitions.read(read_at) or _has(head, _TABLES):
        return None
    for offset, signature, name in (*_MEMBERS, *_OTHERS[:2]):
        if head.startswith(signature, offset):
            return NoDisk(reason=f"it is no disk that a machine starts from, but {name}", is_known=True)
    if _has_file_system(head) or head.startswith(_BOOT_SIGNATURE[1], _BOOT_SIGNATURE[0]):
        return None
    name, is_known = _look_of(head)
    reason = f"it has no partition table, no boot sector and no known file system, and looks like {name}"
    return NoDisk(reason=reason, is_known=is_known)


def _has(head: bytes, signatures: tuple[tuple[int, bytes], ...]) -> bool:
    return any(head.startswith(signature, offset) for offset, signature in signatures)


def _has_file_system(head: bytes) -> bool:
    if head.startswith(_EXT[1], _EXT[0]):
        return int.from_bytes(head[_EXT_LOG_BLOCK_BYTES], "little") <= _MAX_EXT_LOG_BLOCK_BYTES
    return _has(head, _FILE_SYSTEMS) or any(head.startswith(_ZFS_UBERBLOCK, offset) for offset in _ZFS_UBERBLOCKS)


def _look_of(head: bytes) -> tuple[str, bool]:
    """Return what bytes look like that are no disk, and whether that is certain."""
    for offset, signature, name in _OTHERS:
        if head.startswith(signature, offset):
            return name, True
    if (compression := magic.compression_of(head[: magic.HEAD_BYTES])) is not Compression.RAW:
        return f"data that are packed once more, with {compression}", True
    if not head.strip(b"\0"):
        return "nothing but zeros", False
    text = head[:_TEXT_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip()  # a byte order mark
    for pattern, name in _TEXTS:
        if re.match(pattern, text, re.IGNORECASE):
            return name, True
    is_text = not re.search(rb"[\x00-\x08\x0e-\x1f\x7f]", text) and _is_utf8(text)
    return ("text" if is_text else "nothing that is known"), False


def _is_utf8(text: bytes) -> bool:
    try:
        text[:-4].decode()  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return True


def check_name(image: Image) -> NoDisk | None:
    """Return what an image is called and is not; None if its bytes are what its name says, or something else known.

    The footer of a fixed VHD that is packed is not looked for: it comes last.
    """
    suffixes = [f".{part}" for part in image.filename.lower().split(".")[1:]]
    outer = suffixes.pop() if suffixes else ""
    if outer in _TARBALLS:
        suffixes.append(_TAR)
        outer = _TARBALLS[outer]
    if outer in _COMPRESSIONS | _FOREIGN and image.compression is Compression.RAW:
        return _not_as_called(outer)
    inner = outer
    if outer in _COMPRESSIONS and outer != _TAR:
        inner = suffixes.pop() if suffixes else ""
    is_told = image.is_tarball or image.disk_format is not DiskFormat.RAW
    is_packed_vhd = inner in _VHD and image.compression is not Compression.RAW
    is_flat = image.filename.lower().endswith(_FLAT)
    if is_told or is_packed_vhd or is_flat or inner not in {_TAR, *_DISKS}:
        return None
    return _not_as_called(inner)


def _not_as_called(suffix: str) -> NoDisk:
    return NoDisk(
        reason=f"it is called {suffix}, and its bytes are not that: they are damaged, or others", is_known=True
    )
