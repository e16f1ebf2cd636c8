"""Run an upload that a person starts: a job of the spool like OBS's own, but without OBS."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path

from clouduploader.errors import CannotCreateError
from clouduploader.image import open as image_open
from clouduploader.jobs.run_job import UploadOutcome, Watch, archive, run_job
from clouduploader.model.job import Job, JobState
from clouduploader.plugin import Plan
from clouduploader.store import job_log, journal
from clouduploader.store.config import Config
from clouduploader.store.spool import Spool
from clouduploader.uploads import registry
from clouduploader.uploads import run as uploads_run
from clouduploader.uploads.prepare import check_targetdata, targetdata_to_keep
from clouduploader.uploads.task import UploadTask
from clouduploader.util.cancel import Cancel
from clouduploader.util.frozen import frozen

RETRY_DAYS = 7  # ours: so long `retry` takes up an upload that failed; its target data may have secrets
SECONDS_PER_DAY = 86_400


@frozen(kw_only=True)
class ManualUpload:
    """What is to be uploaded by hand.

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
    watch: Watch,
) -> UploadOutcome:
    """Enter a job into the spool, upload, and archive it.

    Args:
        request: What is to be uploaded.
        config: The settings.
        cancel: Requested to stop the work.
        sinks: Where the log goes, besides the job's file.
        is_verbose: Whether the log has details.
        watch: See Watch.

    Raises:
        StoppedError: It was stopped; all is cleaned up, the job is archived.
        ClouduploaderError: It failed; all is cleaned up, the job is archived. Where image or target data could not be
            read to begin with, there is no job.
    """
    image = image_open.describe(request.image_path, request.image_path.name, cancel)
    check_targetdata(_task(request, job=None), config=config)  # what is wrong before the job is no job's failure
    _check_events(request)
    spool = Spool(config.spool.value)
    journal.forget(config.state.value, before=time.time() - RETRY_DAYS * SECONDS_PER_DAY)
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
    kept = targetdata_to_keep(request.targetdata, registry.load(request.target, config), config=config)
    file = spool.register(job, targetdata=kept, image_path=request.image_path)
    with contextlib.closing(file):
        log = job_log.JobLog([file, *sinks], is_verbose=is_verbose, has_times=True)
        return run_job(
            job,
            _task(request, job=job),
            config=config,
            log=log,
            cancel=cancel,
            watch=watch,
            end=lambda ended: archive(spool, ended, log),
            events_path=request.events_path,
        )


def _check_events(request: ManualUpload) -> None:
    if request.events_path and not request.events_path.parent.is_dir():
        raise CannotCreateError(f"the events file {request.events_path} can't be written: there is no such directory")


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
