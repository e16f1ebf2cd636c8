"""The same transfer by the SDK, a thread for each block under way: for lines with a proxy in them."""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

from clouduploader.errors import ClouduploaderError
from clouduploader.platforms.ec2.ebs import protocol
from clouduploader.platforms.ec2.ebs import threads as ebs_threads
from clouduploader.platforms.ec2.ebs import transfer as transfers
from clouduploader.platforms.ec2.ebs.transfer import BlockTransfer, BlockUpload, NoBlock, Timeouts

MAX_THREADS = 32  # with more of them the SDK does no more blocks a second: the interpreter is busy
BUSY_SECONDS = 0.01  # until we look again whether it is our turn to unpack
NAP_SECONDS = 0.1  # between looks whether all is over


def client_options(patience: Timeouts) -> dict[str, Any]:
    """Options of botocore's Config for a client that sends each block once: tries and pauses are `Transfer`'s."""
    return {
        "connect_timeout": patience.connect_seconds,
        "read_timeout": patience.silence_seconds,
        "retries": {"mode": "standard", "total_max_attempts": 1},
    }


def workers(
    transfer: BlockTransfer,
    *,
    client: Any,  # noqa: ANN401 boto3 makes its clients at run time
    snapshot_id: str,
    connections: int,
    threads: ebs_threads.ThreadGroup,
) -> list[Callable[[], None]]:
    """Make the functions that do the work, each for a thread of its own.

    Args:
        transfer: What they share.
        client: Of the EBS direct API; gets fresh credentials by itself. See `client_options`.
        snapshot_id: Where the blocks go.
        connections: How many blocks are to be under way at once.
        threads: Whose the threads will be.
    """
    worker = functools.partial(_work, transfer, functools.partial(_put, client, snapshot_id, threads))
    return [worker] * min(connections, MAX_THREADS)


def _put(client: Any, snapshot_id: str, threads: ebs_threads.ThreadGroup, job: BlockUpload) -> Mapping[str, Any]:  # noqa: ANN401
    """Send a block once. It is a copy that is sent: we may be left behind."""
    data = transfers.ZERO_BLOCK if job.buffer is None else bytes(job.buffer)
    with threads.away():
        answer: Mapping[str, Any] = client.put_snapshot_block(
            SnapshotId=snapshot_id,
            BlockIndex=job.index,
            BlockData=data,
            DataLength=protocol.BLOCK_BYTES,
            Checksum=job.checksum,
            ChecksumAlgorithm="SHA256",
        )
    return answer


def _work(transfer: BlockTransfer, put: Callable[[BlockUpload], Mapping[str, Any]]) -> None:
    """Send blocks until there are no more, or the transfer ends. An error ends it."""
    buffer = bytearray(protocol.BLOCK_BYTES)
    try:
        while not transfer.is_over:
            found = transfer.next_job(buffer)
            if found is NoBlock.END:
                return
            if found is NoBlock.BUSY:
                time.sleep(BUSY_SECONDS)
            elif isinstance(found, BlockUpload):
                _send(found, transfer, put)
    except ClouduploaderError as exc:
        transfer.end(exc)


def _send(job: BlockUpload, transfer: BlockTransfer, put: Callable[[BlockUpload], Mapping[str, Any]]) -> None:
    """Try until the block is confirmed."""
    delay: float | None = 0.0
    while delay is not None:
        _sleep(delay, transfer)
        while not transfer.is_over and (wait := transfer.pacer.take(transfer.clock())):
            _sleep(wait, transfer)
        if transfer.is_over:
            return
        delay = _try(job, transfer, put)
    transfer.confirmed([(job.index, job.digest)])


def _try(job: BlockUpload, transfer: BlockTransfer, put: Callable[[BlockUpload], Mapping[str, Any]]) -> float | None:
    """Send it once; returns seconds until the next try, or None after a success."""
    import botocore.exceptions

    from clouduploader.platforms.ec2 import boto

    try:
        answer = put(job)
    except botocore.exceptions.ClientError as exc:
        return transfer.refused(job, boto.refusal(exc))
    except (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError) as exc:
        is_stall = isinstance(exc, botocore.exceptions.ReadTimeoutError | botocore.exceptions.ConnectTimeoutError)
        return transfer.broken(job, str(exc), is_stall=is_stall)
    if answer.get("Checksum") != job.checksum:
        return transfer.misconfirmed(job)
    return None


def _sleep(seconds: float, transfer: BlockTransfer) -> None:
    ends_at = transfer.clock() + seconds
    while not transfer.is_over and (left := ends_at - transfer.clock()) > 0:
        time.sleep(min(left, NAP_SECONDS))
