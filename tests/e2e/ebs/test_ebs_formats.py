"""What is in the snapshot is the raw image, byte for byte, whatever its format and size.

What is unpacked by the same code is here with some sizes only. Every format with every size there is at the unit level,
up to the blocks that are sent: `test_open_blocks.py`.
"""

import bz2
import dataclasses
import gzip
import hashlib
import io
import lzma
import os
import random
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
from samples.minimal_disk import as_disk

from clouduploader.sandbox.aws.disks import BLOCK_BYTES, GARBAGE

pytestmark = pytest.mark.sandbox

SECTOR_BYTES = 512
TOLD = re.compile(
    r"^\d\d:\d\d:\d\d All (\d+) blocks are in snapshot \S+: (\d+) with data, (\d+) of zeros\. "
    r"Left out: (\d+) holes, (\d+) of zeros\.$",
    re.MULTILINE,
)


# --- what is in the images


def noise(size_bytes, seed=1):
    return random.Random(seed).randbytes(size_bytes)  # noqa: S311


DATA = frozenset({0, 6, 8, 9})
HOLEY_BLOCKS = 16
VHD_GRAIN_BLOCKS = 4  # a dynamic VHD knows holes of 2 MiB only


def holey():
    """Three holes, one of them at the end; the data begin and end inside blocks."""
    disk = bytearray(HOLEY_BLOCKS * BLOCK_BYTES)
    for index in DATA:
        disk[index * BLOCK_BYTES + 1000 : (index + 1) * BLOCK_BYTES - 1000] = noise(BLOCK_BYTES - 2000, index)
    return as_disk(bytes(disk))


CONTENTS = {
    "one sector": as_disk(b"\x01"),
    "a block less a sector": as_disk(noise(BLOCK_BYTES - SECTOR_BYTES)),
    "a block": as_disk(noise(BLOCK_BYTES)),
    "a block and a sector": as_disk(noise(BLOCK_BYTES + SECTOR_BYTES)),
    "holes": holey(),
}


# --- how they are packed: each makes a file of a raw one


def write_sparse(path, raw):
    """Write what is not zeros only, by pages of a file system."""
    page = 4096
    with path.open("wb") as file:
        for offset in range(0, len(raw), page):
            if any(piece := raw[offset : offset + page]):
                os.pwrite(file.fileno(), piece, offset)
        file.truncate(len(raw))


def plain(raw, path):
    path.write_bytes(raw)


def sparse(raw, path):
    write_sparse(path, raw)


def packed_by(pack):
    return lambda raw, path: path.write_bytes(pack(raw))


def xz_of_many_blocks(raw):
    """As `xz -T` makes it, but of smaller blocks."""
    argv = ["xz", "--threads=2", "--block-size=128KiB", "-0"]
    return subprocess.run(argv, input=raw, stdout=subprocess.PIPE, check=True).stdout


def xz_of_two_streams(raw):
    half = len(raw) // 2
    padding = bytes(8)  # stream padding: a multiple of four bytes, between streams and at the end
    return xz_of_many_blocks(raw[:half]) + padding + lzma.compress(raw[half:], preset=0) + padding


def zstd(raw):
    return subprocess.run(["zstd", "-q", "-1"], input=raw, stdout=subprocess.PIPE, check=True).stdout


def tarball(raw, mode="w:"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in (("README", b"not the image"), ("disk.raw", raw)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def converted(image_format, options=""):
    """By qemu-img, from a sparse raw file, so that its holes are holes."""

    def convert(raw, path):
        source = path.with_suffix(".source")
        write_sparse(source, raw.ljust(-(-len(raw) // SECTOR_BYTES) * SECTOR_BYTES, b"\0"))
        argv = ["qemu-img", "convert", "-f", "raw", "-O", image_format]
        subprocess.run([*argv, *(["-o", options] if options else []), source, path], check=True)

    return convert


fixed_vhd = converted("vpc", "subformat=fixed,force_size=on")


def fixed_vhd_packed_by(pack):
    def make(raw, path):
        unpacked = path.with_suffix(".vhd")
        fixed_vhd(raw, unpacked)
        path.write_bytes(pack(unpacked.read_bytes()))

    return make


@dataclasses.dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        make: Writes such a file: `make(raw, path)`.
        grain_blocks: Of the true holes that it can tell of; None if it can't.
        leaves_out: Sizes that tell nothing new: its parts are tested alone, or it is unpacked as others are.
    """

    make: object
    grain_blocks: int | None = None
    leaves_out: frozenset = frozenset({"a block"})


ALL_BUT_ONE = frozenset(CONTENTS) - {"a block and a sector"}
MOST = frozenset(CONTENTS) - {"a block less a sector", "holes"}
FORMATS = {
    "raw": Format(plain, leaves_out=frozenset()),
    "raw, sparse": Format(sparse, grain_blocks=1),
    "xz": Format(packed_by(lambda raw: lzma.compress(raw, preset=0)), leaves_out=frozenset()),
    "xz of many blocks": Format(packed_by(xz_of_many_blocks)),
    "xz of two streams": Format(packed_by(xz_of_two_streams), leaves_out=MOST),
    "gz": Format(packed_by(lambda raw: gzip.compress(raw, 1))),
    "zst": Format(packed_by(zstd)),
    "zst of two frames": Format(packed_by(lambda raw: zstd(raw[:999]) + zstd(raw[999:])), leaves_out=ALL_BUT_ONE),
    "bz2": Format(packed_by(lambda raw: bz2.compress(raw, 1))),
    "tar": Format(packed_by(tarball)),
    "tar.gz": Format(packed_by(lambda raw: tarball(raw, "w:gz")), leaves_out=MOST),
    "tar.xz": Format(packed_by(lambda raw: tarball(raw, "w:xz")), leaves_out=MOST),
    "tar.zst": Format(packed_by(lambda raw: zstd(tarball(raw))), leaves_out=ALL_BUT_ONE),
    "fixed VHD": Format(fixed_vhd_packed_by(bytes)),
    "fixed VHD in xz": Format(fixed_vhd_packed_by(lambda vhd: lzma.compress(vhd, preset=0)), leaves_out=MOST),
    "fixed VHD in gz": Format(fixed_vhd_packed_by(lambda vhd: gzip.compress(vhd, 1)), leaves_out=ALL_BUT_ONE),
    "qcow2": Format(converted("qcow2"), grain_blocks=1, leaves_out=frozenset()),
    "VMDK": Format(converted("vmdk", "subformat=monolithicSparse"), grain_blocks=1),
    "VMDK, packed": Format(converted("vmdk", "subformat=streamOptimized"), grain_blocks=1, leaves_out=MOST),
    "dynamic VHD": Format(converted("vpc", "subformat=dynamic,force_size=on"), grain_blocks=VHD_GRAIN_BLOCKS),
}


@pytest.fixture
def make_file(tmp_path):
    """A factory of image files; the name tells nothing, as in OBS's spool."""
    count = 0

    def make(form, raw):
        nonlocal count
        count += 1
        path = tmp_path / f"{count}.file"
        FORMATS[form].make(raw, path)
        return path

    return make


def told(done):
    """The numbers of the log: blocks in the snapshot, with data, of zeros; left out: holes, of zeros."""
    (found,) = TOLD.findall(done.log)
    return tuple(map(int, found))


def blocks_of(size_bytes):
    return -(-size_bytes // BLOCK_BYTES)


@pytest.mark.parametrize("form", FORMATS)
def test_image_of_any_size_is_in_the_snapshot(sandbox, make_upload, make_file, form):
    """All sizes at once."""
    contents = {name: raw for name, raw in CONTENTS.items() if name not in FORMATS[form].leaves_out}
    uploads = {name: make_upload(make_file(form, raw), verify="none") for name, raw in contents.items()}
    running = {name: upload.start() for name, upload in uploads.items()}
    for name, raw in contents.items():
        done = uploads[name].finish(running[name])
        behind = raw.ljust((blocks_of(len(raw)) + 1) * BLOCK_BYTES, b"\0")
        assert sandbox.image_bytes(done.image_id, len(behind)) == behind, name
        total = blocks_of(len(raw))
        data = DATA if name == "holes" else set(range(total))
        grain = FORMATS[form].grain_blocks
        sent = {index for index in range(total) if grain is None or index // grain in {one // grain for one in data}}
        assert told(done) == (len(sent), len(data), len(sent) - len(data), total - len(sent), 0), name
    assert {kind: len(found) for kind, found in sandbox.left().items()} == {
        "images": len(contents),
        "snapshots": len(contents),
    }


# The others can't hold an empty disk.
EMPTY = ["raw", "xz", "xz of two streams", "gz", "zst", "bz2", "tar", "tar.xz", "qcow2"]


def test_image_of_no_bytes_is_refused(sandbox, make_upload, make_file):
    """All formats at once."""
    uploads = {form: make_upload(make_file(form, b""), keep="snapshot") for form in EMPTY}
    running = {form: upload.start() for form, upload in uploads.items()}
    for form, upload in uploads.items():
        done = upload.finish(running[form])
        assert done.status == 65, (form, done.log, done.stderr)
        assert "of 0 bytes" in done.stderr if form == "qcow2" else "empty" in done.stderr, (form, done.stderr)
    assert sandbox.left() == {}
    assert not sandbox.calls("StartSnapshot")


# --- zeros and holes


# What becomes of four data blocks and 12 of zeros, by the format, and what was asked for.
MODES = {
    ("xz", "send"): (16, 4, 12, 0, 0),
    ("xz", "holes"): (16, 4, 12, 0, 0),
    ("xz", "skip"): (4, 4, 0, 0, 12),
    ("raw, sparse", "send"): (16, 4, 12, 0, 0),
    ("dynamic VHD", "holes"): (12, 4, 8, 4, 0),
    ("dynamic VHD", "skip"): (4, 4, 0, 4, 8),
}


def test_zero_blocks_are_sent_or_left_out_as_asked(sandbox, make_upload, make_file):
    """All cases at once."""
    raw = CONTENTS["holes"]
    uploads = {case: make_upload(make_file(case[0], raw), verify="full") for case in MODES}
    running = {case: upload.start(f"--zero-blocks={case[1]}") for case, upload in uploads.items()}
    for case, numbers in MODES.items():
        done = uploads[case].finish(running[case])
        assert told(done) == numbers, case
        (snapshot_id,) = uploads[case].snapshot_ids
        written = sandbox.control("GET", "blocks", {"snapshot_id": snapshot_id})
        assert len(written) == numbers[0], case
        assert set(written) >= DATA, case
        assert sandbox.image_bytes(done.image_id, len(raw)) == raw, case
        assert f"Verified: {numbers[0]} of {numbers[0]} blocks read back and equal." in done.lines


@pytest.mark.parametrize(("mode", "is_right"), [(None, True), ("send", True), ("skip", False)])
def test_encrypted_volume_shows_the_image_unless_zeros_are_skipped(sandbox, make_upload, make_file, mode, is_right):
    raw = CONTENTS["holes"]
    upload = make_upload(make_file("xz of many blocks", raw), encrypted=True, zero_blocks=mode, verify="none")
    done = upload.run()
    (snapshot,) = sandbox.account()["snapshots"]
    assert snapshot["encrypted"] is True
    seen = sandbox.image_bytes(done.image_id, len(raw), encrypted=True)
    assert (seen == raw) is is_right
    assert seen[BLOCK_BYTES:].startswith(GARBAGE) is not is_right


def test_encrypted_volume_has_garbage_in_the_true_holes_alone(sandbox, make_upload, make_file):
    raw = CONTENTS["holes"]
    done = make_upload(make_file("raw, sparse", raw), encrypted=True).run()
    seen = sandbox.image_bytes(done.image_id, len(raw), encrypted=True)
    for index in range(HOLEY_BLOCKS):
        place = slice(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES)
        assert seen[place] == (raw[place] if index in DATA else GARBAGE)


# --- files beside the image


def bmap(raw, ranges, block_bytes=4096):
    """A block map of version 2.0, as bmaptool writes it; ranges are in blocks, ends included."""
    lines = "".join(f"<Range>{first}-{last}</Range>\n" for first, last in ranges)
    mapped = sum(last - first + 1 for first, last in ranges)
    text = (
        '<?xml version="1.0" ?>\n<bmap version="2.0">\n'
        f"<ImageSize>{len(raw)}</ImageSize>\n<BlockSize>{block_bytes}</BlockSize>\n"
        f"<BlocksCount>{-(-len(raw) // block_bytes)}</BlocksCount>\n<MappedBlocksCount>{mapped}</MappedBlocksCount>\n"
        "<ChecksumType>sha256</ChecksumType>\n<BmapFileChecksum>{}</BmapFileChecksum>\n"
        f"<BlockMap>\n{lines}</BlockMap>\n</bmap>\n"
    )
    return text.format(hashlib.sha256(text.format("0" * 64).encode()).hexdigest())


PAGES = BLOCK_BYTES // 4096
WRITTEN = [(0, PAGES - 1), (6 * PAGES, 7 * PAGES - 1), (8 * PAGES, 10 * PAGES - 1), (15 * PAGES, 15 * PAGES)]
"""All data blocks, and a page of the last block, which happens to be zeros."""


@pytest.fixture
def packed_disk(tmp_path):
    """An image with holes as OBS publishes it; returns its path."""
    path = tmp_path / "image.raw.xz"
    path.write_bytes(lzma.compress(CONTENTS["holes"], preset=0))
    return path


def beside(path: Path, ending: str, text: str) -> None:
    path.with_name(path.name + ending).write_text(text)


def test_bmap_beside_the_image_says_what_is_a_hole(sandbox, make_upload, packed_disk):
    raw = CONTENTS["holes"]
    beside(packed_disk, ".bmap", bmap(raw, WRITTEN))
    done = make_upload(packed_disk).run()
    assert "image.raw.xz.bmap says which parts of the image were ever written." in done.lines
    assert told(done) == (5, 4, 1, 11, 0)
    assert sandbox.image_bytes(done.image_id, len(raw)) == raw


@pytest.mark.parametrize(
    ("ending", "text", "words"),
    [
        (".bmap", bmap(CONTENTS["holes"], WRITTEN[:2]), "there is something in the hole at byte"),
        (".bmap", bmap(bytes(8 << 20) + b"x", WRITTEN), "it has 8388608 bytes, not 8388609"),
        (".bmap", bmap(bytes(8 << 20), WRITTEN).replace("<Range>", "<Ranga>", 1), "is not a sound block map"),
        (".sha256", f"{'0' * 64}  image.raw.xz\n", "is not the file that was promised: its SHA-256 is "),
        (".sha256", "nonsense\n", "is not a SHA-256 and a file name"),
    ],
    ids=["data in a hole", "other size", "broken map", "wrong digest", "broken digest"],
)
def test_file_beside_the_image_that_does_not_fit_fails_it(sandbox, make_upload, packed_disk, ending, text, words):
    beside(packed_disk, ending, text)
    make_upload(packed_disk).run().assert_failed(65, words)
    assert sandbox.left() == {}


def test_digest_that_is_right_is_kept_with_the_image(sandbox, make_upload, packed_disk, assert_uploaded):
    digest = hashlib.sha256(packed_disk.read_bytes()).hexdigest()
    beside(packed_disk, ".sha256", f"{digest}  image.raw.xz\n")
    done = make_upload(packed_disk, sha256=digest.upper()).run()
    image = assert_uploaded(done, CONTENTS["holes"])
    assert image["tags"]["clouduploader:sha256"] == digest


@pytest.mark.parametrize("form", ["xz", "raw", "qcow2"])
def test_digest_of_the_target_data_that_is_wrong_fails_it(sandbox, make_upload, make_file, form):
    upload = make_upload(make_file(form, CONTENTS["holes"]), sha256="1" * 64)
    upload.run().assert_failed(65, "is not the file that was promised")
    assert sandbox.left() == {}
