import bz2
import gzip

import hypothesis
import pytest
from hypothesis import strategies as st
from samples import image_disks as disks
from samples.minimal_disk import as_disk
from samples.packed_images import noise, pack_xz, tarball, vhd_footer, zstd

from clouduploader.image import evidence, inspect, magic
from clouduploader.image import open as image_open
from clouduploader.util.cancel import Cancel

MIB = 1 << 20
BSD_LABEL = b"\x57\x45\x56\x82"


def disk(*pieces, size=MIB):
    """A disk of zeros, but for (offset, bytes), ..."""
    data = bytearray(size)
    for offset, piece in pieces:
        data[offset : offset + len(piece)] = piece
    return bytes(data)


def objection(data):
    return evidence.check_content(lambda offset, size: data[offset : offset + size])


EXT = (0x418, bytes(4)), (0x438, b"\x53\xef")
ZFS = (0x20000, b"\x0c\xb1\xba\0\0\0\0\0")


@pytest.mark.parametrize(
    "data",
    [
        as_disk(b""),
        as_disk(b"noise" * 1000),
        disks.gpt([(disks.LINUX, 34, 99)], sectors=2048),
        disk((510, b"\x55\xaa")),
        disks.fat({"A": b"x"}, bits=12),
        disk(*EXT),
        disk((0, b"XFSB")),
        disk((0x10040, b"_BHRfS_M")),
        disk((0x8001, b"CD001")),
        disk((0x10000 + 1372, b"\x19\x01\x54\x19")),
        disk((0x40000 + 1372, b"\x00\x01\x19\x54")),
        disk((0x400, b"\x10\x20\xf5\xf2")),
        disk(ZFS),
        disk((512, BSD_LABEL)),
        disk((0, b"ER"), (512, b"PM\0\0")),
        disk((508, b"\xda\xbe")),
    ],
)
def test_disk_is_told_by_what_is_on_it(data):
    assert objection(data) is None


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"<!DOCTYPE html>\n<html><body>404</body></html>\n", "a web page"),
        (b"\xef\xbb\xbf\r\n <HTML lang=en>", "a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "a Git LFS pointer"),
        (b"-----BEGIN PGP MESSAGE-----\n\nhQ==\n", "PGP"),
        (b"-----BEGIN CERTIFICATE-----\n", "PEM"),
        (b"0" * 64 + b"  disk.raw\n", "checksums"),
        (b"0" * 32 + b" *disk.raw\n", "checksums"),
        (b"SHA256 (disk.raw) = " + b"0" * 64, "checksums"),
        (b"#!/bin/sh\nexit 0\n", "a script"),
        (b'{"error": "not found"}', "JSON"),
        (b"\x7fELF" + bytes(600), "ELF"),
        (b"%PDF-1.7\n", "PDF"),
        (gzip.compress(b"disk", mtime=0), "packed once more, with gz"),
        (pack_xz(b"disk"), "packed once more, with xz"),
        (b"MZ" + bytes(600), "UEFI"),
        (disk((0, b"MZ"), (510, b"\x55\xaa\0\0HdrS")), "a Linux kernel"),
        (disk((0, b"LUKS\xba\xbe")), "LUKS"),
        (disk((3, b"-FVE-FS-"), (510, b"\x55\xaa")), "BitLocker"),
        (disk((512, b"LABELONE"), (536, b"LVM2 001")), "LVM"),
        (disk((0, b"\xfc\x4e\x2b\xa9")), "RAID"),
        (disk((4096, b"\xfc\x4e\x2b\xa9")), "RAID"),
        (disk((4086, b"SWAPSPACE2")), "swap"),
        (disk((65526, b"SWAPSPACE2")), "swap"),
    ],
)
def test_what_is_known_to_be_something_else_is_named(data, name):
    found = objection(data)
    assert name in found.reason
    assert found.is_known


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"ab\n", "text"),
        ("Prüfung der Datei".encode() * 90, "text"),
        (bytes(MIB), "nothing but zeros"),
        (b"\x01", "nothing that is known"),
        (bytes(range(256)) * 4096, "nothing that is known"),
        (disk((0x418, b"\xff\0\0\0"), (0x438, b"\x53\xef"), (0, b"\1")), "nothing that is known"),
    ],
)
def test_what_shows_nothing_of_a_disk_is_described(data, name):
    found = objection(data)
    assert found.reason.endswith(f"and looks like {name}")
    assert not found.is_known


@pytest.mark.parametrize("entry", magic.FOREIGN_FORMATS)
def test_foreign_format_is_named(entry):
    offset, start, name = entry
    found = objection(disk((offset, start)))
    assert (found.reason, found.is_known) == (f"it is no raw disk, but {name}", True)


def test_partition_table_goes_before_what_was_there_earlier():
    assert objection(disk((440, as_disk(bytes(1024))[440:512]), (4086, b"SWAPSPACE2"))) is None


@hypothesis.given(st.binary(max_size=1 << 12), st.integers(0, evidence.HEAD_BYTES))
def test_any_bytes_have_an_answer(data, offset):
    found = objection(disk((offset, data), size=evidence.HEAD_BYTES + (1 << 12)))
    assert found is None or "\n" not in found.reason


IMAGE = as_disk(noise(1 << 16) + bytes(2 << 20))  # much of zeros: each worker packs it while it collects
FIXED_VHD = IMAGE + vhd_footer(len(IMAGE))
QCOW2 = b"QFI\xfb".ljust(1024, b"\0")


@pytest.fixture
def name_objection(tmp_path):
    """A function that tells what is said of the name of these bytes."""

    def tell(name, data):
        (tmp_path / "7.file").write_bytes(data)
        found = evidence.check_name(image_open.describe(tmp_path / "7.file", name, Cancel()))
        return found and found.reason

    return tell


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("disk", IMAGE),
        ("disk.raw", IMAGE),
        ("disk.img", gzip.compress(IMAGE)),
        ("disk-1.2.x86_64", IMAGE),
        ("disk.raw.xz", pack_xz(IMAGE)),
        ("disk.raw.XZ", pack_xz(IMAGE)),
        ("disk.raw.gz", gzip.compress(IMAGE)),
        ("disk.raw.bz2", bz2.compress(IMAGE)),
        ("disk.raw.zst", zstd.compress(IMAGE)),
        ("disk.raw.gz", pack_xz(IMAGE)),  # of another kind that is known
        ("disk.tar", tarball({"a.raw": IMAGE})),
        ("disk.tar.xz", pack_xz(tarball({"a.raw": IMAGE}))),
        ("disk.tgz", gzip.compress(tarball({"a.raw": IMAGE}))),
        ("disk.qcow2", QCOW2),
        ("disk.vmdk", QCOW2),
        ("disk.vhd", FIXED_VHD),
        ("disk.vhdfixed", FIXED_VHD),
        ("disk.vhdfixed.xz", pack_xz(FIXED_VHD)),
        ("disk-flat.vmdk", IMAGE),
        ("disk.qcow2.xz", pack_xz(QCOW2)),
    ],
)
def test_name_that_fits_or_is_that_of_another_known_kind_is_passed(name_objection, name, data):
    assert name_objection(name, data) is None


@pytest.mark.parametrize(
    ("name", "data", "suffix"),
    [
        ("disk.raw.xz", b"\xfc" + pack_xz(IMAGE)[1:], ".xz"),
        ("disk.raw.gz", b"\x1e" + gzip.compress(IMAGE)[1:], ".gz"),
        ("disk.raw.bz2", b"bZh" + bz2.compress(IMAGE)[3:], ".bz2"),
        ("disk.raw.zst", b"\x29" + zstd.compress(IMAGE)[1:], ".zst"),
        ("disk.raw.xz", IMAGE, ".xz"),
        ("disk.raw.GZ", IMAGE, ".gz"),
        ("disk.tar", bytes(1) + tarball({"a.raw": IMAGE})[1:257] + bytes(8) + IMAGE, ".tar"),
        ("disk.tar.gz", gzip.compress(IMAGE), ".tar"),
        ("disk.tgz", gzip.compress(IMAGE), ".tar"),
        ("disk.txz", IMAGE, ".xz"),
        ("disk.qcow2", b"\0" + QCOW2[1:], ".qcow2"),
        ("disk.qcow2.xz", pack_xz(b"\0" + QCOW2[1:]), ".qcow2"),
        ("disk.vmdk", IMAGE, ".vmdk"),
        ("disk.vhd", FIXED_VHD[:-512], ".vhd"),
        ("disk.vhdfixed", FIXED_VHD[:-1], ".vhdfixed"),
        ("disk.raw.lz4", IMAGE, ".lz4"),
        ("disk.raw.Z", IMAGE, ".z"),
    ],
)
def test_name_of_a_kind_that_the_bytes_do_not_show_is_objected_to(name_objection, name, data, suffix):
    assert (
        name_objection(name, data) == f"it is called {suffix}, and its bytes are not that: they are damaged, or others"
    )


def test_facts_tell_of_the_name_unless_it_is_known_what_it_is(make_image):
    assert "called .xz" in inspect.inspect(make_image(IMAGE, "disk.raw.xz"), Cancel()).no_disk.reason
    assert "called .xz" in inspect.inspect(make_image(noise(1024), "disk.raw.xz"), Cancel()).no_disk.reason
    assert inspect.inspect(make_image(pack_xz(IMAGE), "disk.raw.xz"), Cancel()).no_disk is None
    html = b"<!DOCTYPE html><html><body>404</body></html>".ljust(512)
    assert "web page" in inspect.inspect(make_image(html, "disk.raw.xz"), Cancel()).no_disk.reason
