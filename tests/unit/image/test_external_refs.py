import contextlib
import os
import struct

import hypothesis
import pytest
from hypothesis import strategies as st
from unit.model.test_vhd import footer

from clouduploader.errors import ImageError, LocalIOError
from clouduploader.image import external_refs
from clouduploader.model.disk import DiskFormat

FORMATS = [DiskFormat.QCOW2, DiskFormat.VMDK, DiskFormat.VHD_DYNAMIC]


def qcow2(*, version=3, backing=0, size=1 << 30, encryption=0, features=0):
    return struct.pack(">4sIQIIQI36xQ", b"QFI\xfb", version, backing, 0, 16, size, encryption, features)


def vmdk(*, sectors=2048, at=1, text=b'createType="monolithicSparse"', where=0x200, total=20000):
    data = bytearray(total)
    data[:44] = struct.pack("<4sIIQQQQ", b"KDMV", 1, 3, sectors, 128, at, 20)
    data[where : where + len(text)] = text
    return bytes(data)


def check(data, disk_format):
    fd = os.memfd_create("disk")
    try:
        os.write(fd, data)
        external_refs.check(fd, disk_format, "a.img")
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("data", "disk_format"),
    [
        (qcow2(), DiskFormat.QCOW2),
        (qcow2(version=2, features=0xFF), DiskFormat.QCOW2),  # version 2 ends before the features
        (qcow2(features=0b11001), DiskFormat.QCOW2),
        (vmdk(), DiskFormat.VMDK),
        (vmdk(text=b'createType="streamOptimized"'), DiskFormat.VMDK),
        (vmdk(at=5, where=5 * 512), DiskFormat.VMDK),
        (footer(kind=3), DiskFormat.VHD_DYNAMIC),
    ],
)
def test_disk_that_stands_alone_passes(data, disk_format):
    assert check(data, disk_format) is None


@pytest.mark.parametrize(
    ("data", "disk_format", "words"),
    [
        (qcow2(backing=104), DiskFormat.QCOW2, "has a backing file"),
        (qcow2(version=2, backing=104), DiskFormat.QCOW2, "has a backing file"),
        (qcow2(features=4), DiskFormat.QCOW2, "has an external data file"),
        (qcow2(encryption=1), DiskFormat.QCOW2, "is encrypted"),
        (qcow2(encryption=2), DiskFormat.QCOW2, "is encrypted"),
        (qcow2(size=0), DiskFormat.QCOW2, "claims to be a disk of 0 bytes"),
        (qcow2(size=(1 << 46) + 1), DiskFormat.QCOW2, "claims to be a disk of 70368744177665 bytes"),
        (qcow2(version=1), DiskFormat.QCOW2, "header of a.img is damaged"),
        (qcow2(version=4), DiskFormat.QCOW2, "header of a.img is damaged"),
        (b"", DiskFormat.QCOW2, "header of a.img is damaged"),
        (vmdk(sectors=0), DiskFormat.VMDK, "extents in other files"),
        (b'# Disk DescriptorFile\nRW 1 FLAT "/etc/shadow" 0\n', DiskFormat.VMDK, "extents in other files"),
        (b"COWD" + vmdk()[4:], DiskFormat.VMDK, "extents in other files"),
        (vmdk(text=b'monolithicSparse\nparentFileNameHint="/etc/shadow"'), DiskFormat.VMDK, "a parent disk"),
        (vmdk(text=b"monolithicSparse parentFileNameHint", at=9, where=9 * 512), DiskFormat.VMDK, "a parent disk"),
        (vmdk(text=b"monolithicSparse parentFileNameHint", at=30), DiskFormat.VMDK, "a parent disk"),
        (vmdk(text=b'createType="twoGbMaxExtentSparse"'), DiskFormat.VMDK, "another kind than monolithicSparse"),
        (vmdk(at=1 << 63, where=19000), DiskFormat.VMDK, "another kind"),
        (vmdk(sectors=1 << 60), DiskFormat.VMDK, "claims to be a disk of"),
        (footer(kind=4), DiskFormat.VHD_DYNAMIC, "is a differencing VHD"),
        (footer(kind=2), DiskFormat.VHD_DYNAMIC, "is a fixed VHD"),
        (footer(kind=3, fault=1), DiskFormat.VHD_DYNAMIC, "header of a.img is damaged"),
        (footer(kind=3, size_bytes=0), DiskFormat.VHD_DYNAMIC, "claims to be a disk of 0 bytes"),
    ],
)
def test_disk_that_does_not_is_refused(data, disk_format, words):
    with pytest.raises(ImageError, match=words):
        check(data, disk_format)


def test_file_that_can_not_be_read_is_an_error():
    read_end, write_end = os.pipe()
    with pytest.raises(LocalIOError, match=r"a\.img can't be read"):
        external_refs.check(read_end, DiskFormat.QCOW2, "a.img")
    os.close(read_end)
    os.close(write_end)


@hypothesis.given(
    st.sampled_from(FORMATS),
    st.sampled_from([b"", b"QFI\xfb\0\0\0\3", b"KDMV", b"conectix", vmdk(), footer(kind=3)]),
    st.binary(max_size=300),
)
def test_any_bytes_pass_or_are_refused(disk_format, begin, data):
    with contextlib.suppress(ImageError):
        assert check(begin + data, disk_format) is None
