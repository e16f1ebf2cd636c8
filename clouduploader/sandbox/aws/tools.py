"""The programs of a helper instance that need real disks, imitated.

Run by path, with nothing of ours imported: tools.py PROGRAM ARGUMENTS... The environment's
SANDBOX_INSTANCE names the instance's directory; devices.json in it lists what is attached:

    [{"name": "xvdf", "size_gib": 20, "content": PATH or null, "partitions": PATH or null}, ...]

The root disk has neither path. `mnt` in the directory is a link to what is mounted on /mnt. The
messages and exit statuses are those of util-linux, parted, e2fsprogs and coreutils in Debian 12.
"""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO

GIB = 1 << 30
CHUNK_BYTES = 1 << 20
Device = dict[str, Any]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def devices(instance: Path) -> list[Device]:
    """Read what is attached to the instance."""
    listed: list[Device] = json.loads((instance / "devices.json").read_text())
    return listed


def find_disk(instance: Path, path: str) -> Device | None:
    """Find a whole disk by its path in /dev."""
    return next((device for device in devices(instance) if f"/dev/{device['name']}" == path), None)


def partition_name(device: Device, number: int) -> str:
    """Name a partition as the kernel does: a disk that ends in a digit gets a p."""
    separator = "p" if device["name"][-1].isdigit() else ""
    return f"{device['name']}{separator}{number}"


def find_partition(instance: Path, path: str) -> Path | None:
    """Find the directory that stands for the first partition's file system."""
    for device in devices(instance):
        if device["partitions"] and f"/dev/{partition_name(device, 1)}" == path:
            table = Path(device["partitions"])
            return table / "1" if (table / "made").exists() else None
    return None


def lsblk_size(gib: int) -> str:
    """Write a size as lsblk does: the largest unit, at most one digit after the point."""
    if gib < 1024:
        return f"{gib}G"
    return f"{gib / 1024:.1f}".removesuffix(".0") + "T"


def lsblk(instance: Path, arguments: list[str]) -> int:
    """Print the disks as `lsblk -J` does."""
    listed = []
    for device in devices(instance):
        entry = _lsblk_entry(device["name"], device["size_gib"], "disk")
        is_root = device["partitions"] is None
        if is_root or (Path(device["partitions"]) / "made").exists():
            entry["children"] = [_lsblk_entry(partition_name(device, 1), device["size_gib"], "part")]
        listed.append(entry)
    _say(json.dumps({"blockdevices": listed}, indent=3))
    return 0


def _lsblk_entry(name: str, gib: int, kind: str) -> Device:
    return {
        "name": name,
        "maj:min": "202:0",
        "rm": False,
        "size": lsblk_size(gib),
        "ro": False,
        "type": kind,
        "mountpoints": [None],
    }


def parted(instance: Path, arguments: list[str]) -> int:
    """Do `parted -s DISK mklabel ...` and `parted -s DISK ... mkpart ...`."""
    path = next((argument for argument in arguments if argument.startswith("/dev/")), "")
    device = find_disk(instance, path)
    if device is None or device["partitions"] is None:
        _say(f"Error: Could not stat device {path} - No such file or directory.")
        return 1
    table = Path(device["partitions"])
    if "mklabel" in arguments:
        shutil.rmtree(table, ignore_errors=True)
        table.mkdir()
    elif "mkpart" in arguments:
        if not table.exists():
            _say(f"Error: {path}: unrecognised disk label")
            return 1
        (table / "made").touch()
    return 0


def blockdev(instance: Path, arguments: list[str]) -> int:
    """Do `blockdev --getsize DISK`: its size in sectors of 512 bytes."""
    device = find_disk(instance, arguments[-1])
    if device is None:
        _say(f"blockdev: cannot open {arguments[-1]}: No such file or directory")
        return 1
    _say(str(device["size_gib"] * GIB // 512))
    return 0


def mkfs(instance: Path, arguments: list[str]) -> int:
    """Do `mkfs -t ext3 PARTITION`."""
    filesystem = find_partition(instance, arguments[-1])
    _say("mke2fs 1.47.0 (5-Feb-2023)")
    if filesystem is None:
        _say(f"The file {arguments[-1]} does not exist and no size was specified.")
        return 1
    shutil.rmtree(filesystem, ignore_errors=True)
    filesystem.mkdir()
    _say("Writing superblocks and filesystem accounting information: done")
    return 0


def mount(instance: Path, arguments: list[str]) -> int:
    """Do `mount PARTITION /mnt`."""
    path, target = arguments[-2:]
    filesystem = find_partition(instance, path)
    if filesystem is None:
        _say(f"mount: {target}: special device {path} does not exist.")
        return 32
    if not filesystem.exists():
        _say(f"mount: {target}: wrong fs type, bad option, bad superblock on {path}.")
        return 32
    return _set_mounted(instance, filesystem)


def umount(instance: Path, arguments: list[str]) -> int:
    """Do `umount /mnt`."""
    root = instance / "root-mnt"
    if (instance / "mnt").resolve() == root.resolve():
        _say(f"umount: {arguments[-1]}: not mounted.")
        return 32
    return _set_mounted(instance, root)


def _set_mounted(instance: Path, directory: Path) -> int:
    new = instance / "mnt.new"
    new.symlink_to(directory)
    new.rename(instance / "mnt")
    return 0


def dd(instance: Path, arguments: list[str]) -> int:
    """Do `dd if=FILE of=DISK bs=...`; like the real one stops where the disk ends."""
    operands = dict(argument.partition("=")[::2] for argument in arguments)
    device = find_disk(instance, operands["of"])
    try:
        source = Path(operands["if"]).open("rb")  # noqa: SIM115
    except OSError as exc:
        _say(f"dd: failed to open '{operands['if']}': {exc.strerror}")
        return 1
    with source:
        if device is None or device["content"] is None:
            _say(f"dd: failed to open '{operands['of']}': No such file or directory")
            return 1
        written = _write_disk(source, Path(device["content"]), device["size_gib"] * GIB)
        is_too_big = bool(source.read(1))
    block = _block_bytes(operands.get("bs", "512"))
    if is_too_big:
        _say(f"dd: error writing '{operands['of']}': {os.strerror(errno.ENOSPC)}")
    whole, rest = divmod(written, block)
    records = f"{whole}+{int(bool(rest))} records"
    _say(f"{records} in\n{records} out\n{written} bytes copied")
    return int(is_too_big)


def _block_bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)([kM]?)", text)
    if match is None:
        raise SystemExit(f"dd: invalid number: '{text}'")
    return int(match[1]) * {"": 1, "k": 1 << 10, "M": 1 << 20}[match[2]]


def _write_disk(source: BinaryIO, content: Path, capacity: int) -> int:
    if content.exists() and content.stat().st_nlink > 1:  # a snapshot shares the bytes
        copy = content.with_suffix(".copy")
        subprocess.run(["cp", "--sparse=always", content, copy], check=True)
        copy.replace(content)
    zeros = bytes(CHUNK_BYTES)
    written = 0
    content.touch(mode=0o600)
    with content.open("r+b", buffering=0) as disk:
        disk.truncate(capacity)
        descriptor = disk.fileno()
        while written < capacity:
            chunk = source.read(min(CHUNK_BYTES, capacity - written))
            if not chunk:
                break
            # Zeros over zeros are not written, so that the file stays sparse.
            if zeros[: len(chunk)] != chunk or os.pread(descriptor, len(chunk), written) != chunk:
                os.pwrite(descriptor, chunk, written)
            written += len(chunk)
    return written


PROGRAMS = {
    "lsblk": lsblk,
    "parted": parted,
    "blockdev": blockdev,
    "mkfs": mkfs,
    "mount": mount,
    "umount": umount,
    "dd": dd,
}

if __name__ == "__main__":
    sys.exit(PROGRAMS[sys.argv[1]](Path(os.environ["SANDBOX_INSTANCE"]), sys.argv[2:]))
