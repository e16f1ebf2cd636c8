import struct
import subprocess

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.model import vhd


def footer(*, kind=2, size_bytes=1 << 30, version=0x10000, cookie=b"conectix", fault=0):
    """512 bytes as the specification has them."""
    fields = (cookie, 2, version, 0xFFFFFFFFFFFFFFFF, 1, b"qem2", 7, b"Wi2k", size_bytes // 2, size_bytes, 99, kind)
    data = struct.pack(">8sIIQI4sI4sQQII", *fields).ljust(512, b"\0")
    return data[:64] + struct.pack(">I", (~sum(data) & 0xFFFFFFFF) ^ fault) + data[68:]


@pytest.mark.parametrize("kind", list(vhd.VhdKind))
@pytest.mark.parametrize("size_bytes", [0, 512, 1 << 30, (1 << 64) - 1])
def test_footer_tells_kind_and_size(kind, size_bytes):
    assert vhd.parse_footer(footer(kind=kind.value, size_bytes=size_bytes)) == vhd.VhdFooter(kind, size_bytes)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(512),
        footer()[:511],
        footer() + b"\0",
        footer(cookie=b"conectiX"),
        footer(fault=1),
        footer(kind=1),
        footer(kind=7),
        footer(version=0x20000),
    ],
)
def test_anything_else_is_no_footer(data):
    assert vhd.parse_footer(data) is None


@hypothesis.given(st.integers(0, 511), st.integers(1, 255))
def test_footer_with_a_changed_byte_is_none(position, change):
    data = bytearray(footer())
    data[position] ^= change
    assert vhd.parse_footer(bytes(data)) is None


@hypothesis.given(st.binary(max_size=600))
def test_any_bytes_are_no_footer(data):
    assert vhd.parse_footer(data) is None
    assert vhd.parse_footer((b"conectix" + data).ljust(512, b"\0")[:512]) is None


MIB = 1 << 20
UNIQUE_ID = bytes(range(16))
GEOMETRY = slice(56, 60)


def footer_by_qemu(path, size_bytes, *options):
    options = ",".join(("subformat=fixed", *options))
    subprocess.check_call(["qemu-img", "create", "-q", "-f", "vpc", "-o", options, path, str(size_bytes)])
    with path.open("rb") as file:
        file.seek(-512, 2)
        return file.read()


@pytest.mark.parametrize("size_bytes", [MIB, 5 * MIB, 30 << 30, 127 << 30, 200 << 30, 2040 << 30])
def test_made_footer_is_qemus_but_for_time_id_and_geometry(tmp_path, size_bytes):
    theirs = footer_by_qemu(tmp_path / "a.vhd", size_bytes, "force_size=on")
    ours = vhd.fixed_footer(size_bytes, UNIQUE_ID)
    assert vhd.parse_footer(ours) == vhd.VhdFooter(vhd.VhdKind.FIXED, size_bytes)
    assert ours[68:84] == UNIQUE_ID
    other = (*range(24, 28), *range(56, 60), *range(64, 84))
    assert [place for place in range(512) if ours[place] != theirs[place] and place not in other] == []


@pytest.mark.parametrize(
    "size_mib",
    [1, 3, 33, 35, 140, 251, 253, 504, 520, 1023, 1024, 31 << 10, 32 << 10, 33 << 10, 100 << 10, 127 << 10],
)
def test_made_geometry_is_that_of_qemu(tmp_path, size_mib):
    """Without force_size QEMU makes a disk as large as its geometry tells, at least as large as was asked for."""
    theirs = vhd.parse_footer(made := footer_by_qemu(tmp_path / "a.vhd", size_mib * MIB))
    assert vhd.fixed_footer(theirs.size_bytes, UNIQUE_ID)[GEOMETRY] == made[GEOMETRY]


@hypothesis.given(st.integers(0, 1 << 46))
def test_made_geometry_is_no_larger_than_the_disk(size_bytes):
    made = vhd.fixed_footer(size_bytes, UNIQUE_ID)
    cylinders, heads, sectors = struct.unpack(">HBB", made[GEOMETRY])
    size = min(size_bytes // 512, 65535 * 16 * 255)
    assert size - heads * sectors < cylinders * heads * sectors <= size
    assert vhd.parse_footer(made) == vhd.VhdFooter(vhd.VhdKind.FIXED, size_bytes)


@pytest.mark.parametrize(("size_bytes", "padded"), [(1, 1 << 20), (1 << 20, 1 << 20), ((1 << 20) + 512, 2 << 20)])
def test_padded_size_is_the_next_whole_mebibyte(size_bytes, padded):
    assert vhd.padded_bytes(size_bytes) == padded
