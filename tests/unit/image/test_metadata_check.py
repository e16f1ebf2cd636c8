"""Virtual disks that lack their end."""

import contextlib
import os
import random
import signal
import struct
import subprocess
import zlib

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.errors import ImageError, StoppedError
from clouduploader.image import metadata_check, qemu
from clouduploader.model.disk import DiskFormat
from clouduploader.util.cancel import Cancel

KIB, MIB = 1 << 10, 1 << 20
KINDS = {
    "qcow2": (DiskFormat.QCOW2, []),
    "qcow2 of version 2": (DiskFormat.QCOW2, ["-o", "compat=0.10"]),
    "qcow2, preallocated": (DiskFormat.QCOW2, ["-o", "preallocation=metadata"]),
    "qcow2 of subclusters": (DiskFormat.QCOW2, ["-o", "extended_l2=on"]),
    "qcow2 of small clusters": (DiskFormat.QCOW2, ["-o", "cluster_size=512"]),
    "qcow2, compressed": (DiskFormat.QCOW2, ["-c"]),
    "qcow2, compressed with zstd": (DiskFormat.QCOW2, ["-c", "-o", "compression_type=zstd"]),
    "vmdk": (DiskFormat.VMDK, []),
    "vmdk for streams": (DiskFormat.VMDK, ["-o", "subformat=streamOptimized"]),
    "vhd": (DiskFormat.VHD_DYNAMIC, ["-o", "subformat=dynamic,force_size=on"]),
}
LOSSES = [1, 100, 513, 5 * KIB, 70 * KIB, 300 * KIB]  # less and more than a sector, a subcluster, a cluster


@pytest.fixture
def make_disk(tmp_path):
    """A factory of a virtual disk, the last of whose data are the last of its file; returns path and format."""

    def make(kind, size=MIB + 512):
        disk_format, options = KINDS[kind]
        original, path = tmp_path / "original.raw", tmp_path / "42.file"
        original.write_bytes(bytes(size // 3) + random.Random(size).randbytes(size - size // 3))  # noqa: S311
        command = ["qemu-img", "convert", "-f", "raw", "-O", qemu.DRIVERS[disk_format], *options, original, path]
        subprocess.run(command, check=True, capture_output=True)
        return path, disk_format

    return make


def read(path, disk_format):
    """The whole disk."""
    with qemu.open_disk(path, disk_format, Cancel(), filename="my.img") as store:
        disk = bytearray(store.size_bytes)
        store.read_into(0, memoryview(disk))
        return bytes(disk)


def check(path, disk_format):
    with path.open("rb") as file:
        metadata_check.check(file.fileno(), disk_format, "my.img", Cancel())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [512, 64 * KIB, 3 * MIB - 512])
def test_whole_disk_of_any_size_passes(make_disk, kind, size):
    check(*make_disk(kind, size))


@pytest.mark.parametrize("kind", KINDS)
def test_disk_that_lost_its_end_is_never_read_as_zeros(make_disk, tmp_path, kind):
    path, disk_format = make_disk(kind)
    size_bytes = path.stat().st_size
    whole = (tmp_path / "original.raw").read_bytes()
    for loss in LOSSES:
        os.truncate(path, size_bytes - loss)
        found = None
        with contextlib.suppress(ImageError):
            found = read(path, disk_format)
        assert found in (None, whole), loss  # what was cut off may have been padding
    assert found is None


@pytest.mark.parametrize("kind", ["qcow2", "vmdk"])
def test_where_it_ends_and_should_end_is_told(make_disk, kind):
    path, disk_format = make_disk(kind, MIB)
    size_bytes = path.stat().st_size
    os.truncate(path, size_bytes - 4711)
    with pytest.raises(
        ImageError,
        match=rf"^my\.img is cut off or damaged: it ends at byte {size_bytes - 4711}, and .* up to byte {size_bytes}$",
    ):
        read(path, disk_format)


def qcow2(l1, l2, *, cluster_bits=9, size=1 << 20, clusters=8):
    """A file of this many clusters: the header, the first level, one table of the second level, data."""
    cluster = 1 << cluster_bits
    head = struct.pack(">4sIQIIQIIQ32x", b"QFI\xfb", 2, 0, 0, cluster_bits, size, 0, len(l1), cluster)
    parts = [head, struct.pack(f">{len(l1)}Q", *l1), struct.pack(f">{len(l2)}Q", *l2)]
    return b"".join(part.ljust(cluster, b"\0") for part in parts).ljust(clusters * cluster, b"\1")


@pytest.fixture
def checked(tmp_path):
    def check_bytes(data, disk_format=DiskFormat.QCOW2):
        path = tmp_path / "42.file"
        path.write_bytes(data)
        check(path, disk_format)

    return check_bytes


def test_table_behind_the_end_is_not_taken_for_holes(checked):
    checked(qcow2([1024], [2048]))
    for l1 in ([7 * 512 + 512], [1024, 1 << 40], [1024 | 1 << 63, 8 * 512 | 1 << 63]):
        with pytest.raises(ImageError, match="is cut off or damaged: it ends at byte 4096"):
            checked(qcow2(l1, [2048]))


def test_compressed_cluster_may_end_within_its_last_sector(checked):
    packed = qcow2([1024], [1 << 62 | 1 << 61 | 7 * 512])  # two sectors
    with pytest.raises(ImageError, match="up to byte 4608"):
        checked(packed)
    packer = zlib.compressobj(wbits=-15)
    data = packer.compress(random.Random(1).randbytes(512)) + packer.flush()  # noqa: S311
    checked(packed[: 7 * 512] + data + b"what was left of the last disk")
    with pytest.raises(ImageError, match="up to byte 4608"):
        checked(packed[: 7 * 512] + data[:-1])


def test_clusters_of_zeros_need_no_data(checked):
    checked(qcow2([1024], [1 << 40 | 1, 2048]))


def test_table_that_is_named_many_times_is_read_once(checked, monkeypatch):
    """526 KB can be two GiB of disk."""
    reads = []
    pread = os.pread
    monkeypatch.setattr(
        metadata_check.os, "pread", lambda fd, size, offset: reads.append(size) or pread(fd, size, offset)
    )
    size = 1 << 31
    data = bytearray(qcow2([1024] * 64, [2048], size=size, clusters=2000))
    data[36:48] = struct.pack(">IQ", 65536, 5 * 512)
    data[5 * 512 : 5 * 512 + 8 * 65536] = struct.pack(">Q", 1024) * 65536
    checked(data)
    assert len(reads) == 3


def test_more_tables_than_are_kept_in_mind_are_refused(checked, monkeypatch):
    monkeypatch.setattr(metadata_check, "MAX_TABLES", 3)
    checked(qcow2([1024, 1536, 2048], []))
    with pytest.raises(ImageError, match="more than 3 tables"):
        checked(qcow2([1024, 1536, 2048, 2560], []))


def test_stop_is_honoured(make_disk):
    path, disk_format = make_disk("qcow2", 512)
    cancel = Cancel()
    cancel.request(signal.SIGTERM)
    with path.open("rb") as file, pytest.raises(StoppedError):
        metadata_check.check(file.fileno(), disk_format, "my.img", cancel)


@pytest.mark.parametrize("disk_format", qemu.DRIVERS)
@hypothesis.given(data=st.binary(max_size=700))
def test_any_bytes_pass_or_are_an_error_of_ours(tmp_path_factory, disk_format, data):
    path = tmp_path_factory.mktemp("disk") / "42.file"
    path.write_bytes({DiskFormat.QCOW2: b"QFI\xfb", DiskFormat.VMDK: b"KDMV"}.get(disk_format, b"") + data)
    with contextlib.suppress(ImageError):
        check(path, disk_format)


@hypothesis.given(st.lists(st.integers(0, (1 << 64) - 1), max_size=64), st.integers(9, 21), st.integers(0, 1 << 46))
def test_any_tables_pass_or_are_an_error_of_ours(tmp_path_factory, entries, cluster_bits, size):
    path = tmp_path_factory.mktemp("disk") / "42.file"
    path.write_bytes(qcow2([2 << cluster_bits], entries, cluster_bits=min(cluster_bits, 12), size=size))
    with contextlib.suppress(ImageError):
        check(path, DiskFormat.QCOW2)
