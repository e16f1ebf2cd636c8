"""How far a bare file system reaches, by its superblock as the documentation of each lays it out."""

import struct

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.image import filesystems


def disk(*pieces):
    data = bytearray(0x11000)
    for offset, piece in pieces:
        data[offset : offset + len(piece)] = piece
    return bytes(data)


def ext(*, blocks, shift, incompatible=0, high=0):
    return disk(
        (0x404, struct.pack("<I", blocks)), (0x418, struct.pack("<I", shift)), (0x438, b"\x53\xef"),
        (0x460, struct.pack("<I", incompatible)), (0x550, struct.pack("<I", high)),
    )  # fmt: skip


SQUASHFS = disk((0, b"hsqs"), (40, struct.pack("<Q", 12_345)))
DISKS = [
    (ext(blocks=65_536, shift=0), 65_536 << 10),
    (ext(blocks=2, shift=2, incompatible=0x80, high=1), ((1 << 32) + 2) << 12),
    (ext(blocks=2, shift=2, high=1), 2 << 12),  # the field has a meaning only with the feature
    (ext(blocks=2, shift=7), 0),
    (disk((0, b"XFSB" + struct.pack(">IQ", 4096, 76_800))), 4096 * 76_800),
    (disk((0, b"XFSB" + struct.pack(">IQ", 1 << 31, 76_800))), 0),
    (disk((0x10040, b"_BHRfS_M"), (0x100D1, struct.pack("<Q", 1 << 30))), 1 << 30),
    (disk((0x400, b"\x10\x20\xf5\xf2"), (0x410, struct.pack("<I", 12)), (0x424, struct.pack("<Q", 999))), 999 << 12),
    (disk((0x400, b"\xe2\xe1\xf5\xe0"), (0x40C, b"\x0c"), (0x424, struct.pack("<I", 77))), 77 << 12),
    (SQUASHFS, 12_345),
    (disk(), 0),
    (SQUASHFS[:47], 0),
]


@pytest.mark.parametrize(("data", "end"), DISKS)
def test_file_system_tells_how_far_it_reaches(data, end):
    assert filesystems.find_end(lambda offset, size: data[offset : offset + size]) == end


@hypothesis.given(st.sampled_from(DISKS), st.integers(0, 0x11000), st.binary(max_size=64))
def test_no_bytes_are_an_error(found, offset, noise):
    data = disk((0, found[0]), (offset, noise))[:0x11000]
    assert filesystems.find_end(lambda offset, size: data[offset : offset + size]) >= 0
