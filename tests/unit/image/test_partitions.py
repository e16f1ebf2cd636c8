import binascii
import struct

import hypothesis
import pytest
from hypothesis import strategies as st
from samples import image_disks as disks

from clouduploader.image import partitions
from clouduploader.image.partitions import Partition, PartitionKind
from clouduploader.model.disk import MISSING_COPY

MIB = 1 << 20
SECTORS = 2 * MIB // 512


def read(data):
    return partitions.read(lambda offset, size: data[offset : offset + size])


def test_gpt_is_read_with_its_kinds_and_its_end():
    table = read(
        disks.gpt(
            [(disks.LINUX, 3000, 3999), (disks.BIOS_BOOT, 34, 2047), (disks.ESP, 2048, 2999)],
            sectors=SECTORS,
        )
    )
    assert (table.name, table.minimum_bytes, table.copy_bytes, table.is_whole) == ("gpt", 4000 * 512, 2 * MIB, True)
    assert table.partitions == (
        Partition(34 * 512, 2048 * 512, PartitionKind.BIOS_BOOT, False),
        Partition(2048 * 512, 3000 * 512, PartitionKind.ESP, False),
        Partition(3000 * 512, 4000 * 512, PartitionKind.OTHER, False),
    )


def test_gpt_of_large_sectors_is_read():
    table = read(disks.gpt([(disks.ESP, 10, 19)], sectors=1000, sector_bytes=4096))
    assert table.partitions == (Partition(40960, 81920, PartitionKind.ESP, False),)
    assert (table.minimum_bytes, table.copy_bytes, table.sector_bytes) == (81920, 1000 * 4096, 4096)


@pytest.mark.parametrize(("entries", "entry_bytes"), [(4, 128), (128, 256), (1024, 128)])
def test_gpt_array_of_another_shape_is_read(entries, entry_bytes):
    table = read(disks.gpt([(disks.ESP, 3000, 3001)], sectors=SECTORS, entries=entries, entry_bytes=entry_bytes))
    assert [one.kind for one in table.partitions] == [PartitionKind.ESP]


@pytest.mark.parametrize("position", [512, 530, 540, 512 + 91, 1024, 1024 + 40])
def test_gpt_with_a_changed_byte_is_damaged(position):
    data = bytearray(disks.gpt([(disks.ESP, 2048, 2999)], sectors=SECTORS))
    data[position] ^= 0x10
    table = read(bytes(data))
    assert (table.name, table.partitions, table.is_whole) == ("gpt", (), False)
    assert "its GPT is damaged" in table.warnings[0]


def whole_disk(**options):
    front = disks.gpt([(disks.ESP, 2048, 2999)], sectors=SECTORS, **options)
    return front.ljust(2 * MIB - 33 * 512, b"\0") + disks.gpt_copy(front)


@pytest.mark.parametrize("sectors", range(1, 9))
def test_disk_too_small_for_a_gpt_has_a_damaged_one(sectors):
    data = disks.gpt([(disks.ESP, 34, 99)], sectors=4096)[: sectors * 512]

    def read_at(offset, size):
        assert offset >= 0
        return data[offset : offset + size]

    table = partitions.read(read_at, len(data))
    assert (table.name, table.is_whole) == ("gpt", False)


def test_gpt_is_read_from_its_copy_where_the_end_can_be_read():
    data = whole_disk()
    assert partitions.read(disks.reader((0, data)), len(data)).warnings == ()
    damaged = data[:512] + bytes(512) + data[1024:]
    table = partitions.read(disks.reader((0, damaged)), len(data))
    assert [one.kind for one in table.partitions] == [PartitionKind.ESP]
    assert (table.minimum_bytes, table.copy_bytes) == (3000 * 512, 2 * MIB)
    assert table.warnings == ("its GPT is damaged, only the copy at the end of the disk is whole",)
    assert read(damaged).partitions == ()


@pytest.mark.parametrize("change", [lambda data: data[: 3000 * 512], lambda data: data[:-512] + bytes(512)])
def test_gpt_without_its_copy_is_warned_of(change):
    data = change(whole_disk())
    table = partitions.read(disks.reader((0, data)), len(data))
    assert table.minimum_bytes == 3000 * 512
    assert table.warnings == (MISSING_COPY,)


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

    assert not partitions.read(read_at).is_whole
    assert max(asked) <= 4096


def test_gpt_without_a_protective_mbr_is_no_gpt():
    data = disks.gpt([(disks.ESP, 2048, 2999)], sectors=SECTORS)
    assert read(bytes(512) + data[512:]) is None


def test_damaged_gpt_with_a_hybrid_mbr_is_an_mbr():
    data = disks.gpt([], sectors=SECTORS, hybrid=[(0x83, 100, 10)])[:512] + bytes(4096)
    assert (read(data).name, read(data).minimum_bytes, read(data).is_whole) == ("mbr", 110 * 512, False)


def test_logical_partitions_are_read():
    first = disks.mbr([(0x83, 8, 92), (0x05, 100, 100)])
    second = disks.mbr([(0x0C, 8, 92)])
    table = partitions.read(
        disks.reader((0, disks.mbr([(0x83, 10, 90), (0x0F, 1000, 200)])), (1000 * 512, first), (1100 * 512, second))
    )
    assert [(one.start // 512, one.end // 512) for one in table.partitions] == [
        (10, 100), (1000, 1200), (1008, 1100), (1108, 1200),
    ]  # fmt: skip


def test_logical_partitions_in_a_ring_end():
    ring = disks.mbr([(0x83, 8, 1), (0x05, 0, 10)])
    table = partitions.read(disks.reader((0, disks.mbr([(0x05, 10, 90)])), (10 * 512, ring)))
    assert len(table.partitions) == 2  # it, and one in it


def test_mbr_tells_its_efi_system_partition():
    table = read(disks.mbr([(0x83, 9000, 1000), (0xEF, 2048, 100)]))
    assert [one.kind for one in table.partitions] == [PartitionKind.ESP, PartitionKind.OTHER]
    assert table.minimum_bytes == 10000 * 512


def test_table_of_an_isohybrid_is_read_though_a_partition_is_the_whole_disk():
    sector = disks.mbr([(0x17, 0, 4096, 0x80), (0xEF, 100, 200)], code=disks.CODE)
    table = read(sector.ljust(0x8001, b"\0") + b"CD001\1")
    assert (table.name, table.minimum_bytes) == ("mbr", 2 * MIB)
    assert table.partitions == (
        Partition(0, 2 * MIB, PartitionKind.OTHER, True),
        Partition(100 * 512, 300 * 512, PartitionKind.ESP, False),
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
        assert all(0 <= one.start < one.end <= table.minimum_bytes for one in table.partitions)
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
