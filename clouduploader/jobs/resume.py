"""Go on with a job whose uploader died."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from clouduploader.errors import (
    ClouduploaderError,
    JobStateError,
    LockedError,
    MissingFileError,
    NoSuchJobError,
    StoppedError,
)
from clouduploader.jobs import inspect
from clouduploader.jobs import log as jobs_log
from clouduploader.jobs.upload import UploadOutcome, archive
from clouduploader.model.job import Details, Job, JobState
from clouduploader.store import job_log, journal, target_data
from clouduploader.store.config import Config
from clouduploader.store.spool import Spool
from clouduploader.uploads import run as uploads_run
from clouduploader.uploads.result import log_failure
from clouduploader.uploads.task import UploadTask
from clouduploader.util import processes
from clouduploader.util.cancel import Cancel
from clouduploader.util.frozen import frozen

AGAIN = "Upload the image again."


@frozen(kw_only=True)
class _ResumableJob:
    """A job that can be gone on with.

    Attributes:
        job: Its record.
        is_archived: Whether that is in the archive.
        task: What the runner is to do.
    """

    job: Job
    is_archived: bool
    task: UploadTask


def run(
    name: str,
    *,
    config: Config,
    cancel: Cancel,
    sinks: Sequence[job_log.Sink],
    is_verbose: bool,
    watch: Callable[[Job, job_log.JobLog], None],
) -> UploadOutcome:
    """Upload the image of a resumable job as that job, with what its journal knows. Blocks as an upload does.

    Args:
        name: The job.
        config: See Config.
        cancel: See Cancel.
        sinks: Where the log goes, besides the job's file.
        is_verbose: Whether it has what somebody who debugs wants to see.
        watch: Called once with the job and its log, before anything is done.

    Raises:
        LockedError: Somebody works on it.
        JobStateError: There is nothing to go on with.
        NoSuchJobError: There is no such job.
        MissingFileError: Its image or target data are gone.
        ClouduploaderError: It failed, or was stopped.
    """
    spool = Spool(config.spool.value)
    with contextlib.ExitStack() as stack:
        resumable, file = _take_over(spool, name, config)
        stack.enter_context(contextlib.closing(file))
        log = job_log.JobLog([file, *sinks], is_verbose=is_verbose, has_times=True)
        try:
            watch(resumable.job, log)
            job_log.tell_beginning(log, user=resumable.task.user, target=resumable.task.target)
            log.line(f"Going on with the job {name}.")
            result = uploads_run.run(resumable.task, config=config, log=log, cancel=cancel, events_path=None)
        except LockedError as exc:  # another one was quicker, and the job is now his
            log_failure(log, exc, exc)
            raise
        except StoppedError as exc:
            log_failure(log, exc, exc)
            _end(spool, resumable, resumable.job.ended(JobState.FAILED, Details.KILLED), log)
            raise
        except BaseException as exc:
            error = exc if isinstance(exc, ClouduploaderError) else ClouduploaderError(f"bug: {type(exc).__name__}")
            _end(spool, resumable, resumable.job.ended(JobState.FAILED, log_failure(log, exc, error)), log)
            raise
        job = resumable.job.ended(JobState.SUCCEEDED, job_log.one_line(result.id))
        return UploadOutcome(job, result, _end(spool, resumable, job, log))


def journal_of(spool: Spool, job: Job, state_dir: Path) -> journal.JournalContents | None:
    """The journal of a job: the one that its log names, or else one that names it."""
    with contextlib.suppress(ClouduploaderError):
        log = jobs_log.open_log(spool, job.name)
        if log:
            with log:
                key = jobs_log.read_back(log).journal_key
            if key and (found := journal.read(state_dir, key)):
                return found
    # Other spools have the same ids.
    wanted = {"job": job.name, "user": job.user, "target": job.target, "filename": job.filename}
    for found in journal.read_all(state_dir):
        began = found.state.began or {}
        if all(began.get(name) == value for name, value in wanted.items()):
            return found
    return None


def _take_over(spool: Spool, name: str, config: Config) -> tuple[_ResumableJob, BinaryIO]:
    """Make sure that nobody works on a job, and make it ours: by its log, and its record in the spool."""
    try:
        with spool.lock(name) as locked:
            job = locked.job
            if job.state is not JobState.UPLOADING:
                raise JobStateError(f"the job {name} is {job.state}: there is nothing to go on with")
            found = processes.job_processes(job.pid, inspect.process_match(spool, job))
            if found.workers or found.ownership in (processes.Ownership.WORKING, processes.Ownership.UNKNOWN):
                raise LockedError(f"somebody works on the job {name}", hint="See `clouduploader inspect`.")
            job = dataclasses.replace(job, pid=os.getpgrp())
            resumable = _ResumableJob(job=job, is_archived=False, task=_task(spool, job, config))
            log = spool.open_log(name)
            locked.replace(job)
            return resumable, log
    except NoSuchJobError:
        job = spool.read(name)[0]
    if job.state is JobState.SUCCEEDED:
        raise JobStateError(f"the job {name} has succeeded: there is nothing left to do")
    resumable = _ResumableJob(job=job, is_archived=True, task=_task(spool, job, config))
    return resumable, spool.append_archived_log(name)


def _task(spool: Spool, job: Job, config: Config) -> UploadTask:
    """What the job's uploader was to do.

    Raises:
        LockedError: Its journal is in use.
        JobStateError: Its last try left nothing to go on with.
        MissingFileError: Image or target data are gone.
    """
    reading = journal_of(spool, job, config.state.value)
    is_archived = not spool.job_path(job.name).exists()
    if reading and reading.is_live:
        raise LockedError(f"the upload of the job {job.name} lives", hint="Wait for its end, or kill it.")
    if is_archived and not (reading and reading.state.is_open):
        raise JobStateError(f"the job {job.name} left nothing to go on with", hint=AGAIN)
    began = (reading.state.began if reading else None) or {}
    paths = [spool.file_path(job.name)]
    if isinstance(began.get("image"), str):
        paths.append(Path(str(began["image"])))
    image_path = next((path for path in reversed(paths) if path.is_file()), None)
    if image_path is None:
        raise MissingFileError(f"the image of the job {job.name} is gone: {paths[-1]}", hint=AGAIN)
    kept = reading.targetdata() if reading else None
    return UploadTask(
        user=str(began.get("user", job.user or "")),
        target=str(began.get("target", job.target or "")),
        image_path=image_path,
        targetdata=target_data.read_file(spool.data_path(job.name), is_of_spool=True) if kept is None else kept,
        filename=str(began["filename"]) if began.get("filename") else job.filename,
        job=job,
        is_by_hand=bool(began.get("by_hand", spool.file_path(job.name).is_symlink())),
    )


def _end(spool: Spool, resumable: _ResumableJob, job: Job, log: job_log.JobLog) -> str | None:
    """Write how a job ended, into the archive if it is there; return why that can't be done."""
    if not resumable.is_archived:
        warning = archive(spool, job, log)
        spool.ping_worker()
        return warning
    try:
        spool.rewrite_archived(job)
    except ClouduploaderError as exc:
        log.line(f"Warning: {exc.message}")
        return exc.message
    return None
