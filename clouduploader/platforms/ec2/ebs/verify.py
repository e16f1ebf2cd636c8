"""A snapshot read back and compared with what was sent.

Source: EBS direct APIs, ListSnapshotBlocks and GetSnapshotBlock (botocore's model `ebs/2019-11-02`).
"""

import base64
import concurrent.futures
import contextlib
import hashlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from clouduploader.errors import ClouduploaderError, PlatformReplyError, TransientError
from clouduploader.platforms.ec2 import aws_errors, boto
from clouduploader.platforms.ec2.ebs import protocol
from clouduploader.plugin import BytesMoved, Reporter, visibility
from clouduploader.util.cancel import Cancel

SAMPLE_BLOCKS = 64
"""The first and the last block, and the rest at random: 32 MiB, a second or two. The seal proves what AWS got;
this shows that it can be read again. If one block in twenty were lost, 64 miss it once in 26 uploads."""
THREADS = 16  # of boto3's clients more bring nothing: they share one interpreter (reference, performance.md)
PAGE_BLOCKS = 10000  # the most that ListSnapshotBlocks gives
READ_TRIES = 3  # of four requests each, see `api.CONFIG`
PAUSE_SECONDS = 3.0


class Digests(Protocol):
    """What was sent; `ledger.ConfirmedBlocks`."""

    @property
    def count(self) -> int:
        """Of the blocks."""

    def confirmed(self, index: int) -> bytes | None:
        """The SHA-256 of a block that was sent, or None."""


class MismatchError(PlatformReplyError):
    """The snapshot is not what was sent."""


def compare(
    ebs: Any,  # noqa: ANN401 a client of boto3
    snapshot_id: str,
    digests: Digests,
    *,
    is_full: bool,
    reporter: Reporter,
    cancel: Cancel,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Read blocks of a completed snapshot back. Which blocks it has is compared for all of them.

    A difference is looked at twice before it is believed: it costs the snapshot.

    Args:
        ebs: A client of the EBS direct APIs.
        snapshot_id: Which one.
        digests: What was sent.
        is_full: Whether all blocks are read, or a sample.
        reporter: Told how far it is.
        cancel: Looked at between blocks.
        sleep: For tests.
        clock: For tests; seconds that only grow.

    Raises:
        MismatchError: It is another content, at the second look too.
        TransientError: AWS does not answer, or with less than a whole block.
        DeniedError: The role may not read.
        ClouduploaderError: It can't be read.
        StoppedError: The stop was requested.
    """
    reader = _Reader(ebs, snapshot_id, digests, cancel, sleep=sleep, clock=clock)
    ranks = None if is_full else _sample(digests.count)
    try:
        done = _compare(reader, digests, ranks, reporter)
    except MismatchError as exc:
        reporter.line(f"Looking once more: {exc.message}.")
        sleep(PAUSE_SECONDS)
        done = _compare(reader, digests, ranks, reporter)
    reporter.line(f"Verified: {done} of {digests.count} blocks read back and equal.")


def _compare(reader: "_Reader", digests: Digests, ranks: frozenset[int] | None, reporter: Reporter) -> int:
    """Compare the blocks of these ranks, or all; returns how many that are."""
    total = digests.count if ranks is None else len(ranks)
    done, seen = 0, 0
    with concurrent.futures.ThreadPoolExecutor(THREADS, "verify") as pool:
        for page in reader.pages():
            chosen = [block for rank, block in enumerate(page, seen) if ranks is None or rank in ranks]
            seen += len(page)
            for _ in pool.map(reader.check, chosen):  # when one raises, those that have not begun are cancelled
                done += 1
                reporter.event(BytesMoved(done * protocol.BLOCK_BYTES, total * protocol.BLOCK_BYTES))
    if seen != digests.count:
        raise MismatchError(f"snapshot {reader.snapshot_id} has {seen} blocks, but {digests.count} were sent")
    return done


def _sample(count: int) -> frozenset[int]:
    """Which of so many blocks to read, counted from 0."""
    if count <= SAMPLE_BLOCKS:
        return frozenset(range(count))
    # random for coverage, not for secrecy
    inner = random.SystemRandom().sample(range(1, count - 1), SAMPLE_BLOCKS - 2)
    return frozenset([0, count - 1, *inner])


class _Reader:
    """Reads one snapshot; `check` may be called by several threads."""

    def __init__(
        self,
        ebs: Any,  # noqa: ANN401
        snapshot_id: str,
        digests: Digests,
        cancel: Cancel,
        *,
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self.snapshot_id = snapshot_id
        self._ebs = ebs
        self._digests = digests
        self._cancel = cancel
        self._sleep, self._clock = sleep, clock

    def pages(self) -> Iterator[Sequence[tuple[int, str]]]:
        """Give index and token of each block, page by page, in ascending order."""
        last, token = -1, None
        began = self._clock()
        while True:
            self._cancel.raise_if_requested()
            words: dict[str, str] = {"NextToken": token} if token else {}
            try:
                with boto.translated(f"snapshot {self.snapshot_id}"):
                    answer = self._ebs.list_snapshot_blocks(
                        SnapshotId=self.snapshot_id, MaxResults=PAGE_BLOCKS, **words
                    )
                if answer.get("BlockSize") != protocol.BLOCK_BYTES:
                    raise PlatformReplyError(
                        f"snapshot {self.snapshot_id} has blocks of {answer.get('BlockSize')} bytes"
                    )
            except (PlatformReplyError, TransientError):  # just completed, it is not known everywhere yet
                if self._clock() - began >= visibility.UNSEEN_SECONDS:
                    raise
                self._sleep(PAUSE_SECONDS)
                continue
            page = [(int(block["BlockIndex"]), str(block["BlockToken"])) for block in answer.get("Blocks", [])]
            for index, _token in page:
                if index <= last or self._digests.confirmed(index) is None:
                    raise MismatchError(f"snapshot {self.snapshot_id} has a block {index} that was not sent")
                last = index
            yield page
            token, began = answer.get("NextToken"), self._clock()
            if not token:
                return

    def check(self, block: tuple[int, str]) -> None:
        """Read one block and compare it."""
        index, token = block
        for number in range(1, READ_TRIES + 1):
            self._cancel.raise_if_requested()
            try:
                digest = self._read(index, token)
            except TransientError:
                if number == READ_TRIES:
                    raise
                self._sleep(PAUSE_SECONDS)
            else:
                break
        if digest != self._digests.confirmed(index):
            raise MismatchError(
                f"block {index} of snapshot {self.snapshot_id} is not what was sent",
                hint="Nothing was registered. Upload the image again; if it happens again, tell Amazon.",
            )

    def _read(self, index: int, token: str) -> bytes:
        """The SHA-256 of a block, which is whole, and the one that AWS says it is.

        Raises:
            TransientError: Something else came over the line: that says nothing of what is in the snapshot.
        """
        subject = f"block {index} of snapshot {self.snapshot_id}"
        with boto.translated(subject):
            answer = self._ebs.get_snapshot_block(SnapshotId=self.snapshot_id, BlockIndex=index, BlockToken=token)
            with contextlib.closing(answer["BlockData"]) as body:
                data = body.read()
        digest = hashlib.sha256(data).digest()
        if len(data) != protocol.BLOCK_BYTES or answer.get("Checksum") != base64.b64encode(digest).decode():
            raise TransientError(
                f"{subject} was not read whole: {len(data)} bytes, which are not those of AWS's checksum",
                hint="Something on the way cuts or changes data. Try again, or from another network.",
            )
        return digest


def run(
    ebs: Any,  # noqa: ANN401 a client of boto3
    snapshot_id: str,
    digests: Digests,
    *,
    asked: str | None,
    reporter: Reporter,
    cancel: Cancel,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Verify as the target data say; a sample where they say nothing.

    Args:
        ebs: A client of the EBS direct APIs.
        snapshot_id: Which one.
        digests: What was sent.
        asked: "none", "sample", "full", or None: then a sample, if the role may.
        reporter: See Reporter.
        cancel: See Cancel.
        sleep: For tests.
        clock: For tests; seconds that only grow.

    Raises:
        ClouduploaderError: See `compare`.
    """
    try:
        compare(
            ebs,
            snapshot_id,
            digests,
            is_full=asked == "full",
            reporter=reporter,
            cancel=cancel,
            sleep=sleep,
            clock=clock,
        )
    except ClouduploaderError as exc:
        if asked is not None or not aws_errors.is_denied(exc):
            raise
        reporter.line(f"Not verified: {exc.message}. The snapshot is sealed by its checksum all the same.")
