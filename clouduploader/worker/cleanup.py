"""Run `clouduploader cleanup` after uploads that could not clean up in the cloud, as a process of its own.

A clean-up is marked as pending (`Spool.mark_cleanup_pending`) before the job is archived, or its processes are
killed: if the worker dies, the next worker finds the mark. What can't be removed now is tried again later.
"""

import contextlib
import dataclasses
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from clouduploader.errors import LocalIOError
from clouduploader.model.job import Job
from clouduploader.store import spool
from clouduploader.util.frozen import frozen
from clouduploader.worker import launcher

MAX_AT_ONCE = 4  # after an outage there may be hundreds, and each is a process that loads an SDK
RETRY_SECONDS = 300.0  # until a clean-up that left something is tried again; each later pause is twice as long
RETRY_MAX_SECONDS = 21_600.0  # but no longer: new credentials should be used on the same day


@dataclasses.dataclass
class PendingCleanup:
    """A clean-up that waits to be started.

    Attributes:
        job: The job that it cleans up after; archived.
        due: When to start it, by the monotonic clock.
        tries: How often it was postponed.
    """

    job: Job
    due: float
    tries: int = 0

    def postpone(self, now: float) -> None:
        """Set `due` to after the next pause."""
        self.due = now + min(RETRY_MAX_SECONDS, RETRY_SECONDS * 2 ** min(self.tries, 30))
        self.tries += 1


@frozen()
class RunningCleanup:
    """A clean-up that runs; it goes on if the worker ends, as an upload does.

    Attributes:
        pending: What was started.
        pid: Its process, a child of the worker.
        descriptor: A pidfd of it.
    """

    pending: PendingCleanup
    pid: int
    descriptor: int

    def exit_code(self) -> int | None:
        """Return the exit code, and close the pidfd; None as long as it runs. Not to be called after that."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        self.close()
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """Close the pidfd."""
        os.close(self.descriptor)


def start(
    jobs: spool.Spool, pending: PendingCleanup, *, program: Path, environment: Mapping[str, str]
) -> RunningCleanup:
    """Start the clean-up after a job; what it does goes to the job's log.

    Args:
        jobs: The spool.
        pending: What to start.
        program: The path of `clouduploader`.
        environment: Of an upload.

    Raises:
        LocalIOError: It can't be started.
    """
    job = pending.job
    words = ["cleanup", "--yes", "--completed", f"--target={job.target}", f"--job={job.name}"]
    try:
        with contextlib.closing(jobs.append_archived_log(job.name)) as log:
            pid = os.posix_spawn(
                program,
                [str(program), *words],
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 1),
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 2),
                ],
                setsid=True,
                setsigmask=(),
                setsigdef=launcher.DEFAULT_SIGNALS,
            )
    except OSError as exc:
        raise LocalIOError(f"the clean-up after the job {job.name} can't be started: {exc.strerror}") from exc
    try:
        return RunningCleanup(pending, pid, os.pidfd_open(pid))
    except OSError as exc:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        raise LocalIOError(f"the clean-up after the job {job.name} can't be watched: {exc.strerror}") from exc
