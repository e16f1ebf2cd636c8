"""The uploads that run: whose they are, when their processes have ended, and what is done if those won't."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterable

from clouduploader import process, spool
from clouduploader.dispatcher.happening import End
from clouduploader.job import Job
from clouduploader.process import Standing

_LOG_NAME = re.compile(r"([0-9]+)\.log")


@dataclasses.dataclass
class Upload:
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
    held: process.Held
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

    def end(self) -> End:
        """How it ended; to be asked when it is closed."""
        return End(self.exit_code, process.seconds_since_boot() - self.began)


def started(job: Job) -> Upload:
    """An upload whose supervisor is our child."""
    upload = Upload(job, process.Held(), is_child=True, began=process.seconds_since_boot())
    found = process.find(job.pid) if job.pid else None
    if found:
        upload.held.add([found])
    return upload


def adopted(jobs: spool.Spool, job: Job) -> Upload | None:
    """An upload that somebody else has started.

    Args:
        jobs: The spool.
        job: Its record.

    Returns:
        None if nobody works on it.

    Raises:
        LocalIOError: That can't be seen.
    """
    crew = process.crew(job.pid, traces(jobs, job.name))
    upload = Upload(job, process.Held(), is_child=False, began=_beginning(crew.workers))
    # A supervisor stays to the end; what its uploader leaves in the background is not waited for.
    leaders = [member for member in crew.workers if member.pid == job.pid]
    upload.held.add(leaders or crew.workers)
    if crew.standing is Standing.UNKNOWN and job.pid and process.is_locked(jobs.log_path(job.name)):
        found = process.find(job.pid)  # somebody else's; that he works on it is known by the lock only
        upload.held.add([found] if found else ())
    if upload.held.living():
        return upload
    upload.close()
    return None


def orphaned(job: Job, found: process.Process) -> Upload:
    """An upload of a job that was killed, by its supervisor, which is still there."""
    upload = Upload(dataclasses.replace(job, pid=found.pid), process.Held(), is_child=False, began=_beginning([found]))
    upload.held.add([found])
    return upload


def _beginning(processes: Iterable[process.Process]) -> float:
    return min((member.began for member in processes), default=process.seconds_since_boot())


def force(jobs: spool.Spool, upload: Upload) -> None:
    """Send SIGKILL to all that work on a job that was killed, whatever session they are in.

    Raises:
        NotOwnerError: They are somebody else's.
        LocalIOError: They can't be looked up.
    """
    crew = process.crew(upload.job.pid, traces(jobs, upload.job.name))
    upload.held.add((*crew.workers, *crew.descendants))
    upload.held.kill(upload.job.pid)
    upload.was_forced = True


def traces(jobs: spool.Spool, name: str) -> process.Traces:
    """What the processes that work on a job can be known by."""
    return process.Traces(
        work_dir=jobs.work_dir(name),
        written_paths=(jobs.log_path(name), jobs.done_log_path(name)),
    )


def supervisors(jobs: spool.Spool) -> dict[str, int]:
    """The supervisors of jobs, archived or not, whichever worker started them: pids by job.

    Each leads a session, has the log of the job as its standard output, locked, and began before all others who do.
    """
    trusted = process.trusted_owners(jobs.directory)
    found: dict[str, int] = {}
    for member in sorted(process.everybody().values(), key=lambda member: (member.start_ticks, member.pid)):
        if member.pid != member.group or process.owner(member.pid) not in trusted:
            continue
        output = process.locked_output(member.pid)
        name = _LOG_NAME.fullmatch(output.name) if output else None
        logs = (jobs.log_path(name[1]), jobs.done_log_path(name[1])) if name else ()
        if name and any(process.is_output(member.pid, path) for path in logs):
            found.setdefault(name[1], member.pid)
    return found
