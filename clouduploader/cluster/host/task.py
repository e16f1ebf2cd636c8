"""The task of the cluster as a host does it."""

from clouduploader.client.cluster import ClusterServer
from clouduploader.cluster.host import directory
from clouduploader.cluster.host.attempt import Attempt, HostFacts

MAX_SHOWN = 200  # characters of what a message says


def upload(host: HostFacts, server: ClusterServer, job: str, attempt: int, url: str) -> None:
    """Do what a message asks for. It comes from the broker, where others may write too: it is only a hint to ask.

    `messages` has let through only what a server can have published.

    Args:
        host: This host.
        server: Its server.
        job: The number of a job.
        attempt: The number of an attempt.
        url: Of the server that has published it.
    """
    if url != server.url:
        host.log.tell(
            "refused", job=job, attempt=attempt, text=f"it is of the server {url[:MAX_SHOWN]}, not of {server.url}"
        )
        return
    directory.remove_dead(host.spool)
    Attempt(host, server, job, attempt).run()
