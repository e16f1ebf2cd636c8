"""The programs of a helper instance, as ec2uploadimg calls them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clouduploader.sandbox.aws import tools

GIB = 1 << 30


@pytest.fixture
def make_instance(tmp_path):
    """A factory of instances with a root disk and some volumes, sizes in GiB by name."""

    def make(**volumes):
        directory = tmp_path / "instance"
        (directory / "root-mnt").mkdir(parents=True)
        (directory / "mnt").symlink_to("root-mnt")
        devices = [{"name": "xvda", "size_gib": 8, "content": None, "partitions": None}]
        for name, size in volumes.items():
            content, partitions = str(tmp_path / f"{name}.raw"), str(tmp_path / f"{name}.parts")
            devices.append({"name": name, "size_gib": size, "content": content, "partitions": partitions})
        (directory / "devices.json").write_text(json.dumps(devices))
        return directory

    return make


@pytest.fixture
def call():
    """Run one of the programs as the instance's shell does; gives status and output."""

    def run(instance, *words):
        done = subprocess.run(
            [sys.executable, "-I", "-S", tools.__file__, *words],
            env={"SANDBOX_INSTANCE": str(instance)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == ""
        return done.returncode, done.stdout

    return run


def test_lsblk_lists_disks_and_their_partitions(make_instance, call):
    instance = make_instance(xvdf=20, nvme1n1=10)
    call(instance, "parted", "-s", "/dev/nvme1n1", "mklabel", "gpt")
    call(instance, "parted", "-s", "/dev/nvme1n1", "unit", "s", "mkpart", "primary", "2048", "100000")
    status, output = call(instance, "lsblk", "-a", "-J")
    listed = json.loads(output)["blockdevices"]
    assert status == 0
    assert [(disk["name"], disk["size"]) for disk in listed] == [("xvda", "8G"), ("xvdf", "20G"), ("nvme1n1", "10G")]
    assert [[part["name"] for part in disk.get("children", [])] for disk in listed] == [["xvda1"], [], ["nvme1n1p1"]]


@pytest.mark.parametrize(
    ("gib", "text"), [(1, "1G"), (1023, "1023G"), (1024, "1T"), (1536, "1.5T"), (2048, "2T"), (16384, "16T")]
)
def test_lsblk_writes_sizes_as_the_real_one(gib, text):
    assert tools.lsblk_size(gib) == text


def test_storage_volume_is_made_and_mounted(make_instance, call, tmp_path):
    instance = make_instance(xvdf=20)
    assert call(instance, "blockdev", "--getsize", "/dev/xvdf") == (0, "41943040\n")
    assert call(instance, "parted", "-s", "/dev/xvdf", "mkpart", "primary", "2048", "9")[0] == 1
    assert call(instance, "parted", "-s", "/dev/xvdf", "mklabel", "gpt") == (0, "")
    assert call(instance, "mkfs", "-t", "ext3", "/dev/xvdf1")[0] == 1
    assert call(instance, "parted", "-s", "/dev/xvdf", "unit", "s", "mkpart", "primary", "2048", "9") == (0, "")
    assert call(instance, "mount", "/dev/xvdf1", "/mnt")[0] == 32
    assert call(instance, "mkfs", "-t", "ext3", "/dev/xvdf1")[0] == 0
    assert call(instance, "mount", "/dev/xvdf1", "/mnt") == (0, "")
    (instance / "mnt" / "x").write_text("on the volume")
    assert (tmp_path / "xvdf.parts" / "1" / "x").exists()
    assert call(instance, "umount", "/mnt") == (0, "")
    assert list((instance / "mnt").iterdir()) == []
    assert call(instance, "umount", "/mnt") == (32, "umount: /mnt: not mounted.\n")


def test_nvme_partition_has_another_name_than_ec2uploadimg_thinks(make_instance, call):
    instance = make_instance(nvme1n1=20)
    call(instance, "parted", "-s", "/dev/nvme1n1", "mklabel", "gpt")
    call(instance, "parted", "-s", "/dev/nvme1n1", "mkpart", "primary")
    status, output = call(instance, "mkfs", "-t", "ext3", "/dev/nvme1n11")
    assert status == 1
    assert "/dev/nvme1n11 does not exist" in output
    assert call(instance, "mount", "/dev/nvme1n11", "/mnt")[0] == 32
    assert (instance / "mnt").resolve() == instance / "root-mnt"


@pytest.mark.parametrize("program", ["parted", "blockdev"])
def test_disk_that_is_not_attached_is_an_error(make_instance, call, program):
    assert call(make_instance(), program, "/dev/xvdf")[0] == 1


def test_dd_writes_what_it_reads_and_stays_sparse(make_instance, call, tmp_path):
    instance = make_instance(xvdg=1)
    image = os.urandom(100_000) + bytes(5 << 20) + b"end"
    (tmp_path / "x.raw").write_bytes(image)
    status, output = call(instance, "dd", f"if={tmp_path}/x.raw", "of=/dev/xvdg", "bs=32k")
    content = tmp_path / "xvdg.raw"
    assert status == 0
    assert output == f"163+1 records in\n163+1 records out\n{len(image)} bytes copied\n"
    assert content.stat().st_size == GIB
    assert content.stat().st_blocks * 512 < len(image)
    with content.open("rb") as disk:
        assert disk.read(len(image)) == image


def test_dd_overwrites_with_zeros_too(make_instance, call, tmp_path):
    instance = make_instance(xvdg=1)
    for byte in (b"x", b"\0"):
        (tmp_path / "x.raw").write_bytes(byte * 3_000_000)
        assert call(instance, "dd", f"if={tmp_path}/x.raw", "of=/dev/xvdg", "bs=32k")[0] == 0
    with (tmp_path / "xvdg.raw").open("rb") as disk:
        assert disk.read(3_000_000) == bytes(3_000_000)


def test_dd_stops_where_the_disk_ends(make_instance, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tools, "GIB", 3 << 20)  # a disk of that size is written in no time
    instance = make_instance(xvdg=1)
    with (tmp_path / "x.raw").open("wb") as image:
        image.seek(tools.GIB - 10)
        image.write(b"0123456789beyond")
    assert tools.dd(instance, [f"if={tmp_path}/x.raw", "of=/dev/xvdg", "bs=32k"]) == 1
    assert capsys.readouterr().out.startswith("dd: error writing '/dev/xvdg': No space left on device\n")
    content = tmp_path / "xvdg.raw"
    assert content.stat().st_size == tools.GIB
    with content.open("rb") as disk:
        disk.seek(tools.GIB - 10)
        assert disk.read() == b"0123456789"


def test_dd_leaves_a_snapshot_alone(make_instance, call, tmp_path):
    instance = make_instance(xvdg=1)
    for text in (b"first", b"second"):
        (tmp_path / "x.raw").write_bytes(text)
        assert call(instance, "dd", f"if={tmp_path}/x.raw", "of=/dev/xvdg", "bs=32k")[0] == 0
        if text == b"first":
            os.link(tmp_path / "xvdg.raw", tmp_path / "snapshot.raw")
    with (tmp_path / "snapshot.raw").open("rb") as snapshot:
        assert snapshot.read(5) == b"first"
    with (tmp_path / "xvdg.raw").open("rb") as disk:
        assert disk.read(6) == b"second"


@pytest.mark.parametrize(
    ("source", "target", "complaint"),
    [
        ("missing.raw", "/dev/xvdg", "missing.raw': No such file or directory"),
        ("x.raw", "/dev/xvdz", "dd: failed to open '/dev/xvdz'"),
        ("x.raw", "/dev/xvda", "dd: failed to open '/dev/xvda'"),
    ],
)
def test_dd_complains_like_the_real_one(make_instance, call, tmp_path, source, target, complaint):
    (tmp_path / "x.raw").write_bytes(b"x")
    status, output = call(make_instance(xvdg=1), "dd", f"if={tmp_path / source}", f"of={target}", "bs=32k")
    assert status == 1
    assert complaint in output
    assert not Path("/dev/xvdz").exists()
