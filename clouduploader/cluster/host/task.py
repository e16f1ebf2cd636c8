"""The task of the cluster as a host does it."""

import re

from clouduploader.client.cluster import ClusterServer
from clouduploader.cluster.host import directory
from clouduploader.cluster.host.attempt import Attempt, HostFacts

MAX_ATTEMPT = 1 << 53  # that a server has
MAX_SHOWN = 200  # characters of what a message says
_JOB = re.compile(r"[0-9]{1,18}")


def is_job(job: object, attempt: object) -> bool:
    """Return whether a message names what a server can have published."""
    return isinstance(job, str) and bool(_JOB.fullmatch(job)) and type(attempt) is int and 0 < attempt < MAX_ATTEMPT


def upload(host: HostFacts, server: ClusterServer, job: object, attempt: object, url: object) -> None:
    """Do what a message asks for. It comes from the broker, where others may write too: it is only a hint to ask.

    Args:
        host: This host.
        server: Its server.
        job: The number of a job.
        attempt: The number of an attempt.
        url: Of the server that has published it.
    """
    if not (isinstance(job, str) and isinstance(attempt, int) and is_job(job, attempt)):
        host.log.tell("refused", text="a message names no job and no attempt")
        return
    if url != server.url:
        host.log.tell(
            "refused", job=job, attempt=attempt, text=f"it is of the server {str(url)[:MAX_SHOWN]}, not of {server.url}"
        )
        return
    directory.remove_dead(host.spool)
    Attempt(host, server, job, attempt).run()
