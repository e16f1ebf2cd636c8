"""The same transfer by the SDK, a thread for each block under way: for lines with a proxy in them."""

from collections.abc import Callable
from typing import Any

from clouduploader.platforms.ec2.ebs import protocol
from clouduploader.platforms.ec2.ebs.transfer import BlockTimeouts, BlockTransfer, BlockUpload
from clouduploader.plugin.transfer import ThreadGroup, workers

MAX_THREADS = 32  # with more of them the SDK does no more blocks a second: the interpreter is busy


def client_options(timeouts: BlockTimeouts) -> dict[str, Any]:
    """Make options of botocore's Config for a client that sends a block once: tries and pauses are the transfer's."""
    return {
        "connect_timeout": timeouts.connect_seconds,
        "read_timeout": timeouts.silence_seconds,
        "retries": {"mode": "standard", "total_max_attempts": 1},
    }


def works(
    transfer: BlockTransfer,
    *,
    client: Any,  # noqa: ANN401 boto3 makes its clients at run time
    snapshot_id: str,
    group: ThreadGroup,
) -> list[Callable[[], None]]:
    """Make the functions that do the work, each for a thread of its own.

    Args:
        transfer: What they share.
        client: Of the EBS direct APIs; gets fresh credentials by itself. See `client_options`.
        snapshot_id: Where the blocks go.
        group: Whose the threads will be.
    """
    import botocore.exceptions

    from clouduploader.platforms.ec2 import boto

    def attempt(block: BlockUpload, data: bytes) -> float | None:
        try:
            with group.away():
                answer = client.put_snapshot_block(
                    SnapshotId=snapshot_id,
                    BlockIndex=block.index,
                    BlockData=data,
                    DataLength=protocol.BLOCK_BYTES,
                    Checksum=block.checksum,
                    ChecksumAlgorithm="SHA256",
                )
        except botocore.exceptions.ClientError as exc:
            return transfer.refused(block, boto.refusal(exc))
        except (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError) as exc:
            is_stall = isinstance(exc, botocore.exceptions.ReadTimeoutError | botocore.exceptions.ConnectTimeoutError)
            return transfer.broken(block, str(exc), is_stall=is_stall)
        return None if answer.get("Checksum") == block.checksum else transfer.misconfirmed(block)

    return workers(transfer, attempt, chunk_bytes=protocol.BLOCK_BYTES)
