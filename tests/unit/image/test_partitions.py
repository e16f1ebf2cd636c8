import binascii
import struct

import hypothesis
import image_disks as disks
import pytest
from hypothesis import strategies as st

from clouduploader.image import partitions
from clouduploader.image.partitions import Kind, Partition

MIB = 1 << 20
SECTORS = 2 * MIB // 512


def read(data):
    return partitions.read(lambda offset, size: data[offset : offset + size])


def test_gpt_is_read_with_its_kinds_and_its_end():
    table = read(
        disks.gpt(
            [(disks.LINUX, 3000, 3999), (disks.BIOS_BOOT, 34, 2047), (disks.ESP, 2048, 2999)],
            sectors=SECTORS,
            code=disks.CODE,
        )
    )
    assert (table.name, table.minimum_bytes, table.boots_bios) == ("gpt", 2 * MIB, True)
    assert table.partitions == (
        Partition(34 * 512, 2048 * 512, Kind.BIOS_BOOT, False),
        Partition(2048 * 512, 3000 * 512, Kind.ESP, False),
        Partition(3000 * 512, 4000 * 512, Kind.OTHER, False),
    )


def test_gpt_of_large_sectors_is_read():
    table = read(disks.gpt([(disks.ESP, 10, 19)], sectors=1000, sector_bytes=4096))
    assert table.partitions == (Partition(40960, 81920, Kind.ESP, False),)
    assert table.minimum_bytes == 1000 * 4096


@pytest.mark.parametrize(("entries", "entry_bytes"), [(4, 128), (128, 256), (1024, 128)])
def test_gpt_array_of_another_shape_is_read(entries, entry_bytes):
    table = read(disks.gpt([(disks.ESP, 3000, 3001)], sectors=SECTORS, entries=entries, entry_bytes=entry_bytes))
    assert [one.kind for one in table.partitions] == [Kind.ESP]


def test_minimum_of_a_gpt_holds_a_partition_behind_its_copy():
    assert read(disks.gpt([(disks.LINUX, 34, 9999)], sectors=SECTORS)).minimum_bytes == 10000 * 512


@pytest.mark.parametrize("position", [511, 512, 530, 540, 512 + 91, 1024, 1024 + 40])
def test_gpt_with_a_changed_byte_is_no_gpt(position):
    data = bytearray(disks.gpt([(disks.ESP, 2048, 2999)], sectors=SECTORS))
    data[position] ^= 0x10
    assert read(bytes(data)) is None


@pytest.mark.parametrize("count", [1 << 14, 0xFFFFFFFF])
def test_gpt_with_absurdly_many_entries_is_no_gpt(count):
    data = disks.gpt([], sectors=SECTORS)
    header = bytearray(data[512 : 512 + 92])
    header[80:88] = struct.pack("<II", count, 128)
    header[16:20] = bytes(4)
    header[16:20] = struct.pack("<I", binascii.crc32(header))
    asked = []

    def read_at(offset, size):
        asked.append(size)
        return (data[:512] + header.ljust(512, b"\0"))[offset : offset + size]

    assert partitions.read(read_at) is None
    assert max(asked) <= 4096


def test_gpt_without_a_protective_mbr_is_no_gpt():
    data = disks.gpt([(disks.ESP, 2048, 2999)], sectors=SECTORS)
    assert read(bytes(512) + data[512:]) is None


@pytest.mark.parametrize(
    ("partition", "hybrid", "code", "boots"),
    [
        ((disks.BIOS_BOOT, 34, 2047), (), disks.CODE, True),
        ((disks.BIOS_BOOT, 34, 2047), (), b"", False),
        ((disks.LINUX, 34, 2047), (), disks.CODE, False),
        ((disks.LINUX, 34, 2047, 4), (), disks.CODE, True),  # attribute "legacy BIOS bootable"
        ((disks.LINUX, 34, 2047, 2), (), disks.CODE, False),
        ((disks.LINUX, 34, 2047), [(0x83, 34, 2014, 0x80)], disks.CODE, True),
    ],
)
def test_gpt_boots_by_bios_with_code_and_a_place_to_go_on(partition, hybrid, code, boots):
    assert read(disks.gpt([partition], sectors=SECTORS, code=code, hybrid=hybrid)).boots_bios is boots


def test_damaged_gpt_with_a_hybrid_mbr_is_an_mbr():
    data = disks.gpt([], sectors=SECTORS, hybrid=[(0x83, 100, 10)])[:512] + bytes(4096)
    assert (read(data).name, read(data).minimum_bytes) == ("mbr", 110 * 512)


@pytest.mark.parametrize(
    ("partition", "code", "boots"),
    [
        ((0x83, 2048, 100, 0x80), disks.CODE, True),
        ((0x83, 2048, 100), disks.CODE + b"GRUB \0", True),
        ((0x83, 2048, 100), disks.CODE, False),  # what parted writes goes on at the active partition
        ((0x83, 2048, 100, 0x80), b"", False),
        ((0x83, 2048, 100, 0x80), bytes(440) + b"\1\2\3\4", False),  # a disk signature is no code
    ],
)
def test_mbr_boots_by_bios_with_code_that_knows_where_to_go_on(partition, code, boots):
    table = read(disks.mbr([partition], code=code))
    assert (table.name, table.minimum_bytes, table.boots_bios) == ("mbr", 2148 * 512, boots)


def test_mbr_tells_its_efi_system_partition():
    table = read(disks.mbr([(0x83, 9000, 1000), (0xEF, 2048, 100)]))
    assert [one.kind for one in table.partitions] == [Kind.ESP, Kind.OTHER]
    assert table.minimum_bytes == 10000 * 512


def test_table_of_an_isohybrid_is_read_though_a_partition_is_the_whole_disk():
    sector = disks.mbr([(0x17, 0, 4096, 0x80), (0xEF, 100, 200)], code=disks.CODE)
    table = read(sector.ljust(0x8001, b"\0") + b"CD001\1")
    assert (table.name, table.minimum_bytes, table.boots_bios) == ("mbr", 2 * MIB, True)
    assert table.partitions == (
        Partition(0, 2 * MIB, Kind.OTHER, True),
        Partition(100 * 512, 300 * 512, Kind.ESP, False),
    )
    assert read(sector.ljust(0x8001, b"\0") + b"CD002\1") is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(100000),
        disks.mbr([]),
        disks.mbr([(0x83, 1, 1)])[:-1],
        disks.mbr([(0x83, 1, 1)])[:-2] + b"\x55\xab",
        disks.mbr([(0x83, 1, 1, 0x20)]),
        disks.mbr([(0x83, 0, 1)]),
        disks.mbr([(0xEE, 1, 1)]),
        disks.fat({"A": b"x"}, bits=12),
    ],
)
def test_what_has_no_table_has_none(data):
    assert read(data) is None


@st.composite
def mutated(draw, originals):
    data = bytearray(draw(st.sampled_from(originals)))
    for position, value in draw(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=20)):
        data[position] = value
    return bytes(data[: draw(st.integers(0, len(data)))])


ORIGINALS = [
    disks.gpt([(disks.ESP, 2048, 2999), (disks.LINUX, 3000, 3999)], sectors=SECTORS, code=disks.CODE),
    disks.mbr([(0x83, 9000, 1000), (0xEF, 2048, 100)], code=disks.CODE),
]


@hypothesis.given(mutated(ORIGINALS) | st.binary(max_size=2000))
def test_any_bytes_give_a_sound_table_or_none(data):
    table = read(data)
    if table:
        assert table.name in ("gpt", "mbr")
        assert all(0 < one.start < one.end <= table.minimum_bytes for one in table.partitions)
        assert list(table.partitions) == sorted(table.partitions, key=lambda one: one.start)


@hypothesis.given(st.binary(min_size=92, max_size=92), st.binary(max_size=1024))
def test_any_header_with_the_right_checksum_gives_a_sound_table_or_none(header, array):
    fields = bytearray(header)
    fields[:16] = b"EFI PART" + struct.pack("<II", 0x10000, 92)
    fields[24:32] = struct.pack("<Q", 1)
    fields[72:92] = struct.pack("<QIII", 2, len(array) // 128, 128, binascii.crc32(array[: len(array) // 128 * 128]))
    fields[16:20] = bytes(4)
    fields[16:20] = struct.pack("<I", binascii.crc32(fields))
    data = disks.mbr([(0xEE, 1, 9)]) + bytes(fields).ljust(512, b"\0") + array
    table = read(data)
    assert table.name == "gpt"
    assert all(one.start < one.end <= table.minimum_bytes for one in table.partitions)
