"""What AWS's answers to a block mean: confirmed, sent again, with other credentials or by another clock, or the end."""

import base64
import threading

from clouduploader.errors import ClouduploaderError, PlatformReplyError, TransientError
from clouduploader.model.disk import BlockSource
from clouduploader.platforms.ec2 import aws_errors
from clouduploader.platforms.ec2.context import Ec2Context
from clouduploader.platforms.ec2.ebs import protocol
from clouduploader.platforms.ec2.sigv4 import AccessKeys
from clouduploader.plugin import visibility
from clouduploader.plugin.transfer import ChunkTransfer, ChunkUpload, ConfirmedChunks, Timeouts
from clouduploader.util.frozen import frozen

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
class BlockTimeouts(Timeouts):
    """See Timeouts.

    Attributes:
        connect_seconds: For a connection, TLS included.
        silence_seconds: How long nothing moves while a block is sent, and then how long the answer takes. EBS
            answers within a second; coldsnap, which met servers that never do, waits 12 s (its pull request 438).
        appearance_seconds: How long a new snapshot may be unknown to some of AWS's servers.
    """

    connect_seconds: float = 15.0
    silence_seconds: float = 20.0
    appearance_seconds: float = visibility.UNSEEN_SECONDS


class BlockUpload(ChunkUpload):
    """One block on its way.

    Attributes:
        checksum: Its SHA-256 in base64.
        renewals: The number of renewals of credentials when it was last refused for expired ones.
        is_clock_set: Whether the clock was set because of it.
    """

    __slots__ = ("checksum", "is_clock_set", "renewals")

    def __init__(self, index: int, digest: bytes, buffer: bytearray | None, is_zero: bool) -> None:
        super().__init__(index, digest, buffer, is_zero)
        self.checksum = base64.b64encode(digest).decode()
        self.renewals: int | None = None
        self.is_clock_set = False


class BlockTransfer(ChunkTransfer[BlockUpload]):
    """The transfer of an image's blocks into a snapshot.

    Args:
        context: The upload; `blocks_per_second` of its settings is used.
        source: Where the blocks come from.
        confirmed: Where confirmed ones are noted.
        requests: Whose clock is set when AWS says that it is wrong; None where that is the SDK's.
        url: Of the endpoint, for errors.
        snapshot_id: For errors.
        most: How many blocks may be under way at once.
        total_bytes: Of the disk, for the reporter; None if that is not known.
        timeouts: See BlockTimeouts.

    Attributes:
        url: As given.
        keys: The credentials of now.
        renewal_wanted: Set when AWS refuses these.
    """

    stall_hint = "Look at the network, and try again. With keep = snapshot another one goes on where it ended."
    timeouts: BlockTimeouts

    def __init__(
        self,
        context: Ec2Context,
        source: BlockSource,
        confirmed: ConfirmedChunks,
        *,
        requests: protocol.BlockRequests | None,
        url: str,
        snapshot_id: str,
        most: int,
        total_bytes: int | None,
        timeouts: BlockTimeouts,
    ) -> None:
        super().__init__(
            context.ctx,
            source,
            confirmed,
            chunk_type=BlockUpload,
            per_second=context.settings.blocks_per_second,
            most=most,
            total_bytes=total_bytes,
            timeouts=timeouts,
        )
        self.url = url
        self.keys = context.keys()
        self.renewal_wanted = threading.Event()
        self._renewals = 0
        self._are_others = False  # whether the last one gave others than before
        self._requests = requests
        self._subject = f"snapshot {snapshot_id}"
        self._began = self.clock()

    def renewed(self, keys: AccessKeys) -> None:
        """Use these credentials from now on."""
        self._are_others = keys != self.keys
        self.keys = keys
        self._renewals += 1

    def broken(self, block: BlockUpload, reason: str, *, is_stall: bool = False, was_reused: bool = False) -> float:
        """Send a block again whose connection failed before it gave a whole answer.

        Args:
            block: What was on it.
            reason: What happened.
            is_stall: Whether it was a time-out.
            was_reused: Whether it may have been closed while it was idle.

        Returns:
            Seconds until the next try.

        Raises:
            NetworkError: That was the last one.
        """
        if is_stall:
            self.stalled()
        if was_reused and not block.tries:
            block.tries += 1
            return 0.0
        return self.again(block, aws_errors.unreachable(self.url, reason))

    def refused(self, block: BlockUpload, refusal: aws_errors.AwsError) -> float:
        """Decide what becomes of a block for which AWS gave another answer than a confirmation.

        Returns:
            Seconds until the next try.

        Raises:
            ClouduploaderError: There will be none: see `aws_errors.translate`.
        """
        code, status = refusal.code, refusal.status
        if code in _THROTTLED or status == 429:
            return self.throttled(block, f"{code} {refusal.reason}".rstrip())
        if self._sets_clock(block, refusal):
            return 0.0
        error = aws_errors.translate(refusal, subject=self._subject)
        if code in _EXPIRED:
            self._wait_for_renewal(block, error)
            self.last_seen = code
            return RENEWAL_PAUSE_SECONDS
        if refusal.reason == "WRITE_REQUEST_TIMEOUT":
            self.stalled()
        is_young = self.clock() - self._began < self.timeouts.appearance_seconds
        if refusal.reason in _NOT_THERE_YET or code == "ResourceNotFoundException":
            if not is_young:
                raise error
            self.last_seen = error.message
            return self.pause(block)
        if code == f"HTTP {status}":
            error = TransientError(
                f"{self.url} answers with {code}, and no code of AWS",
                hint="Try again later; if it stays so, look at what stands between this machine and AWS.",
            )
            return self.again(block, error)
        if status >= 500 or refusal.reason in _PASSING_REASONS:
            return self.again(block, error)
        raise error

    def misconfirmed(self, block: BlockUpload) -> float:
        """Send a block again of which AWS says that it has it, but names another checksum.

        Returns:
            Seconds until the next try.

        Raises:
            PlatformReplyError: That was the last one.
        """
        return self.again(
            block,
            PlatformReplyError(
                f"AWS confirms block {block.index} of {self._subject} with another checksum than it has",
                hint="Something on the way changes data: another network may help.",
            ),
        )

    def _wait_for_renewal(self, block: BlockUpload, error: ClouduploaderError) -> None:
        """Ask for other credentials, unless there are none yet since the last time.

        Raises:
            ClouduploaderError: There are no others, or too many were refused already.
        """
        if block.renewals == self._renewals:
            return
        if block.renewals is not None:
            block.tries += 1
            if not self._are_others or block.tries >= self.timeouts.tries:
                raise error
        block.renewals = self._renewals
        self.renewal_wanted.set()

    def _sets_clock(self, block: BlockUpload, refusal: aws_errors.AwsError) -> bool:
        """Go by AWS's clock if ours is wrong.

        StartSnapshot was accepted with our clock, so it was set in the meantime, or this machine slept. The hours
        that were spent on the upload are worth more than the order to set it right first.
        """
        if self._requests is None or block.is_clock_set or refusal.code not in _SKEWED:
            return False
        skew = aws_errors.clock_skew(refusal.date)
        was_set = self._requests.offset_seconds != 0
        if skew is None or (abs(skew) < aws_errors.MAX_SKEW - aws_errors.MAX_SKEW / 5 and not was_set):
            return False  # where it was set, our own clock may have been set right since
        block.is_clock_set = True
        self._requests.offset_seconds = -skew.total_seconds()
        return True
