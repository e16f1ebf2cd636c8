"""What tests take for granted of the images they are given."""

import os
import subprocess

import pytest
from samples import made_images

DISK_FORMATS = {"qcow2": "qcow2", "vmdk": "vmdk", "vhd": "vpc", "vhd-dynamic": "vpc"}


@pytest.mark.parametrize("packing", DISK_FORMATS)
def test_disk_format_holds_the_raw_disk(make_image, tmp_path, packing):
    image = make_image(f"disk.{packing}", packing=packing, size_bytes=3 << 20)
    back = tmp_path / "back.raw"
    argv = ["qemu-img", "convert", "-f", DISK_FORMATS[packing], "-O", "raw", image.path, back]
    subprocess.run(argv, check=True)
    assert back.read_bytes() == image.raw


def test_sparse_image_has_true_holes(make_image):
    image = make_image("disk.raw", packing="sparse", size_bytes=8 << 20, extents=[(1 << 20, 2 << 20)])
    assert image.path.read_bytes() == image.raw
    with image.path.open("rb") as file:
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 1 << 20
        assert os.lseek(file.fileno(), 1 << 20, os.SEEK_HOLE) == 2 << 20


@pytest.mark.parametrize("size_bytes", [512, 1024, 524288 - 512, 524288, 524288 + 512])
def test_sample_is_as_long_as_asked_for(make_image, size_bytes):
    image = make_image("disk.raw", size_bytes=size_bytes)
    assert len(image.raw) == image.path.stat().st_size == size_bytes


@pytest.mark.parametrize(
    ("name", "packing"),
    [("a.raw.xz", "xz"), ("a.raw.tar.gz", "tar.gz"), ("a.raw.zst", "zst"), ("a.qcow2", "qcow2"), ("a.raw", "raw")],
)
def test_name_says_how_it_is_packed(name, packing):
    assert made_images.packing_of(name) == packing


def test_xz_has_several_blocks(make_image):
    image = make_image("disk.raw.xz", packing="xz-blocks", size_bytes=4 << 20)
    listed = subprocess.run(["xz", "--robot", "--list", image.path], check=True, capture_output=True, text=True).stdout
    (totals,) = [line.split("\t") for line in listed.splitlines() if line.startswith("totals")]
    assert int(totals[2]) == 4


def test_block_map_names_the_pages_with_something_in_them(make_image):
    image = make_image("disk.raw", size_bytes=3 * 4096, extents=[(4096, 4097)], with_bmap=True)
    text = image.path.with_name("disk.raw.bmap").read_text()
    assert "<ImageSize> 12288 </ImageSize>" in text
    assert "> 1 </Range></BlockMap>" in text
    assert text.count("<Range") == 1
