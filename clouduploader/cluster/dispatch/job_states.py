"""What the records and logs of a cluster's jobs say of their attempts, written as a worker would.

None of it knows of leases: which attempt may have a say is decided by `leases`, which calls this.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

from clouduploader.errors import ClouduploaderError, JobFileError, NoSuchJobError
from clouduploader.model.job import Job, JobState
from clouduploader.store import job_log, spool
from clouduploader.uploads.result import log_failure
from clouduploader.util import files, privileges
from clouduploader.worker import outcome, queue
from clouduploader.worker.settings import WorkerSettings


class JobStates:
    """The states of a spool's jobs. Any thread may call the methods, which block.

    Each of these may raise a ClouduploaderError: a file can't be read or written now.

    Args:
        jobs: The spool.
        state_dir: Where the journals are.
        settings: Returns those of the worker.
    """

    def __init__(self, jobs: spool.Spool, state_dir: Path, settings: Callable[[], WorkerSettings]) -> None:
        self._jobs = jobs
        self._state_dir = state_dir
        self._settings = settings

    def mark_uploading(self, name: str) -> bool:
        """Write down that a host has a job; return False if it was killed meanwhile."""
        try:
            with self._jobs.lock(name) as locked:
                if locked.job.state in queue.STARTABLE:
                    changes = {"state": JobState.UPLOADING, "details": None, "progress": None, "pid": None}
                    locked.replace(dataclasses.replace(locked.job, **changes))  # type: ignore[arg-type]
        except NoSuchJobError:
            return False
        return True

    def write_progress(self, name: str, percent: int) -> bool:
        """Write down how far the upload of a host is; return whether that could be done."""
        with contextlib.suppress(ClouduploaderError), self._jobs.lock(name) as locked:
            if _is_with_host(locked.job):
                locked.replace(dataclasses.replace(locked.job, progress=percent))
                return True
        return False

    def reschedule(self, name: str, details: str | None = None) -> JobState | None:
        """Let a job that a host was uploading be scheduled again.

        Args:
            name: The job.
            details: What its user is told as long as it waits.

        Returns:
            The state that it was in; None if it is over, or its record is damaged.
        """
        with contextlib.suppress(JobFileError, NoSuchJobError), self._jobs.lock(name) as locked:
            job = locked.job
            if _is_with_host(job):
                locked.replace(dataclasses.replace(job, state=JobState.SCHEDULED, details=details, progress=None))
            return job.state
        return None

    def fail(self, name: str, details: str) -> None:
        """Archive a job that can't be uploaded as failed.

        Raises:
            NoSuchJobError: It is over.
        """
        with self._jobs.lock(name) as locked:
            outcome.fail(locked, details)

    def give_up(self, name: str, details: str) -> bool:
        """Fail a job that hosts were uploading, and may have left something of; return whether that was done."""
        with contextlib.suppress(JobFileError, NoSuchJobError), self._jobs.lock(name) as locked:
            if locked.job.state is JobState.UPLOADING:
                self._jobs.mark_cleanup_pending(name)
                outcome.fail(locked, details)
                return True
        return False

    def record_exit(self, name: str, code: int) -> Job:
        """Record how the upload of a host ended.

        Args:
            name: The job.
            code: See `outcome.record_exit`.

        Returns:
            Its record now, whatever has ended it.

        Raises:
            JobFileError, NoSuchJobError: Its record is damaged, or gone.
        """
        settings = self._settings()
        job, _ = self._jobs.read(name)
        retries = outcome.RetryLimits(settings.tries, settings.pause_seconds((job.try_ or 1) + 1))
        ended = outcome.record_exit(self._jobs, name, pid=None, code=code, retries=retries, state_dir=self._state_dir)
        return ended or self._jobs.read(name)[0]

    def record_success(self, name: str) -> bool:
        """Record that an upload has succeeded, if that stands in its journal; return whether it does.

        Its host was lost before it could say so. Another attempt would find the image, or make it once more.
        """
        with contextlib.suppress(JobFileError, NoSuchJobError), self._jobs.lock(name) as locked:
            if _is_with_host(locked.job) and outcome.has_succeeded(self._jobs, locked.job, self._state_dir):
                outcome.record_interrupted(self._jobs, locked, self._state_dir)
                return True
        return False

    def mark_leftovers(self, name: str) -> None:
        """See `outcome.mark_leftovers`."""
        outcome.mark_leftovers(self._jobs, name, self._state_dir)

    def write_result(self, name: str, result: str) -> None:
        """Write what an upload gave, unless the job is over: then no process removes the file."""
        path = self._jobs.result_path(name)
        data = job_log.one_line(result).encode()[: outcome.MAX_RESULT_BYTES]
        with contextlib.suppress(NoSuchJobError, JobFileError), self._jobs.lock(name):
            try:
                with privileges.as_owner(self._jobs.directory):
                    files.replace_file(path, data, mode=files.GROUP_MODE)
            except OSError as exc:
                raise self._jobs.cannot_create(path, exc) from exc

    def tell_failure(self, job: Job, error: ClouduploaderError) -> None:
        """Write into log and result why a job can't be uploaded, as its uploader would."""
        with self._jobs.open_log(job.name) as file:
            log = job_log.JobLog([file], is_verbose=False, has_times=True)
            job_log.tell_beginning(log, user=job.user or "", target=job.target or "")
            self.write_result(job.name, log_failure(log, error, error))

    def tell_loss(self, name: str, sentence: str) -> None:
        """Tell the reader of a job's log what was lost; as far as the disk takes it."""
        open_log = self._jobs.append_archived_log if self._jobs.is_archived(name) else self._jobs.open_log
        with contextlib.suppress(ClouduploaderError, OSError), open_log(name) as file:
            lines = job_log.JobLog([file], is_verbose=False, has_times=True)
            lines.line(sentence[0].upper() + sentence[1:])


def _is_with_host(job: Job) -> bool:
    return job.state is JobState.UPLOADING and job.pid is None
