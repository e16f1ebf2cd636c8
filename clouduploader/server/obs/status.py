"""OBS's documents about the state of a server: workerstatus, serverstatus and ajaxstatus."""

import os
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from clouduploader.model import job_xml
from clouduploader.util import processes
from clouduploader.util.frozen import frozen

SERVER, WORKER = "clouduploadserver", "clouduploadworker"  # the types that OBS's status pages know


@frozen()
class InFlight:
    """A request that is being answered.

    Attributes:
        number: Counted from 1.
        line: Method, client and target, as OBS shows them.
        began: Seconds since the epoch.
        descriptor: Of its connection.
        is_following: Whether it follows a log.
    """

    number: int
    line: str
    began: int
    descriptor: int
    is_following: bool


def workerstatus(locks: Iterable[Path], *, started: int, types: Collection[str]) -> bytes:
    """Return which daemons run, and since when.

    Args:
        locks: The lock files of a worker, see `worker.lock`.
        started: When the server was, in seconds since the epoch.
        types: Of these daemons; empty for both.
    """
    lines = []
    for name in types or (SERVER, WORKER):
        if name == SERVER:
            lines.append(_daemon(name, started))
        elif name == WORKER:
            lines.append(_daemon(name, _worker_started(locks)))
    inner = "".join(lines)
    return f"<workerstatus>\n  <partition>\n{inner}  </partition>\n</workerstatus>\n".encode()


def serverstatus(requests: Iterable[InFlight], *, started: int) -> bytes:
    """Return which requests are being answered."""
    lines = [
        f'  <job id="{it.number}" starttime="{it.began}" pid="{os.getpid()}" request="{job_xml.escape(it.line)}" />\n'
        for it in requests
    ]
    return f'<serverstatus starttime="{started}">\n{"".join(lines)}</serverstatus>\n'.encode()


def ajaxstatus(requests: Iterable[InFlight], *, started: int) -> bytes:
    """Return which logs are being followed; OBS has a process of its own for them."""
    lines = [
        f'    <job ev="{it.number}" fd="{it.descriptor}" starttime="{it.began}" '
        f'request="{job_xml.escape(it.line)}" state="replying" />\n'
        for it in requests
        if it.is_following
    ]
    jobs = "".join(lines)
    return (
        f'<ajaxstatus starttime="{started}" ev="{len(lines)}">\n  <joblist>\n{jobs}  </joblist>\n</ajaxstatus>\n'
    ).encode()


def is_worker_running(locks: Iterable[Path]) -> bool:
    """Return whether a worker, ours or OBS's, runs on the spool; see `workerstatus`."""
    return _worker_started(locks) is not None


def now() -> int:
    """Return the time in seconds since the epoch."""
    return int(time.time())


def _daemon(name: str, started: int | None) -> str:
    if started is None:
        return f'    <daemon type="{name}" state="dead" />\n'
    return f'    <daemon type="{name}" state="running" starttime="{started}" />\n'


def _worker_started(locks: Iterable[Path]) -> int | None:
    for path in locks:
        if processes.is_locked(path):
            try:
                return int(path.stat().st_mtime)
            except FileNotFoundError:
                continue
    return None
