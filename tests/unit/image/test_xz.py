import contextlib
import hashlib
import lzma
import random
import subprocess
import threading

import hypothesis
import pytest
from hypothesis import strategies as st
from samples.packed_images import crc, multi_block_xz, noise, pack_xz, xz_number, xz_stream

from clouduploader.errors import ImageError
from clouduploader.image import decompress, packed_file, xz
from clouduploader.model.disk import Compression, Image
from clouduploader.util.cancel import Cancel

CONTENTS = [noise(5000) + bytes(100_000), b"x", bytes(70_000), noise(40_000, 2)]
CHECKS = [lzma.CHECK_NONE, lzma.CHECK_CRC32, lzma.CHECK_CRC64, lzma.CHECK_SHA256]
DATA = multi_block_xz(CONTENTS)


@contextlib.contextmanager
def opened(path, data, cancel=None):
    path.write_bytes(data)
    with packed_file.open_packed(Image(path, "a.xz", Compression.XZ, len(data)), cancel=cancel or Cancel()) as file:
        yield file


def unpacked(path, data, *, threads=2):
    with opened(path, data) as file:
        found = xz.read_streams(file)
        return b"".join(xz.unpack(file, found, threads))


def in_order(path, data):
    with opened(path, data) as file:
        return b"".join(decompress.unpack(file, Compression.XZ))


def parsed(path, data):
    with opened(path, data) as file:
        return xz.read_streams(file)


def decoders():
    return [thread for thread in threading.enumerate() if thread.name.startswith("xz")]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_blocks_come_out_in_order(tmp_path, check, threads):
    data = multi_block_xz(CONTENTS, check=check)
    assert lzma.decompress(data) == b"".join(CONTENTS)
    assert unpacked(tmp_path / "a", data, threads=threads) == b"".join(CONTENTS)
    assert decoders() == []


def test_indexes_of_many_streams_take_few_bytes_each(tmp_path, monkeypatch):
    read = []
    pread = packed_file.os.pread
    monkeypatch.setattr(packed_file.os, "pread", lambda fd, size, offset: read.append(size) or pread(fd, size, offset))
    assert len(parsed(tmp_path / "a", pack_xz(b"") * 2000)) == 2000
    assert sum(read) < 2000 * 1024
    assert parsed(tmp_path / "a", pack_xz(b"") * 33_000) is None
    read.clear()
    assert len(parsed(tmp_path / "a", pack_xz(b"x") + bytes(1 << 20))) == 1
    assert len(read) < 20


@hypothesis.settings(max_examples=50)
@hypothesis.given(
    parts=st.lists(
        st.tuples(st.lists(st.binary(min_size=1, max_size=300), max_size=4), st.integers(0, 3).map(lambda n: 4 * n)),
        min_size=1,
        max_size=4,
    )
)
def test_all_streams_with_all_padding_come_out(tmp_path_factory, parts):
    data = b"".join(multi_block_xz(contents) + bytes(padding) for contents, padding in parts)
    expected = b"".join(b"".join(contents) for contents, _ in parts)
    path = tmp_path_factory.mktemp("xz") / "a"
    assert unpacked(path, data) == expected
    assert xz.unpacked_size(parsed(path, data)) == len(expected)


def test_padding_larger_than_what_is_read_at_once_is_skipped(tmp_path):
    data = DATA + bytes(3 * packed_file.READ_BYTES + 4) + DATA + bytes(packed_file.READ_BYTES)
    assert unpacked(tmp_path / "a", data) == 2 * b"".join(CONTENTS)


def test_file_of_xz_itself_is_read(tmp_path):
    raw = noise(300_000) + bytes(1 << 20)
    done = subprocess.run(
        ["xz", "-0", "--block-size=65536", "-T2", "-c"], input=raw, stdout=subprocess.PIPE, check=True
    )
    found = parsed(tmp_path / "a", done.stdout)
    assert xz.block_count(found) == -(-len(raw) // 65536)
    assert xz.unpacked_size(found) == len(raw)
    assert unpacked(tmp_path / "a", done.stdout) == raw


def test_whole_file_is_read_in_its_order(tmp_path):
    with opened(tmp_path / "a", DATA + bytes(8)) as file:
        for _ in xz.unpack(file, xz.read_streams(file), 2):
            pass
        assert file.offset == len(DATA) + 8
        assert file.sha256() == hashlib.sha256(DATA + bytes(8)).hexdigest()


@hypothesis.settings(max_examples=300)
@hypothesis.given(position=st.integers(0, len(DATA) - 1), bit=st.integers(0, 7))
def test_any_wrong_bit_is_noticed(tmp_path_factory, position, bit):
    data = bytearray(DATA)
    data[position] ^= 1 << bit
    with pytest.raises(ImageError, match=r"a\.xz (is damaged|is cut off)"):
        unpacked(tmp_path_factory.mktemp("xz") / "a", bytes(data))
    assert decoders() == []


@hypothesis.given(share=st.floats(0, 1, exclude_max=True, exclude_min=True))
def test_cut_off_file_is_refused_wherever_it_is_cut(tmp_path_factory, share):
    size = 1 + int((len(DATA) - 1) * share)
    with pytest.raises(ImageError, match=r"a\.xz is (cut off|damaged).* at byte \d+$"):
        parsed(tmp_path_factory.mktemp("xz") / "a", DATA[:size])


@pytest.mark.parametrize("garbage", [b"x", b"rubbish" * 100, bytes(1), bytes(7), DATA[:-1], DATA[1:]])
def test_garbage_behind_the_end_is_refused(tmp_path, garbage):
    with pytest.raises(ImageError, match=r"a\.xz is (cut off|damaged)"):
        parsed(tmp_path / "a", DATA + garbage)


@pytest.mark.parametrize("garbage", [b"rubbish!", bytes(4), DATA[:-4]])
def test_garbage_before_the_beginning_is_refused(tmp_path, garbage):
    with pytest.raises(ImageError, match=r"a\.xz is (cut off|damaged)"):
        parsed(tmp_path / "a", garbage + DATA)


def block_and_index():
    """The one block of a stream, and the sizes of it."""
    stream = lzma.compress(CONTENTS[0], preset=0)
    index_bytes = (int.from_bytes(stream[-8:-4], "little") + 1) * 4
    block = stream[12 : -12 - index_bytes]
    unpadded = int.from_bytes(stream[-12 - index_bytes + 2 : -12 - index_bytes + 4], "little")
    return block, (unpadded & 0x7F) | (unpadded >> 8 & 0x7F) << 7


def index_of(*numbers, count=None):
    body = b"\0" + xz_number(len(numbers) // 2 if count is None else count) + b"".join(map(xz_number, numbers))
    return body + bytes(-len(body) % 4)


def test_index_that_tells_the_truth_is_believed(tmp_path):
    block, unpadded = block_and_index()
    data = xz_stream(block, index_of(unpadded, len(CONTENTS[0])))
    assert unpacked(tmp_path / "a", data) == CONTENTS[0]


@pytest.mark.parametrize(
    ("unpadded_more", "unpacked_more"), [(0, 1), (0, -1), (0, 1 << 62), (-1, 0), (1, 0), (0, -len(CONTENTS[0]))]
)
def test_index_that_lies_about_a_block_is_noticed(tmp_path, unpadded_more, unpacked_more):
    block, unpadded = block_and_index()
    index = index_of(unpadded + unpadded_more, len(CONTENTS[0]) + unpacked_more)
    data = xz_stream(block, index)
    with pytest.raises(ImageError, match=r"a\.xz is damaged: (bad xz data in the block at byte 12|its xz index)"):
        unpacked(tmp_path / "a", data)


def test_two_blocks_that_the_index_calls_one_are_noticed(tmp_path):
    block, unpadded = block_and_index()
    data = xz_stream(block * 2, index_of(len(block) + unpadded, 2 * len(CONTENTS[0])))
    with pytest.raises(ImageError, match="bad xz data in the block at byte 12"):
        unpacked(tmp_path / "a", data)


def test_whole_stream_in_place_of_a_block_is_noticed(tmp_path):
    block, unpadded = block_and_index()
    inside = xz_stream(block, index_of(unpadded, len(CONTENTS[0])))[12:]
    data = xz_stream(inside, index_of(len(inside), len(CONTENTS[0])))
    with pytest.raises(ImageError, match="bad xz data in the block at byte 12"):
        unpacked(tmp_path / "a", data)


@pytest.mark.parametrize(
    "index",
    [
        index_of(5, 1, count=2),
        index_of(5, 1, count=0),
        index_of(5, 1, count=1 << 62),
        index_of(4, 1),
        index_of(1 << 62, 1),
        index_of() + bytes(4),
        b"\1\0\0\0",
        b"\0\x80\0\0",
        b"\0\1\x85\0\1\0\0\0",
        b"\0" + b"\xff" * 11,
        b"\0\0\0\1",
    ],
)
def test_index_that_makes_no_sense_is_damage(tmp_path, index):
    with pytest.raises(ImageError, match=r"a\.xz is damaged: .*index"):
        parsed(tmp_path / "a", xz_stream(bytes(8), index))


@pytest.mark.parametrize("flags", [b"\1\4", b"\0\x14", b"\xff\xff"])
def test_reserved_flags_are_refused(tmp_path, flags):
    with pytest.raises(ImageError, match="no xz data end"):
        parsed(tmp_path / "a", xz_stream(b"", index_of(), flags=flags))


def test_header_with_other_flags_than_the_footer_is_refused(tmp_path):
    block, unpadded = block_and_index()
    data = xz_stream(block, index_of(unpadded, len(CONTENTS[0])), header_flags=b"\0\1")
    with pytest.raises(ImageError, match="its xz index does not fit its data at byte 0"):
        parsed(tmp_path / "a", data)


def test_index_larger_than_can_be_looked_at_leaves_it_unknown(tmp_path):
    blocks = xz.MAX_INDEX_BYTES // 2
    data = xz_stream(b"", index_of(*[5, 0] * blocks))
    assert parsed(tmp_path / "a", data) is None


def test_index_of_the_largest_size_is_bounded_in_memory(tmp_path):
    blocks = xz.MAX_INDEX_BYTES // 2 - 20
    data = xz_stream(bytes(8 * blocks), index_of(*[5, 0] * blocks))
    found = parsed(tmp_path / "a", data)
    assert xz.block_count(found) == blocks
    assert found[0].sizes.itemsize * len(found[0].sizes) <= 8 << 20


@hypothesis.given(
    head=st.binary(max_size=40),
    index=st.binary(max_size=40),
    flags=st.binary(min_size=2, max_size=2),
    lie=st.booleans(),
)
def test_any_bytes_are_read_as_in_order_or_refused(tmp_path_factory, head, index, flags, lie):
    index = b"\0" + index + bytes(-(len(index) + 1) % 4)
    data = xz_stream(head + bytes(-len(head) % 4), index, flags=flags)
    path = tmp_path_factory.mktemp("xz") / "a"
    try:
        found = unpacked(path, data)
    except ImageError:
        return
    assert found == in_order(path, data)


@hypothesis.settings(max_examples=300)
@hypothesis.given(
    position=st.integers(0, len(DATA) - 1), patch=st.binary(min_size=1, max_size=8), cut=st.integers(0, 8)
)
def test_any_change_is_read_as_in_order_or_refused(tmp_path_factory, position, patch, cut):
    data = DATA[:position] + patch + DATA[position + cut :]
    path = tmp_path_factory.mktemp("xz") / "a"
    try:
        found = unpacked(path, data)
    except ImageError:
        return
    assert found == in_order(path, data)


def test_threads_are_bounded_by_cores_blocks_and_memory(tmp_path):
    found = parsed(tmp_path / "a", DATA)
    assert xz.thread_count(found, 1) == 1
    assert xz.thread_count(found, 3) == 3
    assert xz.thread_count(found, 64) == len(CONTENTS)

    def claiming(*sizes):
        return [xz.XzStream(b"\0\4", sizes, b"", 0)]

    assert xz.thread_count(claiming(100, xz.MAX_BLOCK_BYTES) * 64, 64) == 7
    assert xz.thread_count(claiming(100, xz.MAX_BLOCK_BYTES + 1) * 64, 64) == 1
    assert xz.thread_count(claiming(xz.MAX_BLOCK_BYTES + 1, 100) * 64, 64) == 1
    assert xz.thread_count(claiming(100, 24 << 20) * 64, 64) == 20


def test_threads_end_with_the_iterator(tmp_path):
    with opened(tmp_path / "a", DATA * 20) as file:
        pieces = xz.unpack(file, xz.read_streams(file), 3)
        assert next(pieces)
        assert decoders()
        pieces.close()
        assert decoders() == []
        assert file.offset < len(DATA) * 2  # no more was read than was asked for


def test_file_that_changed_in_between_is_noticed(tmp_path):
    path = tmp_path / "a"
    for position in (3, len(DATA) - 30, len(DATA) - 3):
        with opened(path, DATA) as file:
            found = xz.read_streams(file)
            changed = bytearray(DATA)
            changed[position] ^= 1
            path.write_bytes(changed)
            with pytest.raises(ImageError, match=r"a\.xz changed while it was read, at byte \d+"):
                list(xz.unpack(file, found, 2))
    with opened(path, DATA) as file:
        found = xz.read_streams(file)
        with path.open("ab") as more:
            more.write(b"more")
        with pytest.raises(ImageError, match=f"something else behind the end of its xz data, at byte {len(DATA)}"):
            list(xz.unpack(file, found, 2))


def test_block_that_asks_for_the_whole_memory_is_refused(tmp_path):
    data = bytearray(DATA)
    end = 12 + (data[12] + 1) * 4 - 4
    data[data.index(b"\x21\x01", 12) + 2] = 40  # filter LZMA2, one byte of properties: 4 GiB; xz file format 5.3.1
    data[end : end + 4] = crc(bytes(data[12:end]))
    with pytest.raises(ImageError, match="needs more than 256 MiB of memory"):
        unpacked(tmp_path / "a", bytes(data))


def test_numbers_are_written_as_they_are_read():
    for value in [0, 1, 127, 128, 16383, 16384, (1 << 63) - 1, *(random.Random(1).getrandbits(n) for n in range(63))]:  # noqa: S311
        assert xz._number(xz_number(value), 0) == (value, len(xz_number(value)))
        assert xz._packed_number(value) == xz_number(value)
