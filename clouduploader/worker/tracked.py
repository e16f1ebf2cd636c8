"""Uploads that run: find their processes, see that these have ended, and kill them."""

import contextlib
import dataclasses
import os
from collections.abc import Iterable

from clouduploader.model.job import Job
from clouduploader.store import spool
from clouduploader.store.spool.paths import job_of_log
from clouduploader.store.spool.process_match import process_match
from clouduploader.util import processes as util_processes
from clouduploader.util.processes import Ownership
from clouduploader.worker.events import UploadEnd


@dataclasses.dataclass
class TrackedUpload:
    """An upload that runs.

    Attributes:
        job: Its record when the upload was started, or found.
        pidfds: Of the processes whose end is waited for.
        is_child: Whether its supervisor is a child of this process.
        began: When its first process did, in seconds since boot.
        escalation: When SIGKILL is due, by the monotonic clock; None as long as the job was not killed.
        was_forced: Whether SIGKILL was sent.
        exit_code: Of a child, after `close`; None if that is not known.
    """

    job: Job
    pidfds: util_processes.PidfdSet
    is_child: bool
    began: float
    escalation: float | None = None
    was_forced: bool = False
    exit_code: int | None = None

    def has_ended(self) -> bool:
        """Return whether all its processes have ended."""
        return not self.pidfds.living()

    def close(self) -> None:
        """Close the pidfds; get the exit code of a child that has ended."""
        self.pidfds.close()
        if self.is_child and self.job.pid:
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(self.job.pid, os.WNOHANG)
                code = os.waitstatus_to_exitcode(status)
                self.exit_code = code if pid and code >= 0 else None  # below 0 the supervisor itself was killed

    def end(self) -> UploadEnd:
        """Return how it ended; after `close`."""
        return UploadEnd(self.exit_code, util_processes.seconds_since_boot() - self.began)


def track_started(job: Job) -> TrackedUpload:
    """Track an upload whose supervisor is a child of this process."""
    upload = TrackedUpload(job, util_processes.PidfdSet(), is_child=True, began=util_processes.seconds_since_boot())
    if job.pid:
        upload.pidfds.add_child(job.pid)
    return upload


def track_adopted(jobs: spool.Spool, job: Job) -> TrackedUpload | None:
    """Track an upload that another process has started.

    Args:
        jobs: The spool.
        job: Its record.

    Returns:
        None if no process works on it.

    Raises:
        LocalIOError: That can't be seen.
    """
    processes = util_processes.job_processes(job.pid, process_match(jobs, job))
    upload = TrackedUpload(job, util_processes.PidfdSet(), is_child=False, began=_beginning(processes.workers))
    # A supervisor stays to the end; what its uploader leaves in the background is not waited for.
    leaders = [member for member in processes.workers if member.pid == job.pid]
    upload.pidfds.add(leaders or processes.workers)
    if processes.ownership is Ownership.UNKNOWN and job.pid and util_processes.is_locked(jobs.log_path(job.name)):
        found = util_processes.find(job.pid)  # of another user; only the lock shows that it works on the job
        upload.pidfds.add([found] if found else ())
    if upload.pidfds.living():
        return upload
    upload.close()
    return None


def track_orphaned(job: Job, found: util_processes.Process) -> TrackedUpload:
    """Track the upload of a job that was killed, by its supervisor, which is still there."""
    upload = TrackedUpload(
        dataclasses.replace(job, pid=found.pid), util_processes.PidfdSet(), is_child=False, began=_beginning([found])
    )
    upload.pidfds.add([found])
    return upload


def _beginning(processes: Iterable[util_processes.Process]) -> float:
    return min((member.began for member in processes), default=util_processes.seconds_since_boot())


def force(jobs: spool.Spool, upload: TrackedUpload) -> None:
    """Send SIGKILL to all that work on a job that was killed, whatever session they are in.

    Raises:
        NotOwnerError: They are another user's.
        LocalIOError: They can't be looked up.
    """
    processes = util_processes.job_processes(upload.job.pid, process_match(jobs, upload.job))
    upload.pidfds.add((*processes.workers, *processes.descendants))
    upload.pidfds.kill(upload.job.pid)
    upload.was_forced = True


def supervisors(jobs: spool.Spool) -> dict[str, int]:
    """Find the supervisors of jobs, archived or not, whichever worker started them: pids by job.

    Each leads a session, has the log of the job as its standard output, locked, and began before all others who do.
    """
    trusted = util_processes.trusted_owners(jobs.directory)
    found: dict[str, int] = {}
    for member in sorted(util_processes.all_processes().values(), key=lambda member: (member.start_ticks, member.pid)):
        if member.pid != member.group or util_processes.owner(member.pid) not in trusted:
            continue
        output = util_processes.locked_output(member.pid)
        name = job_of_log(output) if output else None
        logs = (jobs.log_path(name), jobs.done_log_path(name)) if name else ()
        if name and any(util_processes.is_output(member.pid, path) for path in logs):
            found.setdefault(name, member.pid)
    return found
