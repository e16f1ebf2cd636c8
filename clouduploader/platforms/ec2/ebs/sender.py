"""Send an image's blocks into a pending snapshot: as fast as the quota allows, until each one is confirmed.

Event loops do it with requests of our own; where a proxy is on the way, the SDK does, with a thread for each block.
"""

import os
from collections.abc import Callable
from typing import Any

from clouduploader.errors import TransientError
from clouduploader.model.disk import BlockSource
from clouduploader.platforms.ec2.auth import RenewedCredentials
from clouduploader.platforms.ec2.context import Ec2Context
from clouduploader.platforms.ec2.ebs import event_loop, protocol
from clouduploader.platforms.ec2.ebs.transfer import BlockTimeouts, BlockTransfer, BlockUpload
from clouduploader.platforms.ec2.sigv4 import AccessKeys
from clouduploader.plugin.transfer import ConfirmedChunks, ThreadGroup, run, workers

MIN_LOOPS, MAX_LOOPS = 2, 4
"""Threads: one a core. Even on one core the second works while the first waits for a disk; four do 4,000 blocks a
second (bench/README.rst)."""
MAX_SDK_THREADS = 32  # with more of them the SDK does no more blocks a second: the interpreter is busy


def send(
    context: Ec2Context,
    source: BlockSource,
    *,
    snapshot_id: str,
    confirmed: ConfirmedChunks,
    total_bytes: int | None,
    timeouts: BlockTimeouts | None = None,
) -> None:
    """Send all blocks of an image that the snapshot does not have yet. Blocks.

    No thread is left that uses anything given here when it ends. Behind a proxy that does not answer, some may wait
    for that yet, for at most `silence_seconds`, and then end.

    Args:
        context: The upload: its account, credentials (asked for several times a second) and settings (`connections`
            and `blocks_per_second`).
        source: The blocks.
        snapshot_id: Pending, and ours.
        confirmed: What is confirmed already, and gets what will be.
        total_bytes: Of the disk, for the progress; None if that is not known.
        timeouts: See BlockTimeouts; None for the usual.

    Raises:
        ContentChangedError: The snapshot has a block of other content; blocks may have been sent.
        NetworkError: The endpoint can't be reached, or hangs up, or confirms nothing for minutes.
        ConfigError: Its certificate is not believed.
        DeniedError: The role may not do it; CredentialsError: The credentials are not accepted.
        PlatformReplyError: AWS said no for good.
        ImageError: See BlockSource; LocalIOError: also for `confirmed`.
        StoppedError: The upload was cancelled; seen within about a second.
    """
    timeouts = timeouts or BlockTimeouts()
    route, connections = context.account.route(context.ebs), context.settings.connections
    server = route.place
    requests = protocol.BlockRequests(place=server, region=route.region, snapshot_id=snapshot_id)
    transfer = BlockTransfer(
        context,
        source,
        confirmed,
        requests=None if route.proxy else requests,
        url=server.url,
        snapshot_id=snapshot_id,
        most=min(connections, MAX_SDK_THREADS) if route.proxy else connections,
        total_bytes=total_bytes,
        timeouts=timeouts,
    )
    group = ThreadGroup()
    works: list[Callable[[], None]]
    if route.proxy:
        context.ctx.reporter.line(f"There is a proxy on the way to {server.host}: the blocks are sent by the SDK.")
        client = context.account.ebs(**client_options(timeouts))
        works = _sdk_works(transfer, client=client, snapshot_id=snapshot_id, group=group)
        run(transfer, group, works, on_tick=lambda: _renew(transfer, context.keys))
        return
    addresses = event_loop.Addresses(server)
    tls = route.tls_context()
    loops = min(max(MIN_LOOPS, os.cpu_count() or 1), MAX_LOOPS, connections)
    works = [
        event_loop.ConnectionLoop(
            transfer,
            requests=requests,
            server=server,
            addresses=addresses,
            tls=tls,
            most=(connections + number) // loops,
        ).run
        for number in range(loops)
    ]

    def on_tick() -> None:
        _renew(transfer, context.keys)
        addresses.refresh()

    run(transfer, group, works, on_tick=on_tick)


def client_options(timeouts: BlockTimeouts) -> dict[str, Any]:
    """Make options of botocore's Config for a client that sends a block once: tries and pauses are the transfer's."""
    return {
        "connect_timeout": timeouts.connect_seconds,
        "read_timeout": timeouts.silence_seconds,
        "retries": {"mode": "standard", "total_max_attempts": 1},
    }


def _sdk_works(
    transfer: BlockTransfer,
    *,
    client: Any,  # noqa: ANN401 boto3 makes its clients at run time
    snapshot_id: str,
    group: ThreadGroup,
) -> list[Callable[[], None]]:
    """Make the functions that send blocks by the SDK, each for a thread of its own and one block at a time.

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


def _renew(transfer: BlockTransfer, keys: Callable[[], AccessKeys]) -> None:
    """Ask for the credentials of now, so that no thread that sends has to wait for them."""
    if was_wanted := transfer.renewal_wanted.is_set():
        transfer.renewal_wanted.clear()  # a thread that sets it from here on is served by the next look at the latest
    if was_wanted and isinstance(keys, RenewedCredentials):
        keys.refuse(transfer.keys)
    try:
        fresh = keys()
    except TransientError:
        # `keys` gives old ones as long as these are valid, so there are none: the blocks that need some go on asking,
        # until their tries end or the transfer stalls
        if was_wanted:
            transfer.renewal_wanted.set()
        return
    if was_wanted or fresh != transfer.keys:
        transfer.renewed(fresh)
