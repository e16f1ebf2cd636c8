import pytest

from clouduploader.model.disk import DiskFormat, ImageFacts


@pytest.mark.parametrize(
    ("boots_uefi", "boots_bios", "mode"),
    [
        (True, True, "uefi-preferred"),
        (True, False, "uefi"),
        (True, None, "uefi"),
        (False, True, "legacy-bios"),
        (None, True, None),
        (False, False, None),
    ],
)
def test_boot_mode_is_named_only_where_it_is_known(boots_uefi, boots_bios, mode):
    found = ImageFacts(
        disk_format=DiskFormat.RAW,
        size_bytes=None,
        is_size_exact=False,
        partition_table="gpt",
        minimum_bytes=0,
        architectures=(),
        boots_uefi=boots_uefi,
        boots_bios=boots_bios,
    )
    assert found.boot_mode == mode
