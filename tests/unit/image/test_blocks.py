import contextlib
import hashlib
import signal
import threading

import hypothesis
import pytest
from hypothesis import strategies as st
from samples.packed_images import BLOCK, blocks_of, drained, noise

from clouduploader.errors import ImageError, LocalIOError, StoppedError
from clouduploader.image.blocks import BlockMap, BlockOptions, DiskBlockSource, StreamBlockSource
from clouduploader.model.disk import ReadStats, ZeroBlocks
from clouduploader.util.cancel import Cancel

RAW = bytes(2 * BLOCK) + noise(3 * BLOCK) + bytes(BLOCK) + noise(100, 2) + bytes(3 * BLOCK)


class Disk:
    """A store in memory that notes which blocks are read, and fails where it is told to."""

    def __init__(self, raw=RAW, extents=None, *, fail_at=None, is_map_binding=True):
        self.is_map_binding = is_map_binding
        self.size_bytes = len(raw)
        self.extents = ((0, len(raw)),) * bool(raw) if extents is None else extents
        self.read = []
        self._raw = raw
        self._fail_at = fail_at

    def read_into(self, offset, view):
        self.read.append(offset // BLOCK)
        if self._fail_at is not None and offset >= self._fail_at:
            raise LocalIOError("the disk is gone")
        assert offset + len(view) <= self.size_bytes
        view[:] = self._raw[offset : offset + len(view)]

    def is_hole(self, offset, size):
        assert not self.is_map_binding
        view = memoryview(bytearray(size))
        self.read_into(offset, view)
        return not any(view)


def options(**fields):
    defaults = {
        "filename": "a.raw",
        "block_bytes": BLOCK,
        "zero_blocks": ZeroBlocks.SEND,
        "written": None,
        "is_promise": True,
        "cancel": Cancel(),
        "on_end": lambda _digest: None,
    }
    return BlockOptions(**{**defaults, **fields})


def stored(disk=None, **fields):
    disk = disk or Disk()
    file_sha256 = fields.pop("file_sha256", lambda: None)
    return DiskBlockSource(disk, options(**{"written": disk.extents, **fields}), file_sha256=file_sha256)


def streamed(pieces=(RAW,), **fields):
    digest, file_sha256 = fields.pop("digest", None), fields.pop("file_sha256", lambda: "f" * 64)
    return StreamBlockSource(iter(pieces), options(**fields), digest=digest, file_sha256=file_sha256)


def counts(source):
    stats = source.stats()
    return stats.data_blocks, stats.zero_blocks, stats.hole_blocks, stats.skipped_blocks


@hypothesis.given(
    cuts=st.lists(st.integers(0, 200), max_size=12), block_bytes=st.integers(1, 20), overlap=st.integers(0, 30)
)
def test_map_has_the_blocks_that_a_part_lies_in(cuts, block_bytes, overlap):
    extents = [(start, end + overlap) for start, end in zip(*[iter(sorted(cuts))] * 2, strict=False) if start < end]
    expected = {place // block_bytes for start, end in extents for place in range(start, end)}
    found = BlockMap(extents, block_bytes)
    assert list(found) == sorted(expected)
    assert len(found) == len(expected)
    assert {index for index in range(-1, 300) if index in found} == expected


@pytest.mark.parametrize("make", [stored, streamed])
@pytest.mark.parametrize("threads", [1, 4])
def test_all_blocks_are_handed_out_once_in_order(make, threads):
    source = make()
    assert drained(source, threads=threads) == blocks_of(RAW)
    assert counts(source) == (4, 6, 0, 0)
    assert source.position() == source.stats().size_bytes == len(RAW)


@pytest.mark.parametrize("make", [stored, streamed])
def test_blocks_come_in_ascending_order(make):
    source, buffer, found = make(), bytearray(BLOCK), []
    positions = [source.position()]
    while block := source.next_into(buffer):
        found.append(block.index)
        positions.append(source.position())
    assert found == list(range(10))
    assert positions == [min(number * BLOCK, len(RAW)) for number in range(11)]


@pytest.mark.parametrize("make", [stored, streamed])
@pytest.mark.parametrize(
    ("zero_blocks", "expected"),
    [(ZeroBlocks.SEND, (4, 6, 0, 0)), (ZeroBlocks.HOLES, (4, 2, 4, 0)), (ZeroBlocks.SKIP, (4, 0, 4, 2))],
)
def test_zeros_become_what_is_wanted_of_them(make, zero_blocks, expected):
    source = make(zero_blocks=zero_blocks, written=((2 * BLOCK - 1, 6 * BLOCK + 1),))
    found = drained(source, threads=3)
    assert counts(source) == expected
    everything = blocks_of(RAW)
    left_out = {0, 7, 8, 9} if zero_blocks is not ZeroBlocks.SEND else set()
    left_out |= {1, 5} if zero_blocks is ZeroBlocks.SKIP else set()
    assert found == {index: block for index, block in everything.items() if index not in left_out}
    assert sum(counts(source)) == len(everything)


@pytest.mark.parametrize("zero_blocks", ZeroBlocks)
def test_holes_of_a_disk_format_are_not_read(zero_blocks):
    disk = Disk(extents=((2 * BLOCK, 5 * BLOCK), (6 * BLOCK + 50, 6 * BLOCK + 100)))
    source = stored(disk, zero_blocks=zero_blocks)
    found = drained(source)
    assert sorted(disk.read) == [2, 3, 4, 6]
    assert {index for index, content in found.items() if content} == {2, 3, 4, 6}
    assert (len(found) == 4) is (zero_blocks is not ZeroBlocks.SEND)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("zero_blocks", ZeroBlocks)
def test_holes_by_the_books_of_a_file_system_are_read_before_they_are_left_out(zero_blocks, threads):
    disk = Disk(extents=((3 * BLOCK, 4 * BLOCK),), is_map_binding=False)  # which lacks most of what there is
    source = stored(disk, zero_blocks=zero_blocks, is_promise=False)
    found = drained(source, threads=threads)
    assert set(disk.read) == set(range(10))
    assert {index: content for index, content in found.items() if content} == {
        index: content for index, content in blocks_of(RAW).items() if content
    }
    sent = zero_blocks is ZeroBlocks.SEND
    assert counts(source) == (4, 6 * sent, 6 * (not sent), 0)


def test_something_in_a_hole_by_the_books_of_a_file_system_is_an_error_if_a_bmap_promises_it():
    disk = Disk(extents=((3 * BLOCK, 4 * BLOCK),), is_map_binding=False)
    source = stored(disk, zero_blocks=ZeroBlocks.HOLES, written=((2 * BLOCK, 5 * BLOCK),))
    with pytest.raises(ImageError, match=rf"\.bmap describes: .* hole at byte {6 * BLOCK}"):
        drained(source)


def test_what_a_map_calls_written_is_sent_though_the_file_has_a_hole_there():
    disk = Disk(extents=((2 * BLOCK, 7 * BLOCK),))
    source = stored(disk, zero_blocks=ZeroBlocks.HOLES, written=((0, 7 * BLOCK),))
    assert sorted(drained(source)) == list(range(7))
    assert counts(source) == (4, 3, 3, 0)
    assert 0 not in disk.read


@pytest.mark.parametrize("make", [stored, streamed])
@pytest.mark.parametrize("zero_blocks", ZeroBlocks)
def test_something_in_a_hole_of_the_map_is_an_error(make, zero_blocks):
    source = make(zero_blocks=zero_blocks, written=((0, 4 * BLOCK), (5 * BLOCK, len(RAW))))
    with pytest.raises(ImageError, match=rf"not what its \.bmap describes: .* hole at byte {4 * BLOCK}"):
        drained(source, threads=2)


@pytest.mark.parametrize("make", [lambda: stored(Disk(b"")), lambda: streamed(())])
def test_empty_disk_has_no_blocks(make):
    source = make()
    assert source.next_into(bytearray(BLOCK)) is None
    assert source.stats().size_bytes == source.position() == 0
    assert source.next_into(bytearray(BLOCK)) is None


@pytest.mark.parametrize("make", [stored, streamed])
def test_tally_is_refused_before_the_end(make):
    source = make()
    source.next_into(bytearray(BLOCK))
    with pytest.raises(ValueError, match="not been read to its end"):
        source.stats()


@hypothesis.given(
    sizes=st.lists(st.integers(1, 50), max_size=30),
    block_bytes=st.integers(1, 40),
    zeros=st.sets(st.integers(0, 29)),
)
def test_pieces_of_any_size_give_the_same_blocks(sizes, block_bytes, zeros):
    pieces = [bytes(size) if place in zeros else noise(size, place) for place, size in enumerate(sizes)]
    raw = b"".join(pieces)
    digest = hashlib.sha256()
    source = streamed(pieces, block_bytes=block_bytes, digest=digest)
    assert drained(source, threads=2, block_bytes=block_bytes) == blocks_of(raw, block_bytes=block_bytes)
    assert source.stats() == ReadStats(
        size_bytes=len(raw),
        data_blocks=sum(block is not None for block in blocks_of(raw, block_bytes=block_bytes).values()),
        zero_blocks=sum(block is None for block in blocks_of(raw, block_bytes=block_bytes).values()),
        hole_blocks=0,
        skipped_blocks=0,
        file_sha256="f" * 64,
        raw_sha256=hashlib.sha256(raw).hexdigest(),
    )


def test_rereading_gives_what_was_handed_out():
    source = stored()
    first = drained(source, threads=2)
    for index, content in first.items():
        buffer = bytearray(b"x" * BLOCK)
        source.reread_into(index, buffer)
        assert buffer == (content or bytes(BLOCK))


def test_stream_cannot_be_reread():
    source = streamed()
    assert not source.can_reread
    source.next_into(bytearray(BLOCK))
    with pytest.raises(ValueError, match="gone"):
        source.reread_into(0, bytearray(BLOCK))


def failing(exc):
    yield RAW[:BLOCK]
    raise exc


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: stored(Disk(fail_at=4 * BLOCK)), LocalIOError),
        (lambda: streamed(failing(ImageError("it is damaged"))), ImageError),
        (lambda: streamed(failing(MemoryError())), MemoryError),
    ],
)
def test_error_is_every_threads_and_for_ever(make, error):
    source = make()
    for _ in range(3):
        with pytest.raises(error):
            drained(source, threads=3)
    with pytest.raises(ValueError, match="not been read to its end"):
        source.stats()


def test_end_waits_for_those_who_still_read():
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Disk):
        def read_into(self, offset, view):
            begun.set()
            assert go_on.wait(60)
            raise LocalIOError("the last block can't be read")

    source = stored(Slow(noise(BLOCK)))
    results = []

    def work():
        with contextlib.suppress(LocalIOError):
            results.append(source.next_into(bytearray(BLOCK)))

    reader = threading.Thread(target=work)
    reader.start()
    assert begun.wait(60)
    ender = threading.Thread(target=work)
    ender.start()
    ender.join(0.2)
    assert ender.is_alive()
    go_on.set()
    reader.join()
    ender.join()
    assert results == []


@pytest.mark.parametrize("make", [stored, streamed])
def test_stop_ends_it(make):
    cancel = Cancel()
    source = make(cancel=cancel)
    assert source.next_into(bytearray(BLOCK))
    cancel.request(signal.SIGTERM)
    with pytest.raises(StoppedError):
        source.next_into(bytearray(BLOCK))


def test_stop_is_seen_among_blocks_that_are_left_out():
    cancel = Cancel()

    def zeros():
        yield bytes(BLOCK)
        cancel.request(signal.SIGTERM)
        yield bytes(BLOCK)

    source = streamed(zeros(), zero_blocks=ZeroBlocks.SKIP, cancel=cancel)
    with pytest.raises(StoppedError):
        source.next_into(bytearray(BLOCK))


def test_digest_that_is_not_the_promised_is_an_error_at_the_end():
    def refuse():
        raise ImageError("another file")

    source = streamed(file_sha256=refuse)
    with pytest.raises(ImageError, match="another file"):
        drained(source)


def test_closed_stream_has_no_end():
    source = streamed()
    source.close()
    with pytest.raises(ValueError, match="closed"):
        source.next_into(bytearray(BLOCK))


def test_threads_share_a_long_disk():
    raw = noise(300 * BLOCK + 17)
    for source in (stored(Disk(raw)), streamed([raw[place : place + 5000] for place in range(0, len(raw), 5000)])):
        assert drained(source, threads=8) == blocks_of(raw)
