import lzma

import hypothesis
import pytest
from hypothesis import strategies as st
from samples.image_disks import CODE, gpt, mbr

from clouduploader.image import magic
from clouduploader.model.disk import Compression, DiskFormat


@pytest.mark.parametrize("first", range(0x40, 0x70))
def test_skippable_frame_of_zstd_begins_with_one_of_sixteen_bytes(first):
    expected = Compression.ZSTD if 0x50 <= first <= 0x5F else Compression.RAW
    assert magic.compression_of(bytes([first]) + b"\x2a\x4d\x18\0\0\0\0") is expected


def test_nothing_is_raw():
    assert magic.compression_of(b"") is Compression.RAW
    assert magic.disk_format_of(b"") is DiskFormat.RAW


@pytest.mark.parametrize("head", [b"QFI", b"KDM", b"conecti", b"\0QFI\xfb", b"qfi\xfb"])
def test_almost_a_magic_is_raw(head):
    assert magic.disk_format_of(head) is DiskFormat.RAW


@pytest.mark.parametrize("preset", range(10))
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_lzma_of_any_preset_is_named(preset, size):
    data = lzma.compress(bytes(size), format=lzma.FORMAT_ALONE, preset=preset)
    known = data[:5] + size.to_bytes(8, "little") + data[13:]  # the size in the header, as other packers write it
    assert magic.foreign_format_of(data[:512]) == magic.foreign_format_of(known[:512]) == "packed with lzma"


@pytest.mark.parametrize(("lc", "lp", "pb", "dictionary"), [(0, 0, 0, 4096), (8, 4, 4, 3 << 20), (3, 0, 2, 0xFFFFFFFF)])
def test_lzma_with_unusual_properties_is_named(lc, lp, pb, dictionary):
    head = bytes([(pb * 5 + lp) * 9 + lc]) + dictionary.to_bytes(4, "little") + b"\xff" * 8
    assert magic.foreign_format_of(head + bytes(20)) == "packed with lzma"
    assert magic.foreign_format_of(head + b"\1" * 20) is None  # the range coder's first byte


# The first bytes of what these programs of Debian 12 made of the same 64 KiB.
@pytest.mark.parametrize(
    ("program", "head", "name"),
    [
        ("compress", "1f9d9064d2cc590322e0400008132a5cc8b0a1c3", "packed with compress"),
        ("lzip", "4c5a4950011000321a4acd6056e27396df7b440f", "packed with lzip"),
        ("lzop", "894c5a4f000d0a1a0a104020a009400105030000", "packed with lzop"),
        ("lz4", "04224d186440a713010000506469736b2005001f", "packed with lz4"),
        ("lz4 -l", "02214c1813010000506469736b2005001f000100", "packed with lz4"),
        ("bsdtar --format=odc", "3037303730373137373030303030303030313130", "a cpio archive"),
        ("bsdtar --format=newc", "3037303730313030323063363035343830303030", "a cpio archive"),
        ("bsdtar --format=7zip", "377abcaf271c0003509729b15a00000000000000", "a 7z archive"),
        ("bsdtar --format=zip", "504b030414000800080043b67c5d000000000000", "a zip archive"),
        ("bsdtar --format=xar", "78617221001c000100000000000001a000000000", "a xar archive"),
        ("bsdtar --format=ar", "213c617263683e0a7a2020202020202020202020", "an ar archive, as Debian's packages are"),
        ("qemu-img -O qed", "5145440000000100040000000100000000000000", "a QED disk"),
        ("qemu-img -O parallels", "576974686f75467265537061634578740200000010000000", "a disk of Parallels"),
        ("qemu-img -O vhdx", "7668647866696c65510045004d00550020007600", "a VHDX"),
    ],
)
def test_foreign_format_is_named(program, head, name):
    assert magic.foreign_format_of(bytes.fromhex(head).ljust(512, b"\0")) == name


@pytest.mark.parametrize("version", range(0x1E, 0x29))
def test_zstd_of_old_is_named(version):
    head = bytes([version]) + b"\xb5\x2f\xfd\0"
    is_old = version == 0x1E or 0x22 <= version < 0x28
    assert (magic.foreign_format_of(head) == "packed with zstd from before 0.8") is is_old
    assert (magic.compression_of(head) is Compression.ZSTD) is (version == 0x28)


@hypothesis.given(code=st.binary(min_size=14, max_size=400))
def test_disk_whose_boot_code_begins_as_boot_code_does_is_not_foreign(code):
    for start in (
        CODE,
        b"\xeb\x3c\x90",
        b"\xfa\x33\xc0",
        b"\x33\xc0\x8e",
        b"\x31\xc0",
        b"\xe9",
        b"\x0e\x1f",
        bytes(14),
    ):
        assert magic.foreign_format_of(mbr([(0x83, 1, 1)], code=start + code)) is None
    assert magic.foreign_format_of(gpt([], sectors=100)[:512]) is None
    assert magic.foreign_format_of(bytes(512)) is None
