"""Send chunks from several threads, by any SDK, until the cloud has confirmed each of them."""

import functools
from collections.abc import Callable, Iterable

from clouduploader.errors import ClouduploaderError
from clouduploader.model.disk import BlockSource
from clouduploader.plugin.context import UploadContext
from clouduploader.plugin.transfer.chunks import ChunkT, ChunkTransfer, ChunkUpload, NoChunk, Timeouts
from clouduploader.plugin.transfer.confirmed import ConfirmedChunks
from clouduploader.plugin.transfer.threads import ThreadGroup

SYNC_SECONDS = 5.0  # of confirmed chunks may have to be sent again after the machine has crashed
BUSY_SECONDS = 0.01  # until a thread looks again whether it is its turn to unpack


def send_chunks(
    ctx: UploadContext,
    source: BlockSource,
    put: Callable[[int, bytes], None],
    *,
    confirmed: ConfirmedChunks,
    threads: int,
    per_second: float,
    total_bytes: int | None,
    timeouts: Timeouts | None = None,
) -> None:
    """Send all chunks of an image that the cloud does not have yet. Blocks.

    Chunks are read in ascending order, and sent by at most `threads` threads at once: by a single one in order, each
    only after the one before it was confirmed. A chunk that failed with a TransientError is sent again after a pause;
    a ThrottledError slows all of them down. When this returns or raises, no thread uses anything that was given here,
    but that calls of `put` which were under way when the transfer failed may run to their end.

    Args:
        ctx: The upload.
        source: The chunks, from `ctx.open_blocks`.
        put: Called with a chunk's index and bytes; sends it once, and returns when the cloud has it. Called by
            several threads; what the SDK raises goes through `Platform.translate`.
        confirmed: What the cloud has already, and gets what it will have.
        threads: How many; each holds two chunks in memory.
        per_second: How many requests a second there may be: a little less than the quota.
        total_bytes: Of the disk, for the progress; None if that is not known.
        timeouts: See Timeouts; None for the usual.

    Raises:
        ContentChangedError: The cloud has a chunk of other content; chunks may have been sent.
        NetworkError: Nothing was confirmed for minutes.
        StoppedError: The upload was cancelled; seen within about a second.
        ClouduploaderError: What `put` or the source raises in the end; LocalIOError also for `confirmed`.
    """
    transfer: ChunkTransfer[ChunkUpload] = ChunkTransfer(
        ctx,
        source,
        confirmed,
        chunk_type=ChunkUpload,
        per_second=per_second,
        most=threads,
        total_bytes=total_bytes,
        timeouts=timeouts or Timeouts(),
    )
    group = ThreadGroup()

    def attempt(chunk: ChunkUpload, data: bytes) -> float | None:
        try:
            with group.away(), ctx.translated(f"block {chunk.index}"):
                put(chunk.index, data)
        except ClouduploaderError as exc:
            return transfer.failed(chunk, exc)
        return None

    run(transfer, group, workers(transfer, attempt, chunk_bytes=confirmed.chunk_bytes))


def run(
    transfer: ChunkTransfer[ChunkT],
    group: ThreadGroup,
    works: Iterable[Callable[[], None]],
    *,
    on_tick: Callable[[], None] = lambda: None,
) -> None:
    """Let threads send, and look after what is common to them: progress, stalls, the log on the disk. Blocks.

    Args:
        transfer: What they share.
        group: Runs them; nothing of it is left but threads that are away.
        works: What each of them does; ends when there are no more chunks or `transfer.is_over`, and gives errors to
            `transfer.end`.
        on_tick: Called several times a second, by the caller's thread.

    Raises:
        ClouduploaderError: See `send_chunks`.
    """
    synced_at = transfer.clock()
    try:
        for work in works:
            group.start(work)
        while not transfer.is_over and not group.wait(transfer.timeouts.tick_seconds):
            transfer.report()
            on_tick()
            transfer.check_stall()
            if transfer.clock() - synced_at > SYNC_SECONDS:
                synced_at = transfer.clock()
                transfer.sync()
    finally:
        transfer.end()
        group.leave()
    group.wait(0)
    transfer.report()
    transfer.ctx.cancel.raise_if_requested()
    if transfer.error:
        raise transfer.error
    transfer.check_rest()


def workers(
    transfer: ChunkTransfer[ChunkT], attempt: Callable[[ChunkT, bytes], float | None], *, chunk_bytes: int
) -> list[Callable[[], None]]:
    """Make what threads do that send one chunk each at a time, as many as the transfer's window may have.

    Args:
        transfer: What they share.
        attempt: Sends a chunk once, given with a copy of its bytes; returns None if the cloud has it, else seconds
            until the next try. Its errors end the transfer.
        chunk_bytes: The size of a chunk.
    """
    zeros = bytes(chunk_bytes)

    def send_once(chunk: ChunkT) -> float | None:
        return attempt(chunk, zeros if chunk.buffer is None else bytes(chunk.buffer))

    return [
        functools.partial(_work, transfer, number, bytearray(chunk_bytes), send_once)
        for number in range(transfer.window.most)
    ]


def _work(
    transfer: ChunkTransfer[ChunkT], number: int, buffer: bytearray, send_once: Callable[[ChunkT], float | None]
) -> None:
    """Send chunks until there are no more, or the transfer ends. An error ends it."""
    try:
        while not transfer.is_over and not transfer.is_drained:
            if number >= transfer.window.size:
                transfer.sleep(BUSY_SECONDS)
                continue
            found = transfer.next_chunk(buffer)
            if found is NoChunk.BUSY:
                transfer.await_turn(BUSY_SECONDS)
            elif not isinstance(found, NoChunk):
                _send(transfer, found, send_once)
    except ClouduploaderError as exc:
        transfer.end(exc)


def _send(transfer: ChunkTransfer[ChunkT], chunk: ChunkT, send_once: Callable[[ChunkT], float | None]) -> None:
    """Try until the chunk is confirmed, or the transfer ends."""
    delay: float | None = 0.0
    while delay is not None:
        transfer.sleep(delay)
        while not transfer.is_over and (wait := transfer.limiter.take(transfer.clock())):
            transfer.sleep(wait)
        if transfer.is_over:
            return
        delay = send_once(chunk)
    transfer.confirm([(chunk.index, chunk.digest)])
