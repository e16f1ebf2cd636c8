import random

import hypothesis
import pytest
from hypothesis import strategies as st
from samples import image_disks as disks

from clouduploader.image import fat

LOADER = disks.pe(disks.X64) + random.Random(2).randbytes(3000)  # noqa: S311
FILES = {"EFI/BOOT/BOOTX64.EFI": LOADER, "EFI/BOOT/GRUB.CFG": b"", "EFI/OTHER/X": b"x", "TOP": b"top"}


def volume(data, *, start=0):
    return fat.FatVolume(disks.reader((start, data)), start)


@pytest.mark.parametrize("bits", [12, 16, 32])
@pytest.mark.parametrize("cluster_sectors", [1, 8])
@pytest.mark.parametrize("start", [0, 1 << 20])
def test_directory_and_file_are_read(bits, cluster_sectors, start):
    there = volume(disks.fat(FILES, bits=bits, cluster_sectors=cluster_sectors), start=start)
    assert [(one.name, one.is_directory) for one in there.list()] == [("EFI", True), ("TOP", False)]
    assert [one.name for one in there.list("EFI")] == ["BOOT", "OTHER"]
    loader, config = there.list("EFI", "BOOT")
    assert (loader.name, loader.size_bytes) == ("BOOTX64.EFI", len(LOADER))
    assert there.head(loader, 1 << 20) == LOADER
    assert there.head(loader, 10) == LOADER[:10]
    assert there.head(config, 10) == b""
    assert there.list("EFI", "GONE") == there.list("TOP") == []


@pytest.mark.parametrize("bits", [12, 16, 32])
def test_scattered_clusters_are_found(bits):
    order = random.Random(3).sample(range(3, 900), 800)  # noqa: S311
    many = {f"EFI/BOOT/F{number}": b"%d" % number for number in range(40)}
    there = volume(disks.fat({**many, **FILES}, bits=bits, order=order))
    assert len(there.list("EFI", "BOOT")) == 42
    assert there.head(there.list("EFI", "BOOT")[-2], 5000) == LOADER


def test_lower_case_entry_has_its_name_in_upper_case():
    data = disks.fat({"efi/boot/bootx64.efi": b"x"}, bits=16)
    assert [one.name for one in volume(data).list("EFI", "BOOT")] == ["BOOTX64.EFI"]


def test_ring_of_clusters_ends():
    data = bytearray(disks.fat({"EFI/BOOT/BOOTX64.EFI": LOADER}, bits=16))
    loader = volume(bytes(data)).list("EFI", "BOOT")[0]
    data[512 + 2 * loader.cluster : 514 + 2 * loader.cluster] = loader.cluster.to_bytes(2, "little")
    there = volume(bytes(data))
    ring = there.head(fat.DirectoryEntry("X", False, loader.cluster, 1 << 30), 100000)
    assert ring == (LOADER[:512] * 200)[:100000]
    ring_directory = bytearray(data)
    ring_directory[512 + 4 : 512 + 6] = b"\2\0"
    assert isinstance(volume(bytes(ring_directory)).list("EFI", "BOOT"), list)


@pytest.mark.parametrize("size", [0, 100, 512, 1000, 3000])
def test_file_system_that_is_cut_off_lists_nothing_false(size):
    there = volume(disks.fat(FILES, bits=16)[:size])
    assert there.list("EFI", "BOOT") == []


@pytest.mark.parametrize("position", [11, 13, 14, 16, 510])
def test_boot_sector_without_sense_is_no_file_system(position):
    data = bytearray(disks.fat(FILES, bits=16))
    data[position : position + 2] = bytes(2)
    assert volume(bytes(data)).list() == []


@hypothesis.given(
    st.sampled_from([12, 16, 32]),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=30),
)
@hypothesis.settings(max_examples=60)
def test_any_change_is_survived_with_bounded_reading(bits, changes):
    data = bytearray(SMALL[bits])
    for position, value in changes:
        data[position] = value
    asked = []

    def read_at(offset, wanted):
        asked.append(wanted)
        return bytes(data[offset : offset + wanted])

    there = fat.FatVolume(read_at, 0)
    for entry in there.list("EFI", "BOOT"):
        assert len(there.head(entry, 4096)) <= min(4096, entry.size_bytes)
    assert sum(asked) < 16 << 20
    assert len(asked) < 12000


SMALL = {bits: disks.fat(FILES, bits=bits) for bits in (12, 16, 32)}


@hypothesis.given(st.binary(min_size=512, max_size=4096))
def test_any_bytes_are_survived(data):
    there = volume(data[:510] + b"\x55\xaa" + data[512:])
    assert all(len(one.name) <= 12 for one in there.list() + there.list("EFI", "BOOT"))
