"""An upload that a person starts: a job of the spool like OBS's own, but without OBS."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from clouduploader.errors import CannotCreateError, ClouduploaderError, NoSuchJobError, StoppedError
from clouduploader.image import open as image_open
from clouduploader.model.job import Details, Job, JobState
from clouduploader.plugin import Plan, UploadResult
from clouduploader.store import job_log
from clouduploader.store.config import Config
from clouduploader.store.spool import Spool
from clouduploader.uploads import run as uploads_run
from clouduploader.uploads.prepare import check_targetdata
from clouduploader.uploads.result import log_failure
from clouduploader.uploads.task import UploadTask
from clouduploader.util.cancel import Cancel
from clouduploader.util.frozen import frozen


@frozen(kw_only=True)
class ManualUpload:
    """What a person wants.

    Attributes:
        user: Whose job it is.
        target: The platform's name.
        image_path: The image.
        targetdata: The bytes of the target data.
        events_path: Where the events go, or None.
    """

    user: str
    target: str
    image_path: Path
    targetdata: bytes = dataclasses.field(repr=False)
    events_path: Path | None


@frozen()
class UploadOutcome:
    """A finished upload.

    Attributes:
        job: As it is archived.
        result: What the cloud gave.
        warning: What went wrong on this machine once it had, or None.
    """

    job: Job
    result: UploadResult
    warning: str | None = None


def check(request: ManualUpload, *, config: Config, log: job_log.JobLog, cancel: Cancel) -> Plan:
    """Say what `run` would do, having checked all that can be checked without a change.

    Raises:
        ClouduploaderError: `run` would fail with this.
    """
    _check_events(request)
    return uploads_run.plan(_task(request, job=None), config=config, log=log, cancel=cancel)


def run(
    request: ManualUpload,
    *,
    config: Config,
    cancel: Cancel,
    sinks: Sequence[job_log.Sink],
    is_verbose: bool,
    watch: Callable[[Job, job_log.JobLog], None],
) -> UploadOutcome:
    """Enter a job into the spool, upload, and archive it.

    Args:
        request: See Order.
        config: See Config.
        cancel: See Cancel.
        sinks: Where the log goes, besides the job's file.
        is_verbose: Whether it has what somebody who debugs wants to see.
        watch: Called once with the job and its log, before anything is done; may listen to its events.

    Raises:
        StoppedError: It was stopped; all is cleaned up, the job is archived.
        ClouduploaderError: It failed; all is cleaned up, the job is archived. Where image or target data could not be
            read to begin with, there is no job.
    """
    image = image_open.describe(request.image_path, request.image_path.name, cancel)
    check_targetdata(_task(request, job=None), config=config)  # what is wrong before the job is no job's failure
    _check_events(request)
    spool = Spool(config.spool.value)
    job = Job(
        name=spool.allocate(),
        state=JobState.UPLOADING,
        created=int(time.time()),
        user=request.user,
        target=request.target,
        filename=request.image_path.name,
        size=image.size_bytes,
        pid=os.getpgrp(),
    )
    file = spool.register(job, targetdata=request.targetdata, image_path=request.image_path)
    with contextlib.closing(file):
        log = job_log.JobLog([file, *sinks], is_verbose=is_verbose, has_times=True)
        try:
            watch(job, log)
            job_log.tell_beginning(log, user=request.user, target=request.target)
            result = uploads_run.run(
                _task(request, job=job), config=config, log=log, cancel=cancel, events_path=request.events_path
            )
        except StoppedError as exc:
            log_failure(log, exc, exc)
            archive(spool, job.ended(JobState.FAILED, Details.KILLED), log)
            raise
        except BaseException as exc:
            error = exc if isinstance(exc, ClouduploaderError) else ClouduploaderError(f"bug: {type(exc).__name__}")
            archive(spool, job.ended(JobState.FAILED, log_failure(log, exc, error)), log)
            raise
        job = job.ended(JobState.SUCCEEDED, job_log.one_line(result.id))
        return UploadOutcome(job, result, archive(spool, job, log))


def _check_events(request: ManualUpload) -> None:
    if request.events_path and not request.events_path.parent.is_dir():
        raise CannotCreateError(f"the events file {request.events_path} can't be written: there is no such directory")


def archive(spool: Spool, job: Job, log: job_log.JobLog) -> str | None:
    """Archive a job that has ended, unless whoever killed it has done so.

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


def _task(request: ManualUpload, *, job: Job | None) -> UploadTask:
    return UploadTask(
        user=request.user,
        target=request.target,
        image_path=request.image_path,
        targetdata=request.targetdata,
        filename=None,
        job=job,
        is_by_hand=True,
    )
