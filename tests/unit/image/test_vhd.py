import struct

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.image import vhd


def footer(*, kind=2, size_bytes=1 << 30, version=0x10000, cookie=b"conectix", fault=0):
    """512 bytes as the specification has them."""
    fields = (cookie, 2, version, 0xFFFFFFFFFFFFFFFF, 1, b"qem2", 7, b"Wi2k", size_bytes // 2, size_bytes, 99, kind)
    data = struct.pack(">8sIIQI4sI4sQQII", *fields).ljust(512, b"\0")
    return data[:64] + struct.pack(">I", (~sum(data) & 0xFFFFFFFF) ^ fault) + data[68:]


@pytest.mark.parametrize("kind", list(vhd.VhdKind))
@pytest.mark.parametrize("size_bytes", [0, 512, 1 << 30, (1 << 64) - 1])
def test_footer_tells_kind_and_size(kind, size_bytes):
    assert vhd.footer(footer(kind=kind.value, size_bytes=size_bytes)) == vhd.VhdFooter(kind, size_bytes)


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
    assert vhd.footer(data) is None


@hypothesis.given(st.integers(0, 511), st.integers(1, 255))
def test_footer_with_a_changed_byte_is_none(position, change):
    data = bytearray(footer())
    data[position] ^= change
    assert vhd.footer(bytes(data)) is None


@hypothesis.given(st.binary(max_size=600))
def test_any_bytes_are_no_footer(data):
    assert vhd.footer(data) is None
    assert vhd.footer((b"conectix" + data).ljust(512, b"\0")[:512]) is None
