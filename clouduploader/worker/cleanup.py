"""Run `clouduploader cleanup` after uploads that could not clean up in the cloud, as a process of its own.

A clean-up is marked as pending (`Spool.mark_cleanup_pending`) before the job is archived, or its processes are
killed: if the worker dies, the next worker finds the mark. What can't be removed now is tried again later.
"""

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from clouduploader.errors import ClouduploaderError, ExitCode, LocalIOError
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


class Cleanups:
    """The clean-ups of a worker: those that run, and those that wait.

    Args:
        jobs: The spool.
        program: The path of `clouduploader`.
        environment: Returns that of an upload.
        tell: Called with the job and the exit code of each that has ended.
        complain: Called with the job and the reason if one can't be started; it is tried again.
    """

    def __init__(
        self,
        jobs: spool.Spool,
        program: Path,
        *,
        environment: Callable[[], Mapping[str, str]],
        tell: Callable[[str, int], None],
        complain: Callable[[str, str], None],
    ) -> None:
        self._jobs = jobs
        self._program = program
        self._environment = environment
        self._tell = tell
        self._complain = complain
        self._running: list[RunningCleanup] = []
        self._pending: dict[str, PendingCleanup] = {}

    def add(self, job: Job, *, due: float | None = None) -> None:
        """Queue the clean-up after a job.

        Args:
            job: Archived.
            due: When it may start, by the monotonic clock; None for now.
        """
        self._pending[job.name] = PendingCleanup(job, time.monotonic() if due is None else due)

    def start_due(self) -> None:
        """Start those that are due, the oldest first, as many as may run at once."""
        now = time.monotonic()
        for pending in sorted(self._pending.values(), key=lambda pending: pending.due):
            if pending.due > now or len(self._running) >= MAX_AT_ONCE:
                break
            name = pending.job.name
            try:
                started = start(self._jobs, pending, program=self._program, environment=self._environment())
            except ClouduploaderError as exc:
                pending.postpone(now)
                self._complain(name, exc.message)
            else:
                self._running.append(started)
                del self._pending[name]

    def handle_ends(self) -> None:
        """See which have ended; those that left something are tried again later."""
        for done in list(self._running):
            code = done.exit_code()
            if code is not None:
                name = done.pending.job.name
                self._running.remove(done)
                if code == ExitCode.OK:
                    self._jobs.clear_cleanup_pending(name)
                else:  # something is left
                    done.pending.postpone(time.monotonic())
                    self._pending[name] = done.pending
                self._tell(name, code)

    def times(self) -> Iterator[float]:
        """Yield when those that wait may start, by the monotonic clock."""
        if len(self._running) < MAX_AT_ONCE:
            yield from (pending.due for pending in self._pending.values())

    def descriptors(self) -> Iterator[int]:
        """Yield the descriptors that can be read once one has ended."""
        yield from (item.descriptor for item in self._running)

    def close(self) -> None:
        """Close the descriptors; what runs goes on."""
        for item in self._running:
            item.close()


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
