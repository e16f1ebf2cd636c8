"""What is sent next, and what becomes of a chunk that failed; by a clock in which a sleep takes no time."""

import threading
import types

import pytest

from clouduploader.errors import DeniedError, NetworkError, ThrottledError, TransientError
from clouduploader.model.disk import Block
from clouduploader.plugin import BytesMoved
from clouduploader.plugin.testing import fakes
from clouduploader.plugin.transfer import ChunkTransfer, ChunkUpload, ConfirmedChunks, NoChunk, Timeouts, workers
from clouduploader.plugin.transfer.rate import CONGESTION_STALLS
from clouduploader.util.cancel import Cancel

CHUNK_BYTES = 4096
TIMEOUTS = Timeouts(stall_seconds=10, tries=3, pause_seconds=1, max_pause_seconds=4)


class Source:
    """Three chunks, the second of zeros."""

    can_reread = False

    def __init__(self):
        self.given = 0

    def next_into(self, buffer):
        if self.given == 3:
            return None
        self.given += 1
        buffer[:] = b"x" * CHUNK_BYTES
        return Block(self.given - 1, self.given == 2)

    def position(self):
        return self.given * CHUNK_BYTES


@pytest.fixture
def make_transfer(tmp_path):
    """A factory of a transfer of at most 8 chunks at once; they share the log of confirmed chunks."""
    with ConfirmedChunks(tmp_path / "confirmed", CHUNK_BYTES) as confirmed:

        def make(source=None, total_bytes=3 * CHUNK_BYTES):
            ctx = types.SimpleNamespace(clock=fakes.FakeClock(), cancel=Cancel(), reporter=fakes.RecordingReporter())
            return ChunkTransfer(
                ctx,
                source or Source(),
                confirmed,
                chunk_type=ChunkUpload,
                per_second=100,
                most=8,
                total_bytes=total_bytes,
                timeouts=TIMEOUTS,
            )

        yield make


def read(transfer):
    return transfer.next_chunk(bytearray(CHUNK_BYTES))


def test_chunks_come_in_order_and_end(make_transfer):
    transfer = make_transfer()
    chunks = [read(transfer) for _ in range(3)]
    assert [(chunk.index, chunk.is_zero, chunk.buffer is None) for chunk in chunks] == [
        (0, False, False), (1, True, True), (2, False, False),
    ]  # fmt: skip
    assert not transfer.is_drained
    assert read(transfer) is NoChunk.END
    assert transfer.is_drained


def test_confirmed_chunk_is_not_sent_again(make_transfer):
    chunk = read(first := make_transfer())
    first.confirm([(chunk.index, chunk.digest)])
    assert read(make_transfer()) is NoChunk.CONFIRMED


def test_thread_does_not_wait_for_one_that_unpacks(make_transfer):
    is_unpacking, gate = threading.Event(), threading.Event()

    class Slow(Source):
        def next_into(self, buffer):
            is_unpacking.set()
            assert gate.wait(30)
            return super().next_into(buffer)

    transfer = make_transfer(Slow())
    thread = threading.Thread(target=read, args=(transfer,))
    thread.start()
    assert is_unpacking.wait(30)
    assert read(transfer) is NoChunk.BUSY
    gate.set()
    thread.join()


def test_failed_chunk_waits_longer_from_try_to_try_and_then_ends_it(make_transfer):
    transfer = make_transfer()
    chunk = read(transfer)
    waits = [transfer.failed(chunk, TransientError("no")) for _ in range(2)]
    assert 0.5 <= waits[0] <= 1 <= waits[1] <= 2
    with pytest.raises(TransientError):
        transfer.failed(chunk, TransientError("no"))


def test_throttled_chunk_slows_all_down_and_is_no_failed_try(make_transfer):
    transfer = make_transfer()
    chunk = read(transfer)
    assert all(transfer.failed(chunk, ThrottledError("slower")) <= TIMEOUTS.max_pause_seconds for _ in range(50))
    assert (chunk.tries, transfer.limiter.per_second) == (0, 70)


def test_silence_that_repeats_makes_the_window_smaller(make_transfer):
    transfer = make_transfer()
    for _ in range(CONGESTION_STALLS):
        transfer.failed(read(transfer), NetworkError("no answer"))
    assert transfer.window.size == 4


def test_final_error_is_raised(make_transfer):
    transfer = make_transfer()
    with pytest.raises(DeniedError):
        transfer.failed(read(transfer), DeniedError("no"))


def test_stall_is_told_with_what_was_seen_last(make_transfer):
    transfer = make_transfer()
    transfer.failed(read(transfer), TransientError("503"))
    transfer.ctx.clock.now += TIMEOUTS.stall_seconds
    transfer.check_stall()
    transfer.ctx.clock.now += 1
    with pytest.raises(NetworkError, match="for 10 seconds; last seen: 503"):
        transfer.check_stall()


def test_time_without_anything_to_send_is_no_stall(make_transfer):
    transfer = make_transfer()
    transfer.ctx.clock.now += 2 * TIMEOUTS.stall_seconds  # unpacking
    read(transfer)
    transfer.check_stall()


@pytest.mark.parametrize(("total", "told"), [(3 * CHUNK_BYTES, 3 * CHUNK_BYTES), (CHUNK_BYTES, None), (None, None)])
def test_total_is_told_as_long_as_it_can_be_true(make_transfer, total, told):
    transfer = make_transfer(total_bytes=total)
    for _ in range(3):
        read(transfer)
    transfer.report()
    assert transfer.ctx.reporter.events == [BytesMoved(3 * CHUNK_BYTES, told)]


def test_first_error_counts(make_transfer):
    transfer = make_transfer()
    transfer.end(first := DeniedError("first"))
    transfer.end(DeniedError("second"))
    assert (transfer.is_over, transfer.error) == (True, first)


def test_thread_beyond_the_window_sends_nothing(make_transfer):
    transfer, sent = make_transfer(), []
    transfer.ctx.clock.sleep = lambda _seconds: transfer.end()
    works = workers(transfer, lambda chunk, _data: sent.append(chunk.index), chunk_bytes=CHUNK_BYTES)
    for _ in range(3 * CONGESTION_STALLS):
        transfer.window.stalled(0.0)
    works[1]()
    assert (len(works), sent, transfer.is_over) == (8, [], True)
