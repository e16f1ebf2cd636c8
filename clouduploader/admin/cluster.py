"""Look after a cluster: how it is, and which of its hosts take jobs."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from clouduploader.errors import TransientError
from clouduploader.util.frozen import frozen

if TYPE_CHECKING:
    from clouduploader.client import JobServer
    from clouduploader.client.cluster_status import ClusterStatus

LOOK_SECONDS = 2.0


@frozen()
class Draining:
    """What became of a host that takes jobs no more, or again.

    Attributes:
        host: Its name.
        is_draining: Whether it takes no more.
        is_known: Whether the server has heard of it lately.
        jobs: Those that it still works on.
    """

    host: str
    is_draining: bool
    is_known: bool
    jobs: tuple[str, ...]


def drain(
    server: "JobServer",
    host: str,
    *,
    is_draining: bool = True,
    is_waiting: bool = False,
    pause: Callable[[float], None] = time.sleep,
) -> Draining:
    """Let a host take no more jobs, or take them again, also one that is not there yet; what it works on goes on.

    Args:
        server: Its server.
        host: The host's name.
        is_draining: False to take them again.
        is_waiting: Whether to wait until the host works on none.
        pause: Waits for some seconds.

    Raises:
        ClouduploaderError: The server can't be asked, or refuses. While it waits, a server that is not reached is
            asked again.
    """
    server.drain_host(host, is_draining=is_draining)
    found = server.cluster_status()
    is_known = any(one.name == host for one in found.hosts)
    while is_waiting and _jobs(found, host):
        pause(LOOK_SECONDS)
        try:
            found = server.cluster_status()
        except TransientError:
            continue  # it is restarted, perhaps
    return Draining(host, is_draining, is_known, _jobs(found, host))


def _jobs(found: "ClusterStatus", host: str) -> tuple[str, ...]:
    return tuple(lease.job for lease in found.leases if lease.host == host)
