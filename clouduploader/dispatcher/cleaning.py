"""The clean-up in the cloud after uploads that could not do it: `clouduploader cleanup`, as a process of its own.

That one is due is written down (`Spool.owe_cleanup`) before the job is archived, or its processes are killed: if the
worker dies, or what is left can't be removed now, the next worker sees to it.
"""

import contextlib
import dataclasses
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from clouduploader import spool
from clouduploader.dispatcher import starting
from clouduploader.errors import LocalIOError
from clouduploader.job import Job


@dataclasses.dataclass(frozen=True)
class Cleaning:
    """A clean-up that runs; it needs us no more than an upload does.

    Attributes:
        name: After which job.
        pid: Its process, our child.
        descriptor: A pidfd of it.
    """

    name: str
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


def start(jobs: spool.Spool, job: Job, *, program: Path, environment: Mapping[str, str]) -> Cleaning:
    """Remove what an upload left, as far as its journal knows of it. What is done goes to the job's log.

    Args:
        jobs: The spool.
        job: Archived.
        program: Ours.
        environment: Of an upload.

    Raises:
        LocalIOError: It can't be started.
    """
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
                setsigdef=starting.DEFAULT_SIGNALS,
            )
    except OSError as exc:
        raise LocalIOError(f"the clean-up after the job {job.name} can't be started: {exc.strerror}") from exc
    try:
        return Cleaning(job.name, pid, os.pidfd_open(pid))
    except OSError as exc:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        raise LocalIOError(f"the clean-up after the job {job.name} can't be watched: {exc.strerror}") from exc
