"""Run the upload of a job in this process, and write how the job ended."""

from collections.abc import Callable
from pathlib import Path

from clouduploader.errors import ClouduploaderError, LockedError, NoSuchJobError, StoppedError
from clouduploader.model.job import Details, Job, JobState
from clouduploader.plugin import UploadResult
from clouduploader.store.config import Config
from clouduploader.store.job_log import JobLog, one_line, tell_beginning
from clouduploader.store.spool import Spool
from clouduploader.uploads.result import log_failure
from clouduploader.uploads.run import run
from clouduploader.uploads.task import UploadTask
from clouduploader.util.cancel import Cancel
from clouduploader.util.frozen import frozen

Watch = Callable[[Job, JobLog], None]
"""Called once with the job and its log, before anything is done; may listen to its events."""


@frozen()
class UploadOutcome:
    """A finished upload.

    Attributes:
        job: As it is archived.
        result: What the cloud gave.
        warning: What failed on this machine after the upload, or None.
    """

    job: Job
    result: UploadResult
    warning: str | None = None


def run_job(
    job: Job,
    task: UploadTask,
    *,
    config: Config,
    log: JobLog,
    cancel: Cancel,
    watch: Watch,
    end: Callable[[Job], str | None],
    events_path: Path | None = None,
    is_resumed: bool = False,
) -> UploadOutcome:
    """Upload a job's image, and write the job's end, whatever it is. Blocks as an upload does.

    Args:
        job: Its record, uploading.
        task: What is to be uploaded.
        config: The settings.
        log: The job's log.
        cancel: Requested to stop the upload.
        watch: See Watch.
        end: Writes the job's end into the spool; returns why that is not possible, or None.
        events_path: Where the events are written as JSON lines, or None.
        is_resumed: Whether another process may have taken the job over: then a LockedError leaves the job to it.

    Raises:
        StoppedError: `cancel` was requested; all is cleaned up, the job has failed.
        ClouduploaderError: The upload failed; all is cleaned up, the job has failed.
    """
    try:
        watch(job, log)
        tell_beginning(log, user=task.user, target=task.target)
        if is_resumed:
            log.line(f"Going on with the job {job.name}.")
        result = run(task, config=config, log=log, cancel=cancel, events_path=events_path)
    except BaseException as exc:
        error = exc if isinstance(exc, ClouduploaderError) else ClouduploaderError(f"bug: {type(exc).__name__}")
        reason = log_failure(log, exc, error)
        if not (is_resumed and isinstance(exc, LockedError)):
            end(job.ended(JobState.FAILED, Details.KILLED if isinstance(exc, StoppedError) else reason))
        raise
    job = job.ended(JobState.SUCCEEDED, one_line(result.id))
    return UploadOutcome(job, result, end(job))


def archive(spool: Spool, job: Job, log: JobLog) -> str | None:
    """Archive a job that has ended, unless a kill has done so.

    Returns:
        Why it can't be archived, or None; that changes nothing in how the upload ended.
    """
    try:
        with spool.lock(job.name) as locked:
            locked.archive(job)
    except NoSuchJobError:
        pass
    except ClouduploaderError as exc:
        warning = f"the job {job.name} can't be archived: {exc.message}"
        log.line(f"Warning: {warning}")
        return warning
    return None
