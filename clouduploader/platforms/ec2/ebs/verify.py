"""Read a snapshot back, and compare it with what was sent.

Source: EBS direct APIs, ListSnapshotBlocks and GetSnapshotBlock (botocore's model `ebs/2019-11-02`).
"""

import base64
import concurrent.futures
import contextlib
import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from clouduploader.errors import ClouduploaderError, PlatformReplyError, TransientError
from clouduploader.platforms.ec2 import aws_errors
from clouduploader.platforms.ec2.context import Ec2Context
from clouduploader.platforms.ec2.ebs import protocol
from clouduploader.plugin import BytesMoved, retry, visibility
from clouduploader.plugin.transfer import ConfirmedChunks

if TYPE_CHECKING:
    from mypy_boto3_ebs.type_defs import ListSnapshotBlocksRequestTypeDef

SAMPLE_BLOCKS = 64
"""The first and the last block, and the rest at random: 32 MiB, a second or two. The seal proves what AWS got;
this shows that it can be read again. If one block in twenty were lost, 64 miss it once in 26 uploads."""
THREADS = 16  # of boto3's clients more bring nothing: they share one interpreter
PAGE_BLOCKS = 10000  # the most that ListSnapshotBlocks gives
READ_SECONDS = 6.0  # for which a block is read again, each time by four requests, see `boto.CONFIG`
PAUSE_SECONDS = 3.0  # before a difference is looked at again


class MismatchError(PlatformReplyError):
    """The snapshot is not what was sent."""


def run(context: Ec2Context, snapshot_id: str, confirmed: ConfirmedChunks, *, asked: str | None) -> None:
    """Verify as the target data say; a sample where they say nothing.

    Args:
        context: The upload.
        snapshot_id: Which one.
        confirmed: What was sent.
        asked: "sample", "full", or None: then a sample, if the role may.

    Raises:
        ClouduploaderError: See `compare`.
    """
    try:
        compare(context, snapshot_id, confirmed, is_full=asked == "full")
    except ClouduploaderError as exc:
        if asked is not None or not aws_errors.is_denied(exc):
            raise
        context.ctx.reporter.line(f"Not verified: {exc.message}. The snapshot is sealed by its checksum all the same.")


def compare(context: Ec2Context, snapshot_id: str, confirmed: ConfirmedChunks, *, is_full: bool) -> None:
    """Read blocks of a completed snapshot back. Which blocks it has is compared for all of them.

    A difference is looked at twice before it is believed: it costs the snapshot.

    Args:
        context: The upload.
        snapshot_id: Which one.
        confirmed: What was sent.
        is_full: Whether all blocks are read, or a sample.

    Raises:
        MismatchError: It is another content, at the second look too.
        TransientError: AWS does not answer, or with less than a whole block.
        DeniedError: The role may not read.
        ClouduploaderError: It can't be read.
        StoppedError: The upload was cancelled.
    """
    reader = _Reader(context, snapshot_id, confirmed)
    ranks = None if is_full else _sample(confirmed.count)
    reporter = context.ctx.reporter
    try:
        done = reader.compare(ranks)
    except MismatchError as exc:
        reporter.line(f"Looking once more: {exc.message}.")
        retry.pause(PAUSE_SECONDS, cancel=context.ctx.cancel, clock=context.ctx.clock)
        done = reader.compare(ranks)
    reporter.line(f"Verified: {done} of {confirmed.count} blocks read back and equal.")


def _sample(count: int) -> frozenset[int]:
    """Choose which of so many blocks to read, counted from 0."""
    if count <= SAMPLE_BLOCKS:
        return frozenset(range(count))
    # random for coverage, not for secrecy
    inner = random.SystemRandom().sample(range(1, count - 1), SAMPLE_BLOCKS - 2)
    return frozenset([0, count - 1, *inner])


class _Reader:
    """Reads one snapshot."""

    def __init__(self, context: Ec2Context, snapshot_id: str, confirmed: ConfirmedChunks) -> None:
        self._ctx = context.ctx
        self._ebs = context.ebs
        self._snapshot_id = snapshot_id
        self._confirmed = confirmed

    def compare(self, ranks: frozenset[int] | None) -> int:
        """Compare the blocks of these ranks, or all; return how many that are."""
        total = self._confirmed.count if ranks is None else len(ranks)
        done, seen = 0, 0
        with concurrent.futures.ThreadPoolExecutor(THREADS, "verify") as pool:
            for page in self._pages():
                chosen = [block for rank, block in enumerate(page, seen) if ranks is None or rank in ranks]
                seen += len(page)
                for _ in pool.map(self._check, chosen):  # when one raises, those that have not begun are cancelled
                    done += 1
                    self._ctx.reporter.event(BytesMoved(done * protocol.BLOCK_BYTES, total * protocol.BLOCK_BYTES))
        if seen != self._confirmed.count:
            raise MismatchError(
                f"snapshot {self._snapshot_id} has {seen} blocks, but {self._confirmed.count} were sent"
            )
        return done

    def _pages(self) -> Iterator[Sequence[tuple[int, str]]]:
        """Yield index and token of each block, page by page, in ascending order."""
        last, token = -1, None
        while True:
            page, token = self._page(token)
            for index, _token in page:
                if index <= last or self._confirmed.confirmed(index) is None:
                    raise MismatchError(f"snapshot {self._snapshot_id} has a block {index} that was not sent")
                last = index
            yield page
            if not token:
                return

    def _page(self, token: str | None) -> tuple[Sequence[tuple[int, str]], str | None]:
        """List some blocks by index and token; return them, and the token of the next page."""
        parameters: ListSnapshotBlocksRequestTypeDef = {"SnapshotId": self._snapshot_id, "MaxResults": PAGE_BLOCKS}
        if token:
            parameters["NextToken"] = token

        def ask() -> tuple[Sequence[tuple[int, str]], str | None]:
            with self._ctx.translated(f"snapshot {self._snapshot_id}"):
                answer = self._ebs.list_snapshot_blocks(**parameters)
            if answer.get("BlockSize") != protocol.BLOCK_BYTES:
                raise PlatformReplyError(f"snapshot {self._snapshot_id} has blocks of {answer.get('BlockSize')} bytes")
            page = [(int(block["BlockIndex"]), str(block["BlockToken"])) for block in answer.get("Blocks", [])]
            return page, answer.get("NextToken")

        # just completed, the snapshot is not known everywhere yet
        return retry.retry(
            ask,
            cancel=self._ctx.cancel,
            clock=self._ctx.clock,
            seconds=visibility.UNSEEN_SECONDS,
            may_pass=lambda exc: isinstance(exc, PlatformReplyError | TransientError),
        )

    def _check(self, block: tuple[int, str]) -> None:
        """Read one block and compare it. Called by several threads."""
        self._ctx.cancel.raise_if_requested()
        index, token = block
        digest = self._ctx.retry(lambda: self._read(index, token), seconds=READ_SECONDS)
        if digest != self._confirmed.confirmed(index):
            raise MismatchError(
                f"block {index} of snapshot {self._snapshot_id} is not what was sent",
                hint="Nothing was registered. Upload the image again; if it happens again, tell Amazon.",
            )

    def _read(self, index: int, token: str) -> bytes:
        """Return the SHA-256 of a block, which is whole, and the one that AWS says it is.

        Raises:
            TransientError: Something else came over the line: that says nothing of what is in the snapshot.
        """
        subject = f"block {index} of snapshot {self._snapshot_id}"
        with self._ctx.translated(subject):
            answer = self._ebs.get_snapshot_block(SnapshotId=self._snapshot_id, BlockIndex=index, BlockToken=token)
            with contextlib.closing(answer["BlockData"]) as body:
                data = body.read()
        digest = hashlib.sha256(data).digest()
        if len(data) != protocol.BLOCK_BYTES or answer.get("Checksum") != base64.b64encode(digest).decode():
            raise TransientError(
                f"{subject} was not read whole: {len(data)} bytes, which are not those of AWS's checksum",
                hint="Something on the way cuts or changes data. Try again, or from another network.",
            )
        return digest
