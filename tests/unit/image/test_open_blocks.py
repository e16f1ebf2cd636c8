import bz2
import gzip
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st
from samples.packed_images import (
    BLOCK,
    COMPRESS,
    PACKED,
    blocks_of,
    drained,
    multi_block_xz,
    noise,
    open_blocks,
    pack_xz,
    tarball,
    vhd_footer,
    zstd,
)

from clouduploader.errors import ImageError, LocalIOError, StoppedError
from clouduploader.image import open as image_open
from clouduploader.image import xz
from clouduploader.model.disk import Compression, Image, ZeroBlocks
from clouduploader.plugin.testing.fakes import RecordingReporter
from clouduploader.util.cancel import Cancel

DATA = noise(BLOCK)
HOLE = bytes(BLOCK)
SKIPPABLE = b"\x50\x2a\x4d\x18\5\0\0\0notes"  # RFC 8878, section 3.1.2
CONTENTS = {
    "1 byte": b"x",
    "1 zero": b"\0",
    "a block less a byte": DATA[1:],
    "a block": DATA,
    "a block and a byte": DATA + b"x",
    "a block and a zero": DATA + b"\0",
    "holes at both ends": HOLE * 40 + DATA * 3 + HOLE + DATA + HOLE * 40,
    "zeros alone": HOLE * 50,
    "a short end": noise(3 * BLOCK + 777),
}
WAYS = {
    **{str(kind): compress for kind, compress in COMPRESS.items()},
    "many xz": lambda raw: multi_block_xz([raw[place : place + 5000] for place in range(0, len(raw), 5000)]),
    "two xz": lambda raw: b"".join(pack_xz(half) + bytes(8) for half in (raw[:100], raw[100:])),
    "two gz": lambda raw: gzip.compress(raw[:100]) + gzip.compress(raw[100:]),
    "two zst": lambda raw: SKIPPABLE.join((zstd.compress(raw[:100]), zstd.compress(raw[100:]), b"")),
    "two bz2": lambda raw: bz2.compress(raw[:100]) + bz2.compress(raw[100:]),
    "vhd": lambda raw: raw + vhd_footer(len(raw)),
    "vhd.xz": lambda raw: pack_xz(raw + vhd_footer(len(raw))),
    "vhd.gz": lambda raw: gzip.compress(raw + vhd_footer(len(raw))),
    "vhd.zst": lambda raw: zstd.compress(raw + vhd_footer(len(raw))),
    "vhd.bz2": lambda raw: bz2.compress(raw + vhd_footer(len(raw))),
    "tar": lambda raw: tarball({"LICENSE": b"text", "dir/a.raw": raw, "a.raw.sha256": b"0" * 64}),
    "tar.gz": lambda raw: gzip.compress(tarball({"a.raw": raw, "b.txt": b"x" * 9000})),
    "tar.xz": lambda raw: pack_xz(tarball({"a.raw": raw})),
    "tar.zst": lambda raw: zstd.compress(tarball({"b.txt": b"x" * 9000, "a.raw": raw})),
    "tar.bz2": lambda raw: bz2.compress(tarball({"a.raw": raw})),
    "tar of a vhd": lambda raw: tarball({"a.raw": raw + vhd_footer(len(raw))}),
}
PACKED_WAYS = [way for way in WAYS if way not in ("raw", "vhd")]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("content", CONTENTS)
def test_blocks_are_those_of_the_raw_disk(make_image, way, content):
    raw = CONTENTS[content]
    data = WAYS[way](raw)
    with open_blocks(make_image(data), with_digests=True) as source:
        assert drained(source, threads=3) == blocks_of(raw)
        stats = source.stats()
    assert (stats.size_bytes, stats.data_blocks + stats.zero_blocks) == (len(raw), -(-len(raw) // BLOCK))
    assert stats.file_sha256 == hashlib.sha256(data).hexdigest()
    assert stats.raw_sha256 == hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize("way", [way for way in PACKED_WAYS if "vhd" not in way])
def test_empty_disk_is_refused_in_a_packing(make_image, way):
    words = r"a\.raw\.xz holds an empty disk"
    with open_blocks(make_image(WAYS[way](b""))) as source, pytest.raises(ImageError, match=words):
        drained(source)


@pytest.mark.parametrize("way", [way for way in WAYS if "vhd" in way])
def test_footer_alone_is_no_disk(make_image, way):
    """Nor a fixed VHD, which can't be told from a dynamic one then."""
    with (
        pytest.raises(ImageError, match=r"is a fixed VHD, not a dynamic one|holds a vhd-dynamic in its"),
        open_blocks(make_image(WAYS[way](b""))) as source,
    ):
        drained(source)


VIRTUAL = {
    "qcow2": ["qcow2"],
    "qcow2, compressed": ["qcow2", "-c"],
    "vmdk": ["vmdk"],
    "vmdk, compressed": ["vmdk", "-o", "subformat=streamOptimized"],
    "dynamic vhd": ["vpc", "-o", "subformat=dynamic,force_size=on"],
}


@pytest.mark.parametrize("kind", VIRTUAL)
def test_blocks_of_a_virtual_disk_are_those_of_the_raw_one(tmp_path, kind):
    """The sizes at once that differ in whole sectors, as such a disk has them."""
    for name in ("1 byte", "a block", "a block and a byte", "holes at both ends", "zeros alone", "a short end"):
        raw = CONTENTS[name].ljust(-(-len(CONTENTS[name]) // 512) * 512, b"\0")
        (tmp_path / "a.raw").write_bytes(raw)
        command = ["qemu-img", "convert", "-f", "raw", "-O", *VIRTUAL[kind], tmp_path / "a.raw", tmp_path / "a"]
        subprocess.run(command, check=True)
        with open_blocks(image_open.describe(tmp_path / "a", "a", Cancel())) as source:
            assert drained(source, threads=3) == blocks_of(raw)
            assert source.stats().size_bytes == len(raw)


@pytest.mark.parametrize("way", PACKED_WAYS)
def test_packed_file_has_its_digest_always_and_cannot_be_reread(make_image, way):
    data = WAYS[way](noise(9 * BLOCK))
    with open_blocks(make_image(data)) as source:
        assert not source.can_reread
        drained(source)
        stats = source.stats()
    assert (stats.file_sha256, stats.raw_sha256) == (hashlib.sha256(data).hexdigest(), None)


@pytest.mark.parametrize("way", ["raw", "vhd"])
def test_unpacked_file_is_read_anywhere_unless_a_digest_is_wanted(make_image, way):
    raw = noise(9 * BLOCK + 5)
    image = make_image(WAYS[way](raw))
    with open_blocks(image) as source:
        assert source.can_reread
        assert drained(source, threads=3) == blocks_of(raw)
        assert source.stats().file_sha256 is None
    with open_blocks(image, expected_sha256=hashlib.sha256(WAYS[way](raw)).hexdigest()) as source:
        assert not source.can_reread
        assert drained(source, threads=3) == blocks_of(raw)


@pytest.mark.parametrize("way", WAYS)
def test_other_file_than_was_promised_is_an_error_showing_both_digests(make_image, way):
    data = WAYS[way](noise(3 * BLOCK))
    with open_blocks(make_image(data), expected_sha256="AB" * 32) as source:
        with pytest.raises(ImageError, match=f"SHA-256 is {hashlib.sha256(data).hexdigest()}, not {'ab' * 32}"):
            drained(source, threads=2)
        with pytest.raises(ValueError, match="not been read"):
            source.stats()


@pytest.mark.parametrize("way", WAYS)
def test_disk_larger_than_allowed_is_an_error(make_image, way):
    raw = noise(40 * BLOCK)
    image = make_image(WAYS[way](raw))
    with open_blocks(image, max_size_bytes=len(raw)) as source:
        assert drained(source) == blocks_of(raw)
    words = f"larger than {len(raw) - 1} bytes"
    with pytest.raises(ImageError, match=words), open_blocks(image, max_size_bytes=len(raw) - 1) as source:
        drained(source)


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("cut", [1, 5, 30])
def test_packing_that_is_cut_off_is_an_error_before_the_end(make_image, kind, cut):
    data = COMPRESS[kind](noise(3 * BLOCK))[:-cut]
    with open_blocks(make_image(data)) as source, pytest.raises(ImageError, match=rf"cut off.* byte {len(data)}$"):
        drained(source, threads=2)


@pytest.mark.parametrize("kind", PACKED)
def test_garbage_behind_the_packing_is_an_error_before_the_end(make_image, kind):
    data = COMPRESS[kind](noise(3 * BLOCK))
    words = rf"something else .* at byte {len(data)}: a signature"
    with open_blocks(make_image(data + b"rubbish")) as source, pytest.raises(ImageError, match=words):
        drained(source, threads=2)


@pytest.mark.parametrize("head", [b"QFI\xfb", b"KDMV", b"conectix"])
@pytest.mark.parametrize("way", PACKED_WAYS)
def test_disk_that_takes_more_than_unpacking_is_refused_in_a_packing(make_image, head, way):
    image = make_image(WAYS[way](head + DATA))
    words = r"holds a (qcow2|vmdk|vhd-dynamic) in its \w+ packing"
    with open_blocks(image) as source, pytest.raises(ImageError, match=words) as caught:
        source.next_into(bytearray(BLOCK))
    assert caught.value.hint == "Unpack it first."


@pytest.mark.parametrize("way", ["vhd", "vhd.xz", "tar of a vhd"])
def test_footer_of_another_size_is_an_error(make_image, way):
    data = WAYS[way](DATA).replace(vhd_footer(BLOCK), vhd_footer(BLOCK + 512))
    if way == "vhd.xz":
        data = pack_xz(DATA + vhd_footer(BLOCK + 512))
    words = rf"its VHD footer at byte {BLOCK} is that of {BLOCK + 512} bytes"
    with pytest.raises(ImageError, match=words), open_blocks(make_image(data)) as source:
        drained(source)


@pytest.mark.parametrize("end", [b"", b"x", bytes(511), vhd_footer(0)[1:], b"conectix"])
def test_end_that_is_no_footer_belongs_to_the_disk(make_image, end):
    raw = DATA + end
    for compress in COMPRESS.values():
        with open_blocks(make_image(compress(raw))) as source:
            assert drained(source) == blocks_of(raw)


@pytest.mark.parametrize("way", ["vhd", "vhd.xz", "tar of a vhd"])
def test_footer_that_is_damaged_is_an_error(make_image, way):
    footer = vhd_footer(BLOCK)
    damaged = footer[:100] + b"!" + footer[101:]
    data = pack_xz(DATA + damaged) if way == "vhd.xz" else WAYS[way](DATA).replace(footer, damaged)
    words = rf"its VHD footer at byte {BLOCK} is damaged"
    with pytest.raises(ImageError, match=words), open_blocks(make_image(data)) as source:
        drained(source)


def sparse(path, *parts, size):
    with path.open("wb") as file:
        for offset, data in parts:
            file.seek(offset)
            file.write(data)
        file.truncate(size)
    return image_open.describe(path, path.name, Cancel())


MIB = 1 << 20


@pytest.mark.parametrize(
    ("zero_blocks", "expected"),
    [(ZeroBlocks.SEND, (3, 5, 0, 0)), (ZeroBlocks.HOLES, (3, 1, 4, 0)), (ZeroBlocks.SKIP, (3, 0, 4, 1))],
)
@pytest.mark.parametrize("with_digests", [False, True])
def test_holes_of_a_sparse_file_are_holes(tmp_path, zero_blocks, expected, with_digests):
    image = sparse(
        tmp_path / "a.raw", (MIB, noise(MIB) + bytes(MIB) + noise(MIB, 2)), (6 * MIB, b"x" * 4096), size=8 * MIB - 9
    )
    if image.path.stat().st_blocks * 512 > 4 * MIB:
        pytest.fail("TMPDIR keeps no holes")
    with open_blocks(image, block_bytes=MIB, zero_blocks=zero_blocks, with_digests=with_digests) as source:
        found = drained(source, threads=2, block_bytes=MIB)
        stats = source.stats()
    assert (stats.data_blocks, stats.zero_blocks, stats.hole_blocks, stats.skipped_blocks) == expected
    everything = blocks_of(image.path.read_bytes(), block_bytes=MIB)
    assert {index: block for index, block in found.items() if block} == {
        index: block for index, block in everything.items() if block
    }
    if with_digests:
        assert stats.file_sha256 == stats.raw_sha256 == hashlib.sha256(image.path.read_bytes()).hexdigest()


def bmap(size_bytes, *ranges):
    lines = "".join(f"<Range>{first}-{last}</Range>" for first, last in ranges)
    return (
        f'<bmap version="2.0"><ImageSize>{size_bytes}</ImageSize><BlockSize>{BLOCK}</BlockSize>'
        f"<BlockMap>{lines}</BlockMap></bmap>"
    )


@pytest.mark.parametrize("way", [way for way in WAYS if "tar" not in way])
@pytest.mark.parametrize("with_digests", [False, True])
def test_map_beside_the_image_tells_the_holes(tmp_path, way, with_digests):
    raw = HOLE * 3 + DATA + HOLE * 2 + noise(BLOCK, 2) + HOLE * 2 + b"end"
    (tmp_path / "a.raw.xz").write_bytes(WAYS[way](raw))
    (tmp_path / "a.raw.bmap").write_text(bmap(len(raw), (2, 4), (6, 6), (9, 9)))
    log = RecordingReporter()
    with open_blocks(
        image_open.describe(tmp_path / "a.raw.xz", "a.raw.xz", Cancel()),
        zero_blocks=ZeroBlocks.HOLES,
        reporter=log,
        with_digests=with_digests,
    ) as source:
        assert sorted(drained(source, threads=2)) == [2, 3, 4, 6, 9]
        stats = source.stats()
    assert (stats.data_blocks, stats.zero_blocks, stats.hole_blocks, stats.skipped_blocks) == (3, 2, 5, 0)
    assert log.lines == ["a.raw.bmap says which parts of the image were ever written."]


@pytest.mark.parametrize("way", [way for way in WAYS if "tar" not in way])
@pytest.mark.parametrize("with_digests", [False, True])
def test_checksums_of_the_map_beside_the_image_are_looked_at(tmp_path, way, with_digests):
    raw = HOLE + DATA + HOLE + noise(BLOCK, 2)
    sums = [hashlib.sha256(raw[place * BLOCK : (place + 1) * BLOCK]).hexdigest() for place in (1, 3)]
    lines = "".join(f'<Range chksum="{digest}">{n}</Range>' for n, digest in zip((1, 3), sums, strict=True))
    (tmp_path / "a.raw.bmap").write_text(
        f'<bmap version="2.0"><ImageSize>{len(raw)}</ImageSize><BlockSize>{BLOCK}</BlockSize>'
        f"<ChecksumType>sha256</ChecksumType><BlockMap>{lines}</BlockMap></bmap>"
    )
    for position in (None, BLOCK, len(raw) - 1):
        changed = bytearray(raw)
        if position is not None:
            changed[position] ^= 1
        (tmp_path / "a.raw").write_bytes(WAYS[way](bytes(changed)))
        image = image_open.describe(tmp_path / "a.raw", "a.raw", Cancel())
        with open_blocks(image, zero_blocks=ZeroBlocks.HOLES, with_digests=with_digests) as source:
            if position is None:
                assert sorted(drained(source, threads=2)) == [1, 3]
                assert source.stats().hole_blocks == 2
                continue
            with pytest.raises(ImageError, match=r"not what its \.bmap describes: the sha256 of the bytes"):
                drained(source, threads=2)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (bmap(4 * BLOCK, (0, 0), (3, 3)), rf"something in the hole at byte {2 * BLOCK}"),
        (bmap(3 * BLOCK, (0, 2)), rf"\.bmap describes: (it has {4 * BLOCK} bytes, not|.* at byte) {3 * BLOCK}"),
        (bmap(5 * BLOCK, (0, 4)), rf"it has {4 * BLOCK} bytes, not {5 * BLOCK}"),
        ("rubbish", "not a sound block map"),
    ],
)
def test_map_of_another_image_is_an_error(tmp_path, way, text, words):
    (tmp_path / "a.raw").write_bytes(WAYS[way](DATA + HOLE + DATA * 2))
    (tmp_path / "a.raw.bmap").write_text(text)
    image = image_open.describe(tmp_path / "a.raw", "a.raw", Cancel())
    with pytest.raises(ImageError, match=words), open_blocks(image) as source:
        drained(source, threads=2)


@pytest.mark.parametrize("zero_blocks", ZeroBlocks)
def test_qcow2_is_read_as_its_disk(tmp_path, zero_blocks):
    raw = tmp_path / "a.raw"
    content = HOLE * 32 + noise(32 * BLOCK) + HOLE * 64
    raw.write_bytes(content)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, tmp_path / "a.qcow2"], check=True)
    image = image_open.describe(tmp_path / "a.qcow2", "a.qcow2", Cancel())
    with open_blocks(image, zero_blocks=zero_blocks) as source:
        assert source.can_reread
        found = drained(source, threads=3)
        assert source.stats().size_bytes == len(content)
        again = bytearray(BLOCK)
        source.reread_into(40, again)
    assert again == content[40 * BLOCK : 41 * BLOCK]
    everything = blocks_of(content)
    assert found.items() >= {index: block for index, block in everything.items() if block}.items()
    assert (found == everything) is (zero_blocks is ZeroBlocks.SEND)
    with open_blocks(image, zero_blocks=zero_blocks, with_digests=True) as source:
        assert drained(source, threads=3) == found
        stats = source.stats()
    assert stats.raw_sha256 == hashlib.sha256(content).hexdigest()
    assert stats.file_sha256 == hashlib.sha256(image.path.read_bytes()).hexdigest()
    with pytest.raises(ImageError, match="SHA-256"), open_blocks(image, expected_sha256="0" * 64) as source:
        drained(source)


def test_fixed_vhd_of_qemu_is_read_as_its_disk(tmp_path):
    content = noise(MIB // 16).ljust(MIB, b"\0")
    (tmp_path / "a.raw").write_bytes(content)
    subprocess.run(
        ["qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", "subformat=fixed,force_size=on", "a.raw", "a.vhd"],
        cwd=tmp_path,
        check=True,
    )
    for compress in COMPRESS.values():
        (tmp_path / "b").write_bytes(compress((tmp_path / "a.vhd").read_bytes()))
        image = image_open.describe(tmp_path / "b", "b", Cancel())
        assert image_open.unpacked_size(image, Cancel())[0] in (len(content), None)
        with open_blocks(image) as source:
            assert drained(source) == blocks_of(content)


def test_single_large_block_of_xz_is_said_once(tmp_path, monkeypatch):
    monkeypatch.setattr(xz, "MAX_BLOCK_BYTES", 10_000)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})

    def said(data):
        path = tmp_path / "a.raw.xz"
        path.write_bytes(data)
        log = RecordingReporter()
        with open_blocks(image_open.describe(path, path.name, Cancel()), reporter=log) as source:
            drained(source, threads=2)
        return log.lines

    advice = "so one core unpacks it; xz -T0 makes files that several can."
    assert said(pack_xz(noise(10_001))) == [f"a.raw.xz has a single block, {advice}"]
    assert said(multi_block_xz([noise(10_001)] * 2)) == [f"a.raw.xz has blocks that are too large, {advice}"]
    assert said(multi_block_xz([noise(9_000)] * 2)) == []
    assert said(pack_xz(noise(9_000))) == []


@pytest.mark.parametrize("way", WAYS)
def test_stop_ends_it(make_image, way):
    cancel = Cancel()
    with open_blocks(make_image(WAYS[way](noise(9 * BLOCK))), cancel=cancel) as source:
        assert source.next_into(bytearray(BLOCK))
        cancel.request(signal.SIGTERM)
        with pytest.raises(StoppedError):
            source.next_into(bytearray(BLOCK))


@pytest.mark.parametrize("way", PACKED_WAYS)
def test_progress_is_told_in_bytes_of_the_file(make_image, way):
    data, told = WAYS[way](noise(9 * BLOCK)), []
    with open_blocks(make_image(data), on_bytes=told.append) as source:
        drained(source)
    assert told == sorted(told)
    assert told[-1] == len(data)


@pytest.mark.parametrize("kind", COMPRESS)
def test_file_that_went_away_is_an_error_of_ours(make_image, kind):
    image = make_image(COMPRESS[kind](DATA))
    image.path.unlink()
    with pytest.raises(LocalIOError, match="can't be read: No such file"), open_blocks(image):
        pass


def test_file_that_becomes_shorter_is_an_error(make_image):
    image = make_image(noise(9 * BLOCK))
    with open_blocks(image) as source:
        os.truncate(image.path, 2 * BLOCK)
        with pytest.raises(ImageError, match=f"became shorter while it was read: it ends at byte {2 * BLOCK}"):
            drained(source)


@pytest.mark.parametrize("way", WAYS)
def test_source_is_closed_with_the_context(make_image, way):
    with open_blocks(make_image(WAYS[way](noise(40 * BLOCK)))) as source:
        assert source.next_into(bytearray(BLOCK))
    with pytest.raises(ValueError, match="the image is closed"):
        source.next_into(bytearray(BLOCK))


@pytest.mark.parametrize("kind", [*PACKED, Compression.TAR, Compression.RAW])
@hypothesis.settings(max_examples=50)
@hypothesis.given(data=st.binary(min_size=1, max_size=200), is_tarball=st.booleans())
def test_any_bytes_give_blocks_or_an_error(tmp_path_factory, kind, data, is_tarball):
    path = tmp_path_factory.mktemp("image") / "a"
    path.write_bytes(COMPRESS[Compression.RAW](data))
    is_tarball = kind is Compression.TAR or (is_tarball and kind is not Compression.RAW)
    try:
        with open_blocks(Image(path, "a", kind, len(data), is_tarball), max_size_bytes=1 << 20) as source:
            found = drained(source)
    except ImageError:
        return
    assert kind is not Compression.RAW or found == blocks_of(data)


BOMB = """
import sys, lzma, gzip
from pathlib import Path
from samples.packed_images import open_blocks, zstd
from clouduploader.errors import ImageError
from clouduploader.image import open as image_open
from clouduploader.util.cancel import Cancel

def peak_kib():  # getrusage would begin with the peak of the process that started this one
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])

path, kind = Path(sys.argv[1]), sys.argv[2]
piece = bytes(1 << 22)
packed = {"xz": lzma.compress(piece, preset=0), "gz": gzip.compress(piece, 1), "zst": zstd.compress(piece)}
path.write_bytes(packed[kind] * 20)
image = image_open.describe(path, "a.raw", Cancel())
with open_blocks(image, block_bytes=1 << 19) as source:  # so that all is loaded
    buffer = bytearray(1 << 19)
    source.next_into(buffer)
before = peak_kib()
try:
    with open_blocks(image, block_bytes=1 << 19, max_size_bytes=50 << 20) as source:
        while source.next_into(buffer):
            pass
except ImageError as exc:
    print(source.position(), peak_kib() - before, exc)
"""


@pytest.mark.parametrize("kind", ["xz", "gz", "zst"])
def test_bomb_ends_where_it_is_too_large_in_constant_memory(tmp_path, kind):
    done = subprocess.run(
        [sys.executable, "-c", BOMB, tmp_path / "bomb", kind],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    position, growth_kib, message = done.stdout.split(maxsplit=2)
    assert int(position) <= 50 << 20
    assert int(position) > (50 << 20) - (1 << 20)
    assert int(growth_kib) < 16 << 10
    assert "larger than 52428800 bytes" in message


@pytest.mark.parametrize("compress", [compress for compress in COMPRESS.values() if compress is not bytes])
def test_size_in_sectors_is_asked_for_where_it_is_wanted(make_image, compress):
    image = make_image(compress(DATA + b"x"))
    words = rf"\S+ is not the image of a disk: its {BLOCK + 1} bytes are no multiple of 512"
    with pytest.raises(ImageError, match=words), open_blocks(image, in_sectors=True) as source:
        drained(source)
    with pytest.raises(ImageError, match=words):
        image_open.measure(image, on_bytes=lambda _done: None, cancel=Cancel(), in_sectors=True)
    image = make_image(compress(DATA + bytes(512)))
    with open_blocks(image, in_sectors=True) as source:
        assert len(drained(source)) == 2


def test_what_is_forced_is_passed_over_and_told(make_image):
    disk = noise(3 * BLOCK)
    signature = b"signature" * 100
    for data, words in (
        (gzip.compress(disk) + signature, "else behind the end of its gz data"),
        (bz2.compress(disk) + signature, "else behind the end of its bz2 data"),
        (tarball({"a.raw": disk}) + signature, "else behind the end of its tarball"),
        (tarball({"a.raw": disk}, end=0), "without an end mark"),
    ):
        told = []
        image = make_image(data)
        with open_blocks(image, overlook=told.append) as source:
            assert drained(source, threads=2) == blocks_of(disk)
            assert source.stats().file_sha256 == hashlib.sha256(data).hexdigest()
        assert len(told) == 1
        assert words in told[0]
        assert image_open.measure(image, on_bytes=lambda _done: None, cancel=Cancel(), overlook=told.append) == len(
            disk
        )
        with pytest.raises(ImageError, match=words) as caught, open_blocks(image) as source:
            drained(source)
        assert "force" in caught.value.hint


def written_to(path):
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")


def appended_to(path):
    times = path.stat()
    with path.open("ab") as file:
        file.write(b"more")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def replaced(path):
    times = path.stat()
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(path)


def touched(path):
    os.utime(path, ns=(0, 0))


@pytest.mark.parametrize("change", [written_to, appended_to, replaced, touched])
@pytest.mark.parametrize("compress", [bytes, gzip.compress, pack_xz, COMPRESS[Compression.ZSTD]])
@pytest.mark.parametrize("with_digests", [False, True])
@pytest.mark.parametrize("when", ["before it is opened", "after its first block"])
def test_image_that_changes_while_it_is_read_has_no_end(make_image, compress, change, with_digests, when):
    image = make_image(compress(noise(5 * BLOCK)))
    if when == "before it is opened":
        change(image.path)

    def read_all():
        with open_blocks(image, with_digests=with_digests) as source:
            source.next_into(bytearray(BLOCK))
            if when != "before it is opened":
                change(image.path)
            drained(source, threads=2)

    with pytest.raises(ImageError):
        read_all()


@pytest.mark.parametrize("change", [written_to, appended_to, replaced, touched])
def test_image_that_changes_before_it_is_measured_is_refused(make_image, change):
    image = make_image(gzip.compress(noise(5 * BLOCK)) + bytes(9))
    change(image.path)
    with pytest.raises(ImageError):
        image_open.measure(image, on_bytes=lambda _done: None, cancel=Cancel())
    raw = make_image(noise(5 * BLOCK))
    change(raw.path)
    with pytest.raises(ImageError, match="changed while it was read: it was written to, or replaced"):
        image_open.measure(raw, on_bytes=lambda _done: None, cancel=Cancel())


def test_image_that_is_not_there_any_more_is_an_error_of_this_machine(make_image):
    image = make_image(noise(5 * BLOCK))
    with open_blocks(image) as source:
        image.path.unlink()
        with pytest.raises(LocalIOError, match="can't be read"):
            drained(source)


@pytest.mark.parametrize("compress", [gzip.compress, bytes])
@pytest.mark.parametrize("zero_blocks", ZeroBlocks)
@pytest.mark.parametrize("has_map", [False, True])
def test_what_a_map_would_save_is_told_of_a_packed_disk(make_image, compress, zero_blocks, has_map):
    raw = HOLE * 5 + DATA + HOLE * 3 + DATA
    image = make_image(compress(raw), "a.raw.gz")
    if has_map:
        image.path.with_name("a.raw.bmap").write_text(bmap(len(raw), (5, 9)))
    log = RecordingReporter()
    with open_blocks(image, zero_blocks=zero_blocks, reporter=log) as source:
        drained(source)
    told = [line for line in log.lines if "bmaptool create" in line]
    is_wanted = compress is gzip.compress and zero_blocks is ZeroBlocks.HOLES and not has_map
    assert told == [line for line in told if line.startswith("8 of 10 blocks (0 MiB) are zeros. ") and is_wanted]
    assert bool(told) is is_wanted


def test_packed_disk_without_zeros_needs_no_map(make_image):
    log = RecordingReporter()
    with open_blocks(make_image(gzip.compress(DATA * 3)), zero_blocks=ZeroBlocks.HOLES, reporter=log) as source:
        drained(source)
    assert log.lines == []


@pytest.mark.parametrize("disk_format", ["qcow2", "vmdk", "vpc"])
@pytest.mark.parametrize("hole_bytes", [0, 1 << 40])
def test_holes_of_a_virtual_disk_are_hashed_if_they_are_not_too_many(tmp_path, monkeypatch, disk_format, hole_bytes):
    monkeypatch.setattr(image_open, "MAX_HASHED_HOLE_BYTES", hole_bytes)
    (tmp_path / "raw").write_bytes((HOLE * 7 + DATA + HOLE * 1000).ljust(8 << 20, b"\0"))
    path = tmp_path / "a.img"
    subprocess.run(["qemu-img", "convert", "-O", disk_format, tmp_path / "raw", path], check=True)
    image = image_open.describe(path, "a.img", Cancel())
    with open_blocks(image, zero_blocks=ZeroBlocks.HOLES, with_digests=True) as source:
        found = drained(source, threads=2)
        stats = source.stats()
    assert [block for block in found.values() if block] == [DATA]
    assert stats.file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    raw = (tmp_path / "raw").read_bytes().ljust(stats.size_bytes, b"\0")  # vpc rounds up
    assert stats.raw_sha256 == (hashlib.sha256(raw).hexdigest() if hole_bytes else None)
