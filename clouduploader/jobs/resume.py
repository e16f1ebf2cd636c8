"""Resume a job whose uploader died."""

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from clouduploader.errors import (
    ClouduploaderError,
    JobStateError,
    LockedError,
    MissingFileError,
    NoSuchJobError,
)
from clouduploader.jobs import log as jobs_log
from clouduploader.jobs.run_job import UploadOutcome, Watch, archive, run_job
from clouduploader.model.job import Job, JobState
from clouduploader.store import job_log, journal, target_data
from clouduploader.store.config import Config
from clouduploader.store.spool import Spool, leases
from clouduploader.store.spool.process_match import process_match
from clouduploader.uploads.task import UploadTask
from clouduploader.util import processes
from clouduploader.util.cancel import Cancel
from clouduploader.util.frozen import frozen

AGAIN = "Upload the image again."


@frozen(kw_only=True)
class _ResumableJob:
    """A job that can be resumed.

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
    watch: Watch,
) -> UploadOutcome:
    """Upload the image of a job whose uploader died as that job, with what its journal knows. Blocks as an upload does.

    Args:
        name: The job.
        config: The settings.
        cancel: Requested to stop the work.
        sinks: Where the log goes, besides the job's file.
        is_verbose: Whether the log has details.
        watch: See Watch.

    Raises:
        LockedError: A process works on it.
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
        return run_job(
            resumable.job,
            resumable.task,
            config=config,
            log=log,
            cancel=cancel,
            watch=watch,
            end=lambda ended: _end(spool, resumable, ended, log),
            is_resumed=True,
        )


def journal_of(spool: Spool, job: Job, state_dir: Path) -> journal.JournalContents | None:
    """Return the journal of a job: the one that its log names, or else one that names it."""
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
    """Take over a job on which no process works: lock its log, and enter this process group into its record."""
    try:
        with spool.lock(name) as locked:
            job = locked.job
            if job.state is not JobState.UPLOADING:
                raise JobStateError(f"the job {name} is {job.state}: there is nothing to go on with")
            if host := leases.with_host(spool, job).host:
                raise LockedError(f"the host {host} works on the job {name}", hint="See `clouduploader inspect`.")
            found = processes.job_processes(job.pid, process_match(spool, job))
            if found.workers or found.ownership in (processes.Ownership.WORKING, processes.Ownership.UNKNOWN):
                raise LockedError(f"a process works on the job {name}", hint="See `clouduploader inspect`.")
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
    """Return what the job's uploader was to do.

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
