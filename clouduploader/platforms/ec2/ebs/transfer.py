"""What the threads of one transfer share: the blocks to send, the pace, the verdict on failures, and its end."""

import base64
import dataclasses
import enum
import hashlib
import random
import threading
import time
from collections.abc import Callable

from clouduploader.errors import ClouduploaderError, NetworkError, PlatformReplyError, TransientError
from clouduploader.model.disk import BlockSource
from clouduploader.platforms.ec2 import aws_errors
from clouduploader.platforms.ec2.ebs import confirmed as ebs_confirmed
from clouduploader.platforms.ec2.ebs import protocol, rate
from clouduploader.platforms.ec2.settings import Ec2Settings
from clouduploader.platforms.ec2.sigv4 import AccessKeys
from clouduploader.plugin import visibility
from clouduploader.util.cancel import Cancel
from clouduploader.util.frozen import frozen

ZERO_BLOCK = bytes(protocol.BLOCK_BYTES)
_ZERO_CHECKSUM = base64.b64encode(ebs_confirmed.ZERO_DIGEST).decode()
RENEWAL_PAUSE_SECONDS = 0.5  # between looks whether there are new credentials

_THROTTLED = {"ThrottlingException", "Throttling", "RequestThrottledException", "RequestThrottled", "SlowDown"}
_EXPIRED = {"ExpiredTokenException", "ExpiredToken", "RequestExpired"}
_SKEWED = {"InvalidSignatureException", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "RequestExpired"}
_PASSING_REASONS = {
    "WRITE_REQUEST_TIMEOUT",  # the block arrived too slowly
    "CONFLICTING_BLOCK_UPDATE",  # an earlier try of ours is still being written
}
_NOT_THERE_YET = {"SNAPSHOT_NOT_FOUND", "INVALID_SNAPSHOT_ID"}


@frozen(kw_only=True)
class Timeouts:
    """How long what may take, in seconds, and how often it is tried.

    Attributes:
        connect_seconds: For a connection, TLS included.
        silence_seconds: How long nothing moves while a block is sent, and then how long the answer takes. EBS
            answers within a second; coldsnap, which met servers that never do, waits 12 s (its pull request 438).
        stall_seconds: How long no block at all is confirmed.
        tries: Of one block, throttling not counted: with the pauses over two minutes, as long as a router
            takes to restart.
        pause_seconds: Before the second try; doubled from try to try.
        max_pause_seconds: The longest.
        appearance_seconds: How long a new snapshot may be unknown to some of AWS's servers.
        tick_seconds: Between looks at progress, stop and credentials.
    """

    connect_seconds: float = 15.0
    silence_seconds: float = 20.0
    stall_seconds: float = 300.0
    tries: int = 16
    pause_seconds: float = 0.2
    max_pause_seconds: float = 16.0
    appearance_seconds: float = visibility.UNSEEN_SECONDS
    tick_seconds: float = 0.25


@dataclasses.dataclass(slots=True)
class BlockUpload:
    """One block on its way.

    Attributes:
        index: Of the block.
        digest: Its SHA-256.
        checksum: The same in base64.
        buffer: What is in it; None for zeros, and where it will be read again.
        is_zero: Whether it is all zeros.
        pauses: How often it had to wait.
        tries: How often it failed for other reasons than throttling.
        renewals: The number of renewals of credentials when it was last refused for expired ones.
        is_clock_set: Whether the clock was set because of it.
    """

    index: int
    digest: bytes
    checksum: str
    buffer: bytearray | None
    is_zero: bool
    pauses: int = 0
    tries: int = 0
    renewals: int | None = None
    is_clock_set: bool = False


class NoBlock(enum.Enum):
    """Why there is no block to send."""

    SKIPPED = enum.auto()
    """This one is confirmed already."""
    BUSY = enum.auto()
    """Another thread is unpacking."""
    END = enum.auto()
    """There are no more."""


class BlockTransfer:
    """The transfer of an image's blocks into a snapshot.

    Args:
        source: Where the blocks come from.
        book: Where confirmed ones are noted.
        settings: For pace and window.
        patience: See Patience.
        requests: Whose clock is set when AWS says that it is wrong; None where that is not ours to do.
        url: Of the endpoint, for errors.
        snapshot_id: For errors.
        keys: Credentials to begin with.
        cancel: Looked at by all threads.
        clock: Monotonic seconds.
        jitter: Gives numbers from 0 to 1.
    """

    def __init__(
        self,
        *,
        source: BlockSource,
        book: ebs_confirmed.ConfirmedBlocks,
        settings: Ec2Settings,
        patience: Timeouts,
        requests: protocol.BlockRequests | None,
        url: str,
        snapshot_id: str,
        keys: AccessKeys,
        cancel: Cancel,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.source = source
        self.patience = patience
        self.keys = keys
        self.clock = clock
        self.url = url
        self.pacer = rate.RateLimiter(settings.blocks_per_second, clock())
        self.window = rate.Window(settings.connections)
        self.error: ClouduploaderError | None = None
        self.renewal_wanted = threading.Event()
        self._renewals = 0
        self._are_others = False  # whether the last one gave others than before
        self._book = book
        self._requests = requests
        self._subject = f"snapshot {snapshot_id}"
        self._cancel = cancel
        self._jitter = jitter
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._visited = bytearray()
        self._under_way = 0
        self._began = self._moved = clock()
        self._is_over = False
        self._last_seen = "no answer yet"

    @property
    def is_over(self) -> bool:
        """Whether all threads shall end now."""
        return self._is_over or self._cancel.is_requested

    def end(self, error: ClouduploaderError | None = None) -> None:
        """Make all threads end. The first error that is given is the one that counts."""
        with self._lock:
            self.error = self.error or error
            self._is_over = True

    def next_job(self, buffer: bytearray) -> BlockUpload | NoBlock:
        """Read the next block, and find out whether it has to be sent.

        Where unpacking is one thread's work, the others do not wait for it.

        Args:
            buffer: Of one block; belongs to the job if one is returned that has a buffer.

        Raises:
            ClouduploaderError: What the source raises; or the ledger's ContentChangedError.
        """
        if self.source.can_reread:
            block = self.source.next_into(buffer)
        elif self._reading.acquire(blocking=False):
            try:
                block = self.source.next_into(buffer)
            finally:
                self._reading.release()
        else:
            return NoBlock.BUSY
        if block is None:
            return NoBlock.END
        digest = ebs_confirmed.ZERO_DIGEST if block.is_zero else hashlib.sha256(buffer).digest()
        self._visit(block.index)
        known = self._book.confirmed(block.index)
        if known is not None:
            if known != digest:
                raise ebs_confirmed.ContentChangedError(f"block {block.index} is another one than was confirmed before")
            return NoBlock.SKIPPED
        with self._lock:
            if not self._under_way:
                self._moved = self.clock()
            self._under_way += 1
        if block.is_zero:
            return BlockUpload(block.index, digest, _ZERO_CHECKSUM, None, True)
        return BlockUpload(block.index, digest, base64.b64encode(digest).decode(), buffer, False)

    def await_turn(self, seconds: float) -> None:
        """Wait until no other thread unpacks, but not longer than that."""
        if self._reading.acquire(timeout=seconds):
            self._reading.release()

    def _visit(self, index: int) -> None:
        with self._lock:
            if index >= len(self._visited):
                self._visited.extend(bytes(index + 1 - len(self._visited)))
            self._visited[index] = 1

    def confirmed(self, pairs: list[tuple[int, bytes]]) -> None:
        """Note what AWS has confirmed.

        Raises:
            LocalIOError: The ledger can't be written.
        """
        self._book.confirm(pairs)
        self.window.confirmed(len(pairs))
        with self._lock:
            self._under_way -= len(pairs)
            self._moved = self.clock()

    def check_rest(self) -> None:
        """After the last block: see `ledger.ConfirmedBlocks.check_rest`."""
        self._book.check_rest(self._visited)

    def check_stall(self) -> None:
        """See whether anything is confirmed at all.

        Raises:
            NetworkError: Nothing was, for too long.
        """
        with self._lock:
            is_stalled = self._under_way and self.clock() - self._moved > self.patience.stall_seconds
        if is_stalled:
            raise NetworkError(
                f"no block was confirmed for {self.patience.stall_seconds:.0f} seconds; last seen: {self._last_seen}",
                hint="Look at the network, and try again. With keep = snapshot another one goes on where it ended.",
            )

    def renewed(self, keys: AccessKeys) -> None:
        """Use these credentials from now on."""
        self._are_others = keys != self.keys
        self.keys = keys
        self._renewals += 1

    def broken(self, job: BlockUpload, reason: str, *, is_stall: bool = False, was_reused: bool = False) -> float:
        """A connection failed before it gave a whole answer.

        Args:
            job: What was on it.
            reason: What happened.
            is_stall: Whether it was a time-out.
            was_reused: Whether it may have been closed while nobody used it.

        Returns:
            Seconds until the next try.

        Raises:
            NetworkError: That was the last one.
        """
        if is_stall:
            self._stalled()
        if was_reused and not job.tries:
            job.tries += 1
            return 0.0
        return self._again(job, aws_errors.unreachable(self.url, reason))

    def refused(self, job: BlockUpload, refusal: aws_errors.AwsError) -> float:
        """AWS gave another answer than a confirmation.

        Returns:
            Seconds until the next try.

        Raises:
            ClouduploaderError: There will be none: see `refusals.translate`.
        """
        code, status = refusal.code, refusal.status
        if code in _THROTTLED or status == 429:
            self._last_seen = f"{code} {refusal.reason}".rstrip()
            self.pacer.throttled(self.clock())
            return self._pause(job)
        if self._sets_clock(job, refusal):
            return 0.0
        error = aws_errors.translate(refusal, subject=self._subject)
        if code in _EXPIRED:
            self._wait_for_renewal(job, error)
            self._last_seen = code
            return RENEWAL_PAUSE_SECONDS
        if refusal.reason == "WRITE_REQUEST_TIMEOUT":
            self._stalled()
        is_young = self.clock() - self._began < self.patience.appearance_seconds
        if refusal.reason in _NOT_THERE_YET or code == "ResourceNotFoundException":
            if not is_young:
                raise error
            self._last_seen = error.message
            return self._pause(job)
        if code == f"HTTP {status}":
            error = TransientError(
                f"{self.url} answers with {code}, and no code of AWS",
                hint="Try again later; if it stays so, look at what stands between this machine and AWS.",
            )
            return self._again(job, error)
        if status >= 500 or refusal.reason in _PASSING_REASONS:
            return self._again(job, error)
        raise error

    def misconfirmed(self, job: BlockUpload) -> float:
        """AWS says that it has the block, but names another checksum.

        Returns:
            Seconds until the next try.

        Raises:
            PlatformReplyError: That was the last one.
        """
        return self._again(
            job,
            PlatformReplyError(
                f"AWS confirms block {job.index} of {self._subject} with another checksum than it has",
                hint="Something on the way changes data: another network may help.",
            ),
        )

    def _wait_for_renewal(self, job: BlockUpload, error: ClouduploaderError) -> None:
        """Wish for other credentials, unless the wish is not granted yet.

        Raises:
            ClouduploaderError: There are no others, or too many were refused already.
        """
        if job.renewals == self._renewals:
            return
        if job.renewals is not None:
            job.tries += 1
            if not self._are_others or job.tries >= self.patience.tries:
                raise error
        job.renewals = self._renewals
        self.renewal_wanted.set()

    def _sets_clock(self, job: BlockUpload, refusal: aws_errors.AwsError) -> bool:
        """Go by AWS's clock if ours is wrong.

        StartSnapshot was accepted with our clock, so it was set in the meantime, or this machine slept. The hours
        that were spent on the upload are worth more than the order to set it right first.
        """
        if self._requests is None or job.is_clock_set or refusal.code not in _SKEWED:
            return False
        skew = aws_errors.clock_skew(refusal.date)
        was_set = self._requests.offset_seconds != 0
        if skew is None or (abs(skew) < aws_errors.MAX_SKEW - aws_errors.MAX_SKEW / 5 and not was_set):
            return False  # where it was set, our own clock may have been set right since
        job.is_clock_set = True
        self._requests.offset_seconds = -skew.total_seconds()
        return True

    def _stalled(self) -> None:
        now = self.clock()
        self.pacer.stalled(now)
        self.window.stalled(now)

    def _again(self, job: BlockUpload, error: ClouduploaderError) -> float:
        self._last_seen = error.message
        job.tries += 1
        if job.tries >= self.patience.tries:
            raise error
        return self._pause(job)

    def _pause(self, job: BlockUpload) -> float:
        job.pauses += 1
        longest = min(self.patience.pause_seconds * 2.0 ** min(job.pauses - 1, 30), self.patience.max_pause_seconds)
        return longest * (1 + self._jitter()) / 2
