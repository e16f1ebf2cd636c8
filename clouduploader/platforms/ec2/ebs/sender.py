"""Sends an image's blocks into a pending snapshot: as fast as the quota allows, until each one is confirmed."""

import os
from collections.abc import Callable
from typing import Any

from clouduploader.errors import TransientError
from clouduploader.model.disk import BlockSource
from clouduploader.platforms.ec2 import endpoint
from clouduploader.platforms.ec2.auth import RenewedCredentials
from clouduploader.platforms.ec2.ebs import connection, event_loop, protocol, sdk_sender
from clouduploader.platforms.ec2.ebs import threads as ebs_threads
from clouduploader.platforms.ec2.ebs.confirmed import ConfirmedBlocks
from clouduploader.platforms.ec2.ebs.transfer import BlockTransfer, Timeouts
from clouduploader.platforms.ec2.settings import Ec2Settings
from clouduploader.platforms.ec2.sigv4 import AccessKeys
from clouduploader.plugin import Reporter
from clouduploader.util.cancel import Cancel

MIN_RINGS, MAX_RINGS = 2, 4
"""Threads: one a core. Even on one core the second works while the first waits for a disk; four do 4,000 blocks a
second (bench/README.rst)."""
SYNC_SECONDS = 5.0  # of confirmed blocks may have to be sent again after the machine has crashed


def send(
    source: BlockSource,
    *,
    route: endpoint.ProxyRoute,
    snapshot_id: str,
    ledger: ConfirmedBlocks,
    keys: Callable[[], AccessKeys],
    settings: Ec2Settings,
    make_client: Callable[..., Any],
    cancel: Cancel,
    reporter: Reporter,
    on_progress: Callable[[], None],
    patience: Timeouts | None = None,
) -> None:
    """Send all blocks of an image that the snapshot does not have yet. Blocks.

    No thread is left that uses anything given here when it ends. Behind a proxy that does not answer, some may wait
    for that yet, for at most `silence_seconds` of the patience, and then end.

    Args:
        source: The blocks.
        route: To the EBS direct API, as the SDK has it.
        snapshot_id: Pending, and ours.
        ledger: What is confirmed already, and gets what will be.
        keys: Gives credentials that are valid now; asked several times a second.
        settings: `connections` and `blocks_per_second` are used.
        make_client: Makes a client of the SDK for this API; called if there is a proxy on the way, with options of
            botocore's Config.
        cancel: Ends it within about a second.
        reporter: Told how it is done.
        on_progress: Called several times a second, by the caller's thread.
        patience: See Patience; None for the usual.

    Raises:
        ContentChangedError: The ledger has a block of other content; blocks may have been sent.
        NetworkError: The endpoint can't be reached, or hangs up, or confirms nothing for minutes.
        ConfigError: Its certificate is not believed.
        DeniedError: The role may not do it; CredentialsError: The credentials are not accepted.
        PlatformReplyError: AWS said no for good.
        ImageError: See BlockSource; LocalIOError: also for the ledger.
        StoppedError: The stop was requested.
    """
    place = route.place
    requests = protocol.BlockRequests(place=place, region=route.region, snapshot_id=snapshot_id)
    transfer = BlockTransfer(
        source=source,
        book=ledger,
        settings=settings,
        patience=patience or Timeouts(),
        requests=None if route.proxy else requests,
        url=place.url,
        snapshot_id=snapshot_id,
        keys=keys(),
        cancel=cancel,
    )
    addresses = None
    threads = ebs_threads.ThreadGroup()
    if route.proxy:
        reporter.line(f"There is a proxy on the way to {place.host}: the blocks are sent by the SDK.")
        workers = sdk_sender.workers(
            transfer,
            client=make_client(**sdk_sender.client_options(transfer.patience)),
            snapshot_id=snapshot_id,
            connections=settings.connections,
            threads=threads,
        )
    else:
        addresses = connection.Addresses(place)
        context = route.tls_context()
        rings = min(max(MIN_RINGS, os.cpu_count() or 1), MAX_RINGS, settings.connections)
        workers = [
            event_loop.ConnectionLoop(
                transfer,
                requests=requests,
                place=place,
                addresses=addresses,
                context=context,
                most=(settings.connections + number) // rings,
            ).run
            for number in range(rings)
        ]
    _run(threads, workers, transfer, keys=keys, ledger=ledger, on_progress=on_progress, addresses=addresses)
    cancel.raise_if_requested()
    if transfer.error:
        raise transfer.error
    transfer.check_rest()


def _run(
    threads: ebs_threads.ThreadGroup,
    workers: list[Callable[[], None]],
    transfer: BlockTransfer,
    *,
    keys: Callable[[], AccessKeys],
    ledger: ConfirmedBlocks,
    on_progress: Callable[[], None],
    addresses: connection.Addresses | None,
) -> None:
    """Let the workers work, and look after what is common to them."""
    synced_at = transfer.clock()
    try:
        for worker in workers:
            threads.start(worker)
        while not transfer.is_over and not threads.wait(transfer.patience.tick_seconds):
            on_progress()
            _renew(transfer, keys)
            transfer.check_stall()
            if addresses:
                addresses.refresh()
            if transfer.clock() - synced_at > SYNC_SECONDS:
                synced_at = transfer.clock()
                ledger.sync()
    finally:
        transfer.end()
        threads.leave()
    threads.wait(0)
    on_progress()


def _renew(transfer: BlockTransfer, keys: Callable[[], AccessKeys]) -> None:
    """Ask for the credentials of now, so that no worker has to wait for them."""
    if was_wanted := transfer.renewal_wanted.is_set():
        transfer.renewal_wanted.clear()  # whoever sets it from here on is served by the next look at the latest
    if was_wanted and isinstance(keys, RenewedCredentials):
        keys.refuse(transfer.keys)
    try:
        fresh = keys()
    except TransientError:
        # `keys` gives old ones as long as these are valid, so there are none: those who need some go on asking,
        # until their patience ends or the transfer's
        if was_wanted:
            transfer.renewal_wanted.set()
        return
    if was_wanted or fresh != transfer.keys:
        transfer.renewed(fresh)
