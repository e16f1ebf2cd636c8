"""The clean-up in the cloud after uploads that could not do it: `clouduploader cleanup`, as a process of its own.

That one is due is written down (`Spool.mark_cleanup_pending`) before the job is archived, or its processes are
killed: if the worker dies, the next worker sees to it. What can't be removed now is tried again after a while.
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
RETRY_MAX_SECONDS = 21_600.0  # but no longer: credentials that are mended should be used on the same day


@dataclasses.dataclass
class PendingCleanup:
    """A clean-up that is due.

    Attributes:
        job: After which job; archived.
        due: When, by the monotonic clock.
        tries: How often it was put off.
    """

    job: Job
    due: float
    tries: int = 0

    def put_off(self, now: float) -> None:
        """Try again later."""
        self.due = now + min(RETRY_MAX_SECONDS, RETRY_SECONDS * 2 ** min(self.tries, 30))
        self.tries += 1


@frozen()
class CleanupRunner:
    """A clean-up that runs; it needs us no more than an upload does.

    Attributes:
        debt: See PendingCleanup.
        pid: Its process, our child.
        descriptor: A pidfd of it.
    """

    debt: PendingCleanup
    pid: int
    descriptor: int

    def exit_code(self) -> int | None:
        """The exit code, once; afterwards it is counted as ended. None as long as it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        self.close()
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)


def start(jobs: spool.Spool, debt: PendingCleanup, *, program: Path, environment: Mapping[str, str]) -> CleanupRunner:
    """Remove what an upload left, as far as its journal knows of it. What is done goes to the job's log.

    Args:
        jobs: The spool.
        debt: See PendingCleanup.
        program: Ours.
        environment: Of an upload.

    Raises:
        LocalIOError: It can't be started.
    """
    job = debt.job
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
        return CleanupRunner(debt, pid, os.pidfd_open(pid))
    except OSError as exc:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        raise LocalIOError(f"the clean-up after the job {job.name} can't be watched: {exc.strerror}") from exc
