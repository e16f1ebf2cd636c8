import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.errors import ImageError, LocalIOError, MissingProgramError, StoppedError
from clouduploader.image import qemu, rlimits
from clouduploader.model.disk import DiskFormat
from clouduploader.util.cancel import Cancel

KIB, MIB = 1 << 10, 1 << 20
OPTIONS = {
    "qcow2": (DiskFormat.QCOW2, []),
    "qcow2 of version 2": (DiskFormat.QCOW2, ["-o", "compat=0.10"]),
    "qcow2, compressed": (DiskFormat.QCOW2, ["-c"]),
    "vmdk": (DiskFormat.VMDK, []),
    "vmdk for streams": (DiskFormat.VMDK, ["-o", "subformat=streamOptimized"]),
    "vhd": (DiskFormat.VHD_DYNAMIC, ["-o", "subformat=dynamic,force_size=on"]),
}
SIZE = 9 * MIB + 512  # no multiple of anything
DATA = {0: b"begin" * 1000, 4 * MIB: b"middle" * 30000, SIZE - 512: b"end." * 128}


def run(*command):
    subprocess.run(command, check=True, capture_output=True)


def raw_disk(size=SIZE, data=None):
    disk = bytearray(size)
    for offset, content in (DATA if data is None else data).items():
        disk[offset : offset + len(content)] = content
    return bytes(disk)


@pytest.fixture
def make_disk(tmp_path):
    """A factory of a virtual disk of one of the OPTIONS with these contents; returns its path and format."""

    def make(kind="qcow2", raw=None, *, name="42.file"):
        disk_format, options = OPTIONS[kind]
        original, path = tmp_path / "original.raw", tmp_path / name
        original.write_bytes(raw_disk() if raw is None else raw)
        driver = qemu.DRIVERS[disk_format]
        run("qemu-img", "convert", "-f", "raw", "-O", driver, *options, original, path)
        original.unlink()
        return path, disk_format

    return make


def contents(store):
    """The whole disk; what is a hole by its extents is zeros."""
    disk = bytearray(store.size_bytes)
    for start, end in store.extents:
        store.read_into(start, memoryview(disk)[start:end])
    return bytes(disk)


def contents_at(store, offset, size):
    part = bytearray(size)
    store.read_into(offset, memoryview(part))
    return bytes(part)


def children():
    """The processes of QEMU that we started and that still are."""
    pids = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    return [pid for pid in pids if Path(f"/proc/{pid}/comm").read_text().startswith("qemu")]


@pytest.mark.parametrize("kind", OPTIONS)
def test_disk_is_read_with_its_holes(make_disk, kind):
    path, disk_format = make_disk(kind)
    with qemu.open_disk(path, disk_format, Cancel()) as store:
        assert store.size_bytes == SIZE
        assert contents(store) == raw_disk()
        assert 0 < sum(end - start for start, end in store.extents) < SIZE - MIB
        whole = bytearray(SIZE)
        store.read_into(0, memoryview(whole))
        assert bytes(whole) == raw_disk()
    assert children() == []


@pytest.mark.parametrize("size", [512, 64 * KIB, 512 * KIB + 512])
def test_disk_without_data_is_all_holes(make_disk, size):
    path, disk_format = make_disk(raw=bytes(size))
    with qemu.open_disk(path, disk_format, Cancel()) as store:
        assert (store.size_bytes, store.extents) == (size, ())


def test_zeros_that_were_written_are_no_holes(make_disk):
    path, disk_format = make_disk(raw=bytes(8 * MIB))
    run("qemu-io", "-f", "qcow2", "-c", "write -P 0 1M 64k", "-c", "write -z 3M 64k", "-c", "write -z -u 5M 64k", path)
    with qemu.open_disk(path, disk_format, Cancel()) as store:
        assert store.extents == tuple((n * MIB, n * MIB + 64 * KIB) for n in (1, 3, 5))
        assert contents(store) == bytes(8 * MIB)


def test_name_that_means_something_to_qemu_is_only_a_name(make_disk, monkeypatch):
    path, disk_format = make_disk(name="nbd:127.0.0.1,x=y.qcow2")
    monkeypatch.chdir(path.parent)
    with qemu.open_disk(Path(path.name), disk_format, Cancel()) as store:
        assert contents(store) == raw_disk()


def test_vhd_has_the_size_in_its_footer_not_that_of_its_geometry(make_disk):
    path, disk_format = make_disk("vhd")
    data = bytearray(path.read_bytes())
    for at in (0, len(data) - 512):  # as VirtualBox does, which QEMU would read by the geometry
        data[at + 28 : at + 32] = b"vbox"
        data[at + 64 : at + 68] = bytes(4)
        data[at + 64 : at + 68] = (~sum(data[at : at + 512]) & 0xFFFFFFFF).to_bytes(4, "big")
    path.write_bytes(data)
    with qemu.open_disk(path, disk_format, Cancel()) as store:
        assert contents(store) == raw_disk()


def test_long_temporary_directory_is_no_hindrance(make_disk, tmp_path, monkeypatch):
    path, disk_format = make_disk()
    deep = tmp_path / ("d" * 200)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with qemu.open_disk(path, disk_format, Cancel()) as store:
        assert list(deep.iterdir()) == []
        assert contents(store) == raw_disk()


def test_many_threads_read_at_once(make_disk):
    path, disk_format = make_disk()
    parts = {}
    with qemu.open_disk(path, disk_format, Cancel()) as store:

        def work(offset):
            part = bytearray(min(MIB, SIZE - offset))
            store.read_into(offset, memoryview(part))
            parts[offset] = bytes(part)

        threads = [threading.Thread(target=work, args=(offset,)) for offset in range(0, SIZE, MIB)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert b"".join(parts[offset] for offset in sorted(parts)) == raw_disk()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-b", "other.qcow2", "-F", "qcow2"], "has a backing file"),
        (["-o", "data_file=other.data"], "has an external data file"),
        (["--object", "secret,id=s,data=abc", "-o", "encrypt.format=aes,encrypt.key-secret=s"], "is encrypted"),
    ],
)
def test_disk_that_needs_more_is_refused(make_disk, monkeypatch, options, words):
    path, disk_format = make_disk(name="other.qcow2")
    monkeypatch.chdir(path.parent)
    run("qemu-img", "create", "-f", "qcow2", *options, "a.qcow2", str(SIZE // 512 * 512))
    with pytest.raises(ImageError, match=f"a.qcow2 {words}"), qemu.open_disk(Path("a.qcow2"), disk_format, Cancel()):
        pass


@pytest.mark.parametrize("subformat", ["monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"])
def test_vmdk_of_several_files_is_refused(tmp_path, subformat):
    path = tmp_path / "a.vmdk"
    run("qemu-img", "create", "-f", "vmdk", "-o", f"subformat={subformat}", path, "1M")
    with pytest.raises(ImageError, match="other files"), qemu.open_disk(path, DiskFormat.VMDK, Cancel()):
        pass


def test_damaged_disk_is_refused_in_its_own_name(make_disk):
    path, disk_format = make_disk()
    data = bytearray(path.read_bytes())
    data[20:24] = b"\xff" * 4  # how large a cluster is
    path.write_bytes(data)
    with pytest.raises(ImageError) as caught, qemu.open_disk(path, disk_format, Cancel(), filename="my.qcow2"):
        pass
    assert caught.value.message.startswith("my.qcow2 can't be read: qemu-img: Could not open 'my.qcow2'")
    assert "/proc" not in caught.value.message


def test_disk_that_is_marked_as_corrupt_is_refused(make_disk):
    path, disk_format = make_disk()
    data = bytearray(path.read_bytes())
    data[79] |= 2  # incompatible feature bit 1
    path.write_bytes(data)
    with pytest.raises(ImageError, match="corrupt"), qemu.open_disk(path, disk_format, Cancel()):
        pass


def test_damage_in_the_data_is_an_error_when_read(make_disk):
    noise = random.Random(4).randbytes(MIB)  # noqa: S311
    path, disk_format = make_disk("qcow2, compressed", raw_disk(data={0: noise.hex().encode()}))
    data = bytearray(path.read_bytes())
    data[600 * KIB : 700 * KIB] = b"\xff" * (100 * KIB)  # tables come first, and take 330
    path.write_bytes(data)
    with qemu.open_disk(path, disk_format, Cancel()) as store:
        with pytest.raises(ImageError, match=r"can't be read at byte [0-9]+ of the disk: it is damaged"):
            contents(store)
        assert contents_at(store, 0, 512) == contents_at(store, 0, 1024)[:512]
    assert children() == []


def test_server_that_is_killed_is_an_error(make_disk):
    path, disk_format = make_disk()
    with qemu.open_disk(path, disk_format, Cancel()) as store:
        (pid,) = children()
        os.kill(int(pid), signal.SIGKILL)
        with pytest.raises(ImageError, match="can't be read by qemu-nbd"):
            contents(store)


def test_server_ends_with_an_error_inside(make_disk):
    path, disk_format = make_disk()
    with pytest.raises(ZeroDivisionError), qemu.open_disk(path, disk_format, Cancel()):
        raise ZeroDivisionError
    assert children() == []


def test_server_has_nothing_of_ours(make_disk, monkeypatch):
    path, disk_format = make_disk()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with path.open("rb") as other, qemu.open_disk(path, disk_format, Cancel()):
        os.set_inheritable(other.fileno(), True)
        (pid,) = children()
        proc = Path(f"/proc/{pid}")
        assert b"secret" not in (proc / "environ").read_bytes()
        limits = (proc / "limits").read_text()
        assert f"Max address space         {rlimits.MEMORY_BYTES} " in limits
        assert "Max core file size        0 " in limits
        opened = {str(link.readlink()) for link in (proc / "fd").iterdir()}
        assert not {name for name in opened if "pytest" in name and name != str(path)}
        assert os.getsid(int(pid)) == int(pid)


def test_server_dies_with_us(make_disk):
    path, disk_format = make_disk()
    script = (
        "import sys, os, pathlib\n"
        "from clouduploader.model.disk import DiskFormat\n"
        "from clouduploader.image import qemu\n"
        "from clouduploader.util.cancel import Cancel\n"
        f"with qemu.open_disk(pathlib.Path({str(path)!r}), DiskFormat({disk_format.value!r}), Cancel()):\n"
        "    print(open(f'/proc/self/task/{os.getpid()}/children').read(), flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        pid = int(process.stdout.readline())
        watched = os.pidfd_open(pid)
        process.kill()
    try:
        signal.pidfd_send_signal(watched, 0)
        deadline = time.monotonic() + 60
        while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
            assert time.monotonic() < deadline
            time.sleep(0.01)
    except (ProcessLookupError, FileNotFoundError):
        pass  # gone
    finally:
        os.close(watched)


def test_stop_that_was_requested_is_honoured(make_disk):
    path, disk_format = make_disk()
    cancel = Cancel()
    with qemu.open_disk(path, disk_format, cancel) as store:
        cancel.request(signal.SIGTERM)
        with pytest.raises(StoppedError):
            contents(store)
    with pytest.raises(StoppedError), qemu.open_disk(path, disk_format, cancel):
        pass
    assert children() == []


@pytest.mark.parametrize("missing", ["qemu-img", "qemu-nbd"])
def test_missing_program_is_named_with_its_package(make_disk, tmp_path, monkeypatch, missing):
    path, disk_format = make_disk()
    (tmp_path / "bin").mkdir()
    for name in {"qemu-img", "qemu-nbd"} - {missing}:
        (tmp_path / "bin" / name).symlink_to(f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(MissingProgramError, match=f"{missing} is not installed") as caught:
        qemu.open_disk(path, disk_format, Cancel()).__enter__()
    assert "qemu-utils" in caught.value.hint


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(LocalIOError), qemu.open_disk(tmp_path / "gone", DiskFormat.QCOW2, Cancel()):
        pass


@hypothesis.given(st.lists(st.tuples(st.integers(0, 300 * KIB), st.integers(0, 255)), min_size=1, max_size=40))
@hypothesis.settings(max_examples=15, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_any_damage_is_an_error_or_some_disk(make_disk, changes):
    path, disk_format = make_disk(raw=raw_disk(MIB, {0: b"x" * 1000}))
    data = bytearray(path.read_bytes())
    for position, value in changes:
        data[position % len(data)] = value
    path.write_bytes(data)
    try:
        with qemu.open_disk(path, disk_format, Cancel()) as store:
            assert len(contents(store)) == store.size_bytes
    except ImageError:
        pass
    assert children() == []


def entry(start, length, *, data=True, zero=False, **more):
    return {"start": start, "length": length, "depth": 0, "data": data, "zero": zero, **more}


HOLE = {"data": False, "zero": True, "present": False}
ZERO = {"data": False, "zero": True, "present": True}


def extents(entries, size=100, disk_format=DiskFormat.QCOW2):
    text = "[" + ",\n".join(map(json.dumps, entries)) + "]\n"
    return qemu.parse_map([text[:30].encode(), text[30:].encode()], size, disk_format, "a.img")


def test_map_with_all_there_is_gives_the_extents():
    entries = [entry(0, 10), entry(10, 20, **HOLE), entry(30, 5, **ZERO), entry(35, 5), entry(40, 60, **HOLE)]
    assert extents(entries) == ((0, 10), (30, 40))
    assert extents(entries, disk_format=DiskFormat.VHD_DYNAMIC) == ((0, 10), (35, 40))


def test_map_of_an_old_qemu_has_no_holes():
    assert extents([entry(0, 100, data=False, zero=True)]) == ((0, 100),)


def test_hole_that_is_not_said_to_be_zero_is_none():
    assert extents([entry(0, 100, data=False, zero=False, present=False)]) == ((0, 100),)


def test_map_of_more_extents_than_are_kept_ends_in_data(monkeypatch):
    monkeypatch.setattr(qemu, "MAX_EXTENTS", 2)
    entries = [entry(0, 10), entry(10, 20, **HOLE), entry(30, 5), entry(35, 5, **HOLE), entry(40, 60)]
    assert extents(entries) == ((0, 10), (30, 100))


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [entry(0, 99)],
        [entry(0, 101)],
        [entry(1, 99)],
        [entry(0, 50), entry(51, 49)],
        [entry(0, 50), entry(0, 100)],
        [entry(0, 0), entry(0, 100)],
        [entry(0, -5), entry(-5, 105)],
        [entry(0, True)],
        [entry(0, "100")],
        [entry(0, 100.0)],
        [{"start": 0, "length": 100}],
        [[0, 100]],
    ],
)
def test_map_that_is_not_whole_is_an_error(entries):
    with pytest.raises(ImageError, match=r"no sound map of a\.img"):
        extents(entries)


def test_map_of_more_lines_than_are_read_ends_in_data(monkeypatch):
    monkeypatch.setattr(qemu, "MAX_LINES", 2)
    entries = [entry(0, 10), entry(10, 20, **HOLE), entry(30, 5, **HOLE), entry(35, 65, **HOLE)]
    assert extents(entries) == ((0, 10), (30, 100))
    assert extents([entry(start, 1) for start in range(100)]) == ((0, 100),)  # none touches the next


def test_map_is_not_read_before_somebody_asks_for_it(make_disk, tmp_path, monkeypatch):
    """It may have millions of lines, of a file of half a MiB."""
    path, disk_format = make_disk()
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "qemu-img"
    tool.write_text(f'#!/bin/sh\necho $1 >> {tmp_path}/asked\nexec /usr/bin/qemu-img "$@"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    asked = tmp_path / "asked"
    with qemu.open_disk(path, disk_format, Cancel()) as store:
        assert contents_at(store, 0, 5) == b"begin"
        assert asked.read_text().split() == ["info"]
        assert store.extents == store.extents
        assert asked.read_text().split() == ["info", "map"]


def test_line_without_an_end_is_an_error():
    with pytest.raises(ImageError, match="no sound map"):
        qemu.parse_map(itertools.repeat(b" " * 1000), 100, DiskFormat.QCOW2, "a.img")


@hypothesis.given(st.lists(st.binary(max_size=200)))
def test_any_output_is_a_map_or_an_error(pieces):
    with pytest.raises(ImageError, match="no sound map"):
        qemu.parse_map(pieces, 100, DiskFormat.QCOW2, "a.img")
