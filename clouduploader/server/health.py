"""Health checks of the service, for load balancers and monitoring."""

import contextlib
import os
from collections.abc import Mapping

from clouduploader.errors import LocalIOError
from clouduploader.store import spool
from clouduploader.util import files, privileges
from clouduploader.util.frozen import frozen

PROBE = ".health.new"  # its name collides with none of OBS's and is passed over by all
PROBE_BYTES = b"clouduploader\n"


@frozen()
class HealthFinding:
    """What one check found.

    Attributes:
        name: "spool", "disk" or "worker"; with a cluster also "broker" or "hosts".
        fault: What is wrong; None if all is well.
    """

    name: str
    fault: str | None


def check(
    jobs: spool.Spool,
    *,
    keep_free_bytes: int,
    keep_free_inodes: int,
    worker_fault: str | None,
    cluster_faults: Mapping[str, str | None],
) -> list[HealthFinding]:
    """Check that the spool can be written, has room for images, and has a worker; blocks as long as the disk does.

    Args:
        jobs: The spool.
        keep_free_bytes: How much no image may fill: with less, none is taken.
        keep_free_inodes: With how few no job is taken.
        worker_fault: Why no worker starts uploads; None if one does.
        cluster_faults: What keeps a cluster from working, by its part; None for a part that works.
    """
    return [
        HealthFinding("spool", _spool_fault(jobs)),
        HealthFinding("disk", _disk_fault(jobs, keep_free_bytes, keep_free_inodes)),
        HealthFinding("worker", worker_fault),
        *(HealthFinding(name, fault) for name, fault in cluster_faults.items()),
    ]


def _spool_fault(jobs: spool.Spool) -> str | None:
    """Write a file there, as every change of a job does."""
    path = jobs.directory / PROBE
    try:
        with privileges.as_owner(jobs.directory):
            descriptor = files.open_regular(path, os.O_WRONLY | os.O_TRUNC, mode=files.PRIVATE_MODE)
            try:
                os.write(descriptor, PROBE_BYTES)
            finally:
                os.close(descriptor)
                with contextlib.suppress(FileNotFoundError):  # another request's
                    path.unlink()
    except OSError as exc:
        return f"{jobs.directory} can't be written: {exc.strerror}"
    return None


def _disk_fault(jobs: spool.Spool, keep_free_bytes: int, keep_free_inodes: int) -> str | None:
    try:
        free, free_inodes = jobs.free_bytes(), jobs.free_inodes()
    except LocalIOError as exc:
        return exc.message
    if free < keep_free_bytes:
        return f"{free} bytes are free, {keep_free_bytes} are to be kept free"
    if free_inodes is not None and free_inodes < keep_free_inodes:
        return f"{free_inodes} inodes are free, {keep_free_inodes} are to be kept free"
    return None
