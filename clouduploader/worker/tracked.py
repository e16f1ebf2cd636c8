"""The uploads that run: whose they are, when their processes have ended, and what is done if those won't."""

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
    """A job that somebody works on.

    Attributes:
        job: Its record when that began, or was found.
        held: The processes whose end is waited for, held by pidfds.
        is_child: Whether its supervisor is our child.
        began: When its first process did, in seconds since boot.
        escalation: When SIGKILL is due, by the monotonic clock; None as long as it was not killed.
        was_forced: Whether SIGKILL was sent.
        exit_code: Of our child, once it is closed; None if that is not known.
    """

    job: Job
    held: util_processes.PidfdSet
    is_child: bool
    began: float
    escalation: float | None = None
    was_forced: bool = False
    exit_code: int | None = None

    def has_ended(self) -> bool:
        """Whether all its processes have."""
        return not self.held.living()

    def close(self) -> None:
        """Let go of the processes; count our child as ended if it has."""
        self.held.close()
        if self.is_child and self.job.pid:
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(self.job.pid, os.WNOHANG)
                code = os.waitstatus_to_exitcode(status)
                self.exit_code = code if pid and code >= 0 else None  # below 0 the supervisor itself was killed

    def end(self) -> UploadEnd:
        """How it ended; to be asked when it is closed."""
        return UploadEnd(self.exit_code, util_processes.seconds_since_boot() - self.began)


def started(job: Job) -> TrackedUpload:
    """An upload whose supervisor is our child."""
    upload = TrackedUpload(job, util_processes.PidfdSet(), is_child=True, began=util_processes.seconds_since_boot())
    found = util_processes.find(job.pid) if job.pid else None
    if found:
        upload.held.add([found])
    return upload


def adopted(jobs: spool.Spool, job: Job) -> TrackedUpload | None:
    """An upload that somebody else has started.

    Args:
        jobs: The spool.
        job: Its record.

    Returns:
        None if nobody works on it.

    Raises:
        LocalIOError: That can't be seen.
    """
    crew = util_processes.job_processes(job.pid, process_match(jobs, job))
    upload = TrackedUpload(job, util_processes.PidfdSet(), is_child=False, began=_beginning(crew.workers))
    # A supervisor stays to the end; what its uploader leaves in the background is not waited for.
    leaders = [member for member in crew.workers if member.pid == job.pid]
    upload.held.add(leaders or crew.workers)
    if crew.ownership is Ownership.UNKNOWN and job.pid and util_processes.is_locked(jobs.log_path(job.name)):
        found = util_processes.find(job.pid)  # somebody else's; that he works on it is known by the lock only
        upload.held.add([found] if found else ())
    if upload.held.living():
        return upload
    upload.close()
    return None


def orphaned(job: Job, found: util_processes.Process) -> TrackedUpload:
    """An upload of a job that was killed, by its supervisor, which is still there."""
    upload = TrackedUpload(
        dataclasses.replace(job, pid=found.pid), util_processes.PidfdSet(), is_child=False, began=_beginning([found])
    )
    upload.held.add([found])
    return upload


def _beginning(processes: Iterable[util_processes.Process]) -> float:
    return min((member.began for member in processes), default=util_processes.seconds_since_boot())


def force(jobs: spool.Spool, upload: TrackedUpload) -> None:
    """Send SIGKILL to all that work on a job that was killed, whatever session they are in.

    Raises:
        NotOwnerError: They are somebody else's.
        LocalIOError: They can't be looked up.
    """
    crew = util_processes.job_processes(upload.job.pid, process_match(jobs, upload.job))
    upload.held.add((*crew.workers, *crew.descendants))
    upload.held.kill(upload.job.pid)
    upload.was_forced = True


def supervisors(jobs: spool.Spool) -> dict[str, int]:
    """The supervisors of jobs, archived or not, whichever worker started them: pids by job.

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
