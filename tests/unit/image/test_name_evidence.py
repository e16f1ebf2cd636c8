import bz2
import gzip
import lzma

import pytest
from samples.minimal_disk import as_disk
from samples.packed_images import noise, tarball, vhd_footer, zstd

from clouduploader.image import inspect, name_evidence
from clouduploader.image import open as image_open
from clouduploader.util.cancel import Cancel

RAW = as_disk(noise(2 << 20))
FIXED_VHD = RAW + vhd_footer(len(RAW))
QCOW2 = b"QFI\xfb".ljust(1024, b"\0")


@pytest.fixture
def objection(tmp_path):
    """A function that tells what is said of the name of these bytes."""

    def tell(name, data):
        (tmp_path / "7.file").write_bytes(data)
        found = name_evidence.objection(image_open.describe(tmp_path / "7.file", name, Cancel()))
        return found and found.reason

    return tell


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("disk", RAW),
        ("disk.raw", RAW),
        ("disk.img", gzip.compress(RAW)),
        ("disk-1.2.x86_64", RAW),
        ("disk.raw.xz", lzma.compress(RAW)),
        ("disk.raw.XZ", lzma.compress(RAW)),
        ("disk.raw.gz", gzip.compress(RAW)),
        ("disk.raw.bz2", bz2.compress(RAW)),
        ("disk.raw.zst", zstd.compress(RAW)),
        ("disk.raw.gz", lzma.compress(RAW)),  # of another kind that is known
        ("disk.tar", tarball({"a.raw": RAW})),
        ("disk.tar.xz", lzma.compress(tarball({"a.raw": RAW}))),
        ("disk.tgz", gzip.compress(tarball({"a.raw": RAW}))),
        ("disk.qcow2", QCOW2),
        ("disk.vmdk", QCOW2),
        ("disk.vhd", FIXED_VHD),
        ("disk.vhdfixed", FIXED_VHD),
        ("disk.vhdfixed.xz", lzma.compress(FIXED_VHD)),
        ("disk-flat.vmdk", RAW),
        ("disk.qcow2.xz", lzma.compress(QCOW2)),
    ],
)
def test_name_that_fits_or_is_that_of_another_known_kind_is_passed(objection, name, data):
    assert objection(name, data) is None


@pytest.mark.parametrize(
    ("name", "data", "suffix"),
    [
        ("disk.raw.xz", b"\xfc" + lzma.compress(RAW)[1:], ".xz"),
        ("disk.raw.gz", b"\x1e" + gzip.compress(RAW)[1:], ".gz"),
        ("disk.raw.bz2", b"bZh" + bz2.compress(RAW)[3:], ".bz2"),
        ("disk.raw.zst", b"\x29" + zstd.compress(RAW)[1:], ".zst"),
        ("disk.raw.xz", RAW, ".xz"),
        ("disk.raw.GZ", RAW, ".gz"),
        ("disk.tar", bytes(1) + tarball({"a.raw": RAW})[1:257] + bytes(8) + RAW, ".tar"),
        ("disk.tar.gz", gzip.compress(RAW), ".tar"),
        ("disk.tgz", gzip.compress(RAW), ".tar"),
        ("disk.txz", RAW, ".xz"),
        ("disk.qcow2", b"\0" + QCOW2[1:], ".qcow2"),
        ("disk.qcow2.xz", lzma.compress(b"\0" + QCOW2[1:]), ".qcow2"),
        ("disk.vmdk", RAW, ".vmdk"),
        ("disk.vhd", FIXED_VHD[:-512], ".vhd"),
        ("disk.vhdfixed", FIXED_VHD[:-1], ".vhdfixed"),
        ("disk.raw.lz4", RAW, ".lz4"),
        ("disk.raw.Z", RAW, ".z"),
    ],
)
def test_name_of_a_kind_that_the_bytes_do_not_show_is_objected_to(objection, name, data, suffix):
    assert objection(name, data) == f"it is called {suffix}, and its bytes are not that: they are damaged, or others"


def test_facts_tell_of_the_name_unless_it_is_known_what_it_is(make_image):
    assert "called .xz" in inspect.inspect(make_image(RAW, "disk.raw.xz"), Cancel()).no_disk.reason
    assert "called .xz" in inspect.inspect(make_image(noise(1024), "disk.raw.xz"), Cancel()).no_disk.reason
    assert inspect.inspect(make_image(lzma.compress(RAW), "disk.raw.xz"), Cancel()).no_disk is None
    html = b"<!DOCTYPE html><html><body>404</body></html>".ljust(512)
    assert "web page" in inspect.inspect(make_image(html, "disk.raw.xz"), Cancel()).no_disk.reason
