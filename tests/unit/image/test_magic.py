import pytest

from clouduploader.contents import DiskFormat
from clouduploader.image import magic
from clouduploader.platform import Packing


@pytest.mark.parametrize("first", range(0x40, 0x70))
def test_skippable_frame_of_zstd_begins_with_one_of_sixteen_bytes(first):
    expected = Packing.ZSTD if 0x50 <= first <= 0x5F else Packing.RAW
    assert magic.packing_of(bytes([first]) + b"\x2a\x4d\x18\0\0\0\0") is expected


def test_nothing_is_raw():
    assert magic.packing_of(b"") is Packing.RAW
    assert magic.disk_format_of(b"") is DiskFormat.RAW


@pytest.mark.parametrize("head", [b"QFI", b"KDM", b"conecti", b"\0QFI\xfb", b"qfi\xfb"])
def test_almost_a_magic_is_raw(head):
    assert magic.disk_format_of(head) is DiskFormat.RAW
