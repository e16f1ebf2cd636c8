import pytest
from samples import image_disks as disks

from clouduploader.image import boot, partitions
from clouduploader.image.partial_read import TooFarError

GRUB = disks.CODE + b"GRUB \0"
PARTED = bytes.fromhex("fab800108ed0bc00b0b800008ed88ec0fbbe007cbf0006b90002f3a4ea210600")
SYSLINUX = disks.CODE + b"Missing operating system.\r\n"
STARTS = disks.CODE.ljust(510, b"\0") + b"\x55\xaa"  # what syslinux, NTFS and BSD have in their partition
MKFS = (b"\xeb\x58\x90mkfs.fat" + b"This is not a bootable disk.  Please".rjust(200)).ljust(510, b"\0") + b"\x55\xaa"
EXFAT = b"\xeb\x76\x90EXFAT   ".ljust(64, b"\0") + b"\1" * 49  # mkfs.exfat, up to PercentInUse
PLACE = 2048 * 512
FREEBSD_BOOT = "83BD6B9D-7F41-11DC-BE0B-001560B84F0F"


def boots(first, place=b"", *more):
    read_at = disks.reader((0, first), (PLACE, place.ljust(512, b"\0")), *more)
    return boot.boots_bios(read_at, partitions.read(read_at))


@pytest.mark.parametrize(
    ("partition", "code", "place", "expected"),
    [
        ((0x83, 2048, 100, 0x80), SYSLINUX, STARTS, True),
        ((0x83, 2048, 100, 0x80), disks.CODE, STARTS, True),
        ((0x0C, 2048, 100, 0x80), SYSLINUX, MKFS, False),  # code of its own, which says that it starts nothing
        ((0x0C, 2048, 100, 0x80), PARTED, MKFS, False),
        ((0x83, 2048, 100, 0x80), PARTED, b"", False),
        ((0x83, 2048, 100, 0x80), PARTED, STARTS, True),
        ((0x83, 2048, 100), PARTED, STARTS, False),
        ((0x83, 2048, 100), SYSLINUX, STARTS, False),
        ((0x83, 2048, 100), GRUB, b"", True),
        ((0x83, 2048, 100), disks.CODE, b"", None),  # unknown code
        ((0x83, 2048, 100, 0x80), disks.CODE, b"", None),  # nor whether it goes by the active one
        ((0x83, 2048, 100, 0x80), b"", STARTS, False),
        ((0x83, 2048, 100, 0x80), bytes(440) + b"\1\2\3\4", STARTS, False),  # a disk signature is no code
    ],
)
def test_mbr_boots_where_its_code_finds_more(partition, code, place, expected):
    assert boots(disks.mbr([partition], code=code), place) is expected


@pytest.mark.parametrize(
    ("partition", "hybrid", "code", "place", "expected"),
    [
        ((disks.BIOS_BOOT, 34, 2047), (), GRUB, b"", True),
        ((disks.LINUX, 34, 2047), (), GRUB, b"", True),  # it knows the place by itself
        ((FREEBSD_BOOT, 40, 2047), (), disks.CODE, b"", True),
        ((disks.BIOS_BOOT, 34, 2047), (), b"", b"", False),
        ((disks.BIOS_BOOT, 34, 2047), (), PARTED, b"", False),
        ((disks.LINUX, 34, 2047), (), disks.CODE, b"", None),
        ((disks.LINUX, 2048, 4000, 4), (), SYSLINUX, STARTS, True),  # attribute "legacy BIOS bootable"
        ((disks.LINUX, 2048, 4000, 2), (), SYSLINUX, STARTS, False),
        ((disks.LINUX, 2048, 4000), [(0x83, 2048, 1000, 0x80)], SYSLINUX, STARTS, True),
    ],
)
def test_gpt_boots_where_its_code_finds_more(partition, hybrid, code, place, expected):
    assert boots(disks.gpt([partition], sectors=9999, code=code, hybrid=hybrid), place) is expected


def test_gpt_of_large_sectors_boots_nowhere():
    assert boots(disks.gpt([(disks.BIOS_BOOT, 34, 99)], sectors=9999, sector_bytes=4096, code=GRUB)) is False


def test_isohybrid_boots_though_its_active_partition_has_no_type():
    code = disks.CODE + b"isolinux.bin missing or corrupt.\r\n"
    assert boots(disks.mbr([(0, 0, 4096, 0x80), (0xEF, 100, 200)], code=code), b"", (0x8001, b"CD001\1")) is True


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (bytes(120) + disks.CODE, True),
        (b"\xeb\x58\x90".ljust(90, b"\0"), False),
        (MKFS, False),
        (EXFAT, False),
        (b"", False),
    ],
)
def test_disk_without_a_table_boots_by_its_first_sector(first, expected):
    read_at = disks.reader((0, first[:510].ljust(510, b"\0") + b"\x55\xaa"))
    assert boot.boots_bios(read_at, None) is expected


def test_place_that_is_too_far_behind_leaves_it_open():
    def read_at(offset, size):
        if offset:
            raise TooFarError("too far")
        return disks.mbr([(0x83, 2048, 100, 0x80)], code=SYSLINUX)[:size]

    assert boot.boots_bios(read_at, partitions.read(read_at)) is None
