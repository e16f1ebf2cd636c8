"""What the threads of one transfer share: the chunks to send, the rate, what is sent again, and the end."""

import enum
import hashlib
import random
import threading
from collections.abc import Callable
from typing import ClassVar, Generic, TypeVar

from clouduploader.errors import ClouduploaderError, NetworkError, ThrottledError, TransientError
from clouduploader.model.disk import BlockSource
from clouduploader.plugin.context import UploadContext
from clouduploader.plugin.events import BytesMoved
from clouduploader.plugin.transfer.confirmed import ConfirmedChunks, zero_digest
from clouduploader.plugin.transfer.rate import RateLimiter, Window
from clouduploader.util.frozen import frozen

LOOK_SECONDS = 0.1  # between looks whether all is over


@frozen(kw_only=True)
class Timeouts:
    """How long what may take, in seconds, and how often it is tried.

    Attributes:
        stall_seconds: How long no chunk at all is confirmed.
        tries: Of one chunk, throttling not counted: with the pauses over two minutes, as long as a router
            takes to restart.
        pause_seconds: Before the second try; doubled from try to try.
        max_pause_seconds: The longest.
        tick_seconds: Between looks at progress and stalls.
    """

    stall_seconds: float = 300.0
    tries: int = 16
    pause_seconds: float = 0.2
    max_pause_seconds: float = 16.0
    tick_seconds: float = 0.25


class ChunkUpload:
    """One chunk on its way.

    Args:
        index: Of the chunk: its offset in the disk divided by the chunk size.
        digest: Its SHA-256.
        buffer: What is in it; None for zeros, and where it will be read again.
        is_zero: Whether it is all zeros.

    Attributes:
        index: As given; so are digest, buffer and is_zero.
        pauses: How often it had to wait.
        tries: How often it failed for other reasons than throttling.
    """

    __slots__ = ("buffer", "digest", "index", "is_zero", "pauses", "tries")

    def __init__(self, index: int, digest: bytes, buffer: bytearray | None, is_zero: bool) -> None:
        self.index = index
        self.digest = digest
        self.buffer = buffer
        self.is_zero = is_zero
        self.pauses = 0
        self.tries = 0


ChunkT = TypeVar("ChunkT", bound=ChunkUpload)


class NoChunk(enum.Enum):
    """Why there is no chunk to send."""

    CONFIRMED = enum.auto()
    """The cloud has this one already."""
    BUSY = enum.auto()
    """Another thread is unpacking."""
    END = enum.auto()
    """There are no more."""


class ChunkTransfer(Generic[ChunkT]):
    """The transfer of an image's chunks. Its methods may be called by several threads.

    Args:
        ctx: The upload: its cancellation, its clock, and the reporter that is told how many bytes have been passed.
        source: Where the chunks come from.
        confirmed: Says which of them the cloud has, and is told of more.
        chunk_type: Makes the record of a chunk on its way.
        per_second: How many requests a second there may be.
        most: How many chunks may be under way at once.
        total_bytes: Of the disk, for the reporter; None if that is not known.
        timeouts: See Timeouts.

    Attributes:
        ctx: As given; so are source and timeouts.
        clock: Seconds that only grow.
        limiter: The rate of requests.
        window: How many chunks may be under way at once now.
        error: What has ended the transfer, or None.
        last_seen: What the last request that failed met, for the error of a stall.
        is_drained: Whether the source has no more chunks.
        stall_hint: What to do about a stall.
    """

    stall_hint: ClassVar[str] = "Look at the network, and try again."

    def __init__(
        self,
        ctx: UploadContext,
        source: BlockSource,
        confirmed: ConfirmedChunks,
        *,
        chunk_type: Callable[[int, bytes, bytearray | None, bool], ChunkT],
        per_second: float,
        most: int,
        total_bytes: int | None,
        timeouts: Timeouts,
    ) -> None:
        self.ctx = ctx
        self.source = source
        self.timeouts = timeouts
        self.clock = ctx.clock.monotonic
        self.limiter = RateLimiter(per_second, self.clock())
        self.window = Window(most)
        self.error: ClouduploaderError | None = None
        self.last_seen = "no answer yet"
        self.is_drained = False
        self._confirmed = confirmed
        self._chunk_type = chunk_type
        self._total_bytes = total_bytes
        self._zero_digest = zero_digest(confirmed.chunk_bytes)
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._visited = bytearray()
        self._under_way = 0
        self._confirmed_at = self.clock()
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether all threads shall end now."""
        return self._is_over or self.ctx.cancel.is_requested

    def end(self, error: ClouduploaderError | None = None) -> None:
        """Make all threads end. The first error that is given is the one that counts."""
        with self._lock:
            self.error = self.error or error
            self._is_over = True

    def next_chunk(self, buffer: bytearray) -> ChunkT | NoChunk:
        """Read the next chunk, and find out whether it has to be sent.

        Where unpacking is one thread's work, the others do not wait for it.

        Args:
            buffer: Of one chunk; belongs to the chunk if one is returned that has a buffer.

        Raises:
            ClouduploaderError: What the source raises.
            ContentChangedError: The cloud has another content of this chunk.
        """
        if self.source.can_reread:
            block = self.source.next_into(buffer)
        elif self._reading.acquire(blocking=False):
            try:
                block = self.source.next_into(buffer)
            finally:
                self._reading.release()
        else:
            return NoChunk.BUSY
        if block is None:
            self.is_drained = True
            return NoChunk.END
        digest = self._zero_digest if block.is_zero else hashlib.sha256(buffer).digest()
        self._visit(block.index)
        if self._confirmed.has(block.index, digest):
            return NoChunk.CONFIRMED
        with self._lock:
            if not self._under_way:
                self._confirmed_at = self.clock()
            self._under_way += 1
        return self._chunk_type(block.index, digest, None if block.is_zero else buffer, block.is_zero)

    def await_turn(self, seconds: float) -> None:
        """Wait until no other thread unpacks, but not longer than that."""
        if self._reading.acquire(timeout=seconds):
            self._reading.release()

    def _visit(self, index: int) -> None:
        with self._lock:
            if index >= len(self._visited):
                self._visited.extend(bytes(index + 1 - len(self._visited)))
            self._visited[index] = 1

    def confirm(self, pairs: list[tuple[int, bytes]]) -> None:
        """Note what the cloud has confirmed, each chunk given by index and digest.

        Raises:
            LocalIOError: It can't be written.
        """
        self._confirmed.confirm(pairs)
        self.window.confirmed(len(pairs))
        with self._lock:
            self._under_way -= len(pairs)
            self._confirmed_at = self.clock()

    def sync(self) -> None:
        """Bring what was confirmed to the disk; see `ConfirmedChunks.sync`."""
        self._confirmed.sync()

    def check_rest(self) -> None:
        """Make sure, after the last chunk, that the cloud has no data where the image has none.

        Raises:
            ContentChangedError: It has.
        """
        self._confirmed.check_rest(self._visited)

    def check_stall(self) -> None:
        """See whether anything is confirmed at all.

        Raises:
            NetworkError: Nothing was, for too long.
        """
        with self._lock:
            is_stalled = self._under_way and self.clock() - self._confirmed_at > self.timeouts.stall_seconds
        if is_stalled:
            raise NetworkError(
                f"no block was confirmed for {self.timeouts.stall_seconds:.0f} seconds; last seen: {self.last_seen}",
                hint=self.stall_hint,
            )

    def report(self) -> None:
        """Tell the reporter how many bytes of the disk have been passed."""
        done = self.source.position()
        is_known = self._total_bytes is not None and done <= self._total_bytes
        self.ctx.reporter.event(BytesMoved(done, self._total_bytes if is_known else None))

    def sleep(self, seconds: float) -> None:
        """Sleep, but not beyond the end of the transfer."""
        ends_at = self.clock() + seconds
        while not self.is_over and (left := ends_at - self.clock()) > 0:
            self.ctx.clock.sleep(min(left, LOOK_SECONDS))

    def throttled(self, chunk: ChunkT, reason: str) -> float:
        """Send a chunk again, and all of them more slowly: the cloud wants fewer requests.

        Args:
            chunk: Which one was refused.
            reason: In the cloud's words.

        Returns:
            Seconds until the next try.
        """
        self.last_seen = reason
        self.limiter.throttled(self.clock())
        return self.pause(chunk)

    def stalled(self) -> None:
        """Slow down: a request got no answer in time."""
        now = self.clock()
        self.limiter.stalled(now)
        self.window.stalled(now)

    def again(self, chunk: ChunkT, error: ClouduploaderError) -> float:
        """Send a chunk again that failed.

        Args:
            chunk: Which one.
            error: With what.

        Returns:
            Seconds until the next try.

        Raises:
            ClouduploaderError: The error, if that was the last try.
        """
        self.last_seen = error.message
        chunk.tries += 1
        if chunk.tries >= self.timeouts.tries:
            raise error
        return self.pause(chunk)

    def failed(self, chunk: ChunkT, error: ClouduploaderError) -> float:
        """Decide by the kind of the error what becomes of a chunk.

        Returns:
            Seconds until the next try.

        Raises:
            ClouduploaderError: The error, if there will be none.
        """
        if isinstance(error, ThrottledError):
            return self.throttled(chunk, error.message)
        if not isinstance(error, TransientError):
            raise error
        if isinstance(error, NetworkError):  # mostly the time-out of an SDK, after tries of its own
            self.stalled()
        return self.again(chunk, error)

    def pause(self, chunk: ChunkT) -> float:
        """Return how long a chunk waits for its next try: doubled each time, with jitter."""
        chunk.pauses += 1
        longest = min(self.timeouts.pause_seconds * 2.0 ** min(chunk.pauses - 1, 30), self.timeouts.max_pause_seconds)
        return longest * (1 + random.random()) / 2  # noqa: S311 nothing secret
