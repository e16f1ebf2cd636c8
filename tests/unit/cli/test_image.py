import bz2
import gzip
import hashlib
import json
import lzma
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from samples.minimal_disk import as_disk

from clouduploader.errors import ExitCode

EXECUTABLE = Path(sys.executable).with_name("clouduploader")
BLOCK = 512 << 10
MBR = bytes(446) + struct.pack("<B3xB3xII", 0x80, 0x83, 2048, 2048).ljust(64, b"\0") + b"\x55\xaa"
RAW = MBR.ljust(4 * BLOCK, b"\0")
KEYS = {
    "file", "packing", "tarball", "file_bytes", "disk_format", "size_bytes", "size_exact", "partition_table",
    "minimum_bytes", "architectures", "boot_mode", "boots_uefi", "boots_bios", "warnings", "promised_sha256", "bmap",
    "file_sha256", "raw_sha256", "blocks",
}  # fmt: skip


@pytest.fixture
def run(tmp_path, run_here, kept_signals):
    """A factory: run the command on a file with these bytes."""

    def run(data, *words, name="a.raw", options=()):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        return run_here("--home", tmp_path / "home", *options, "image", name, *words, cwd=tmp_path)

    return run


def fields(done):
    return dict(line.split("\t") for line in done.stdout.splitlines())


def test_everything_is_printed(run):
    data = gzip.compress(RAW)
    done = run(data, name="a.raw.gz")
    assert (done.returncode, done.stderr) == (0, "")
    assert fields(done) == {
        "file": "a.raw.gz",
        "packing": "gz",
        "file bytes": str(len(data)),
        "disk format": "raw",
        "size bytes": str(len(RAW)),
        "partition table": "mbr",
        "minimum bytes": str(len(RAW)),
        "architectures": "unknown",
        "boot mode": "unknown",
        "promised sha256": "none",
        "bmap": "none",
        "file sha256": hashlib.sha256(data).hexdigest(),
        "raw sha256": hashlib.sha256(RAW).hexdigest(),
        "blocks": "1 data, 3 zeros, 0 holes",
        "zero_blocks=send": "4 sent, 0 left out",
        "zero_blocks=holes": "4 sent, 0 left out",
        "zero_blocks=skip": "1 sent, 3 left out",
    }


def test_quick_answer_says_what_it_does_not_know(run):
    shown = fields(run(lzma.compress(RAW + bytes(512)), "--quick", name="a.xz"))  # these may be the footer of a VHD
    assert shown["size bytes"] == f"about {len(RAW)}"
    assert "file sha256" not in shown
    assert fields(run(bz2.compress(RAW), "--quick"))["size bytes"] == "not known before it is unpacked"


def test_promise_is_told(run, tmp_path):
    digest = hashlib.sha256(RAW).hexdigest()
    (tmp_path / "a.raw.sha256").write_text(f"{digest}  a.raw\n")
    assert fields(run(RAW))["promised sha256"] == f"{digest}, kept"
    assert fields(run(RAW, "--quick"))["promised sha256"] == f"{digest}, not checked"


def test_answer_can_be_json(run):
    answer = json.loads(run(RAW, "--json").stdout)
    assert (answer["command"], answer["exit_code"], answer["error"]) == ("image", 0, None)
    assert answer["data"].keys() == KEYS
    assert answer["data"]["blocks"] == {"data": 1, "zero": 3, "hole": 0, "sent": {"send": 4, "holes": 4, "skip": 1}}
    assert (answer["data"]["packing"], answer["data"]["size_exact"]) == ("raw", True)
    told = [answer["data"][name] for name in ("boot_mode", "boots_uefi", "boots_bios")]
    assert told == [None, False, False]
    quick = json.loads(run(RAW, "--json", "--quick").stdout)["data"]
    assert quick.keys() == KEYS
    assert (quick["file_sha256"], quick["raw_sha256"], quick["blocks"]) == (None, None, None)


def test_damaged_image_is_an_error_of_data(run):
    done = run(gzip.compress(RAW)[:-1], "--json")
    assert done.returncode == ExitCode.DATA
    answer = json.loads(done.stdout)
    assert (answer["data"], answer["error"]["kind"]) == (None, "ImageError")
    assert run(gzip.compress(RAW)[:-1]).stderr.startswith("clouduploader: a.raw is cut off")


@pytest.mark.parametrize("words", [(), ("--quick",)])
def test_partitions_behind_the_end_are_an_error(run, words):
    done = run(RAW[:BLOCK], *words)
    assert done.returncode == ExitCode.DATA
    assert done.stderr == (
        f"clouduploader: a.raw is cut off: its partitions, or its file system, reach to byte {len(RAW)}, but the disk "
        f"has {BLOCK}. Get a new copy; --force inspects it as it is.\n"
    )


@pytest.mark.parametrize("words", [(), ("--quick",)])
def test_partitions_behind_the_end_are_a_warning_by_force(run, words):
    """As of OpenWrt's images, whose last partition is to grow."""
    done = run(RAW[:BLOCK], "--force", *words)
    assert done.returncode == 0
    assert f"warning: a.raw is cut off: its partitions, or its file system, reach to byte {len(RAW)}" in done.stderr
    assert (fields(done)["size bytes"], fields(done)["minimum bytes"]) == (str(BLOCK), str(len(RAW)))
    found = json.loads(run(RAW[:BLOCK], "--force", "--json", *words).stdout)["data"]
    assert len(found["warnings"]) == 1


def test_what_is_no_disk_is_a_warning_by_force(run):
    done = run(b"some text\n" * 10, "--force")
    assert (done.returncode, done.stderr.count("warning: ")) == (0, 1)
    assert "warning: a.raw is not the image of a disk: " in done.stderr
    assert fields(done)["size bytes"] == "100"


@pytest.mark.parametrize("packed", [bytes, gzip.compress])
def test_file_system_behind_the_end_is_an_error(run, packed):
    xfs = (b"XFSB" + struct.pack(">IQ", 4096, BLOCK // 2048)).ljust(BLOCK, b"\0")
    done = run(packed(xfs))
    assert done.returncode == ExitCode.DATA
    assert f"is cut off: its partitions, or its file system, reach to byte {2 * BLOCK}, but" in done.stderr


def test_what_is_no_disk_is_an_error(run):
    done = run(b"<!DOCTYPE html>\n<html></html>\n")
    assert done.returncode == ExitCode.DATA
    assert "is not the image of a disk: " in done.stderr
    assert "looks like a web page (HTML)" in done.stderr


def test_warnings_are_told(run):
    data = bytearray(RAW)
    data[446 + 4] = 0xEE  # a GPT that is not there
    done = run(bytes(data))
    assert done.returncode == 0
    assert done.stderr == "clouduploader: warning: its GPT is damaged\n"
    assert json.loads(run(bytes(data), "--json").stdout)["data"]["warnings"] == ["its GPT is damaged"]
    assert run(bytes(data), options=["-q"]).stderr == ""


@pytest.mark.parametrize(("size", "code"), [("2M", 0), ("2047K", 65), ("much", 64), ("0", 64), ("-1", 64)])
def test_size_is_limited(run, size, code):
    done = run(RAW, f"--max-size={size}")
    assert (done.returncode, done.stderr == "") == (code, code == 0)


def test_limit_of_the_settings_holds(run, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "clouduploader.conf").write_text("[clouduploader]\nmax_size = 1M\n")
    assert run(RAW).returncode == ExitCode.DATA
    assert run(RAW, "--max-size", "1G").returncode == 0


def test_missing_file_is_an_error(run):
    assert run(None).returncode == ExitCode.NO_INPUT


def test_name_with_control_characters_is_shown_safely(run):
    done = run(RAW, name="a\x1b[31m.raw")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout


def test_interrupt_ends_it_with_its_code(tmp_path):
    path = tmp_path / "a.raw"
    with path.open("wb") as file:
        file.write(RAW)
        file.truncate(1 << 39)
    with subprocess.Popen(
        [EXECUTABLE, "-v", "image", path, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr.readline() == "Phase: read image\n"
        process.send_signal(signal.SIGINT)
        answer = json.loads(process.communicate()[0])
    assert (process.returncode, answer["error"]["kind"]) == (ExitCode.INTERRUPTED, "StoppedError")


def test_terminal_shows_progress_and_an_aligned_answer(run_on_terminal, tmp_path):
    path = tmp_path / "a.raw"
    path.write_bytes(as_disk(os.urandom(BLOCK)))
    shown = run_on_terminal(f"from clouduploader.cli import main\nmain.main(['image', {str(path)!r}])")
    assert "read image" in shown
    assert "file bytes:        524288\n" in shown
