"""Run a job again that has failed, or that waits for another try."""

import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path

from clouduploader.errors import JobStateError, LocalIOError, MissingFileError, NoSuchJobError
from clouduploader.jobs import resume, upload
from clouduploader.jobs.run_job import UploadOutcome, Watch
from clouduploader.model.job import Job, JobState
from clouduploader.plugin import visibility
from clouduploader.store import job_log
from clouduploader.store.config import Config
from clouduploader.store.spool import Spool
from clouduploader.util.cancel import Cancel

AGAIN = "Hand the image in again, with `clouduploader submit` or by publishing it in the build service."


def run(
    name: str,
    *,
    config: Config,
    cancel: Cancel,
    sinks: Sequence[job_log.Sink],
    is_verbose: bool,
    watch: Watch,
) -> Job | UploadOutcome:
    """Run a job again.

    One that waits for another try is scheduled, for the worker to start it now. One that was uploaded by hand and has
    failed is uploaded again here, as a new job, with the target data that its journal kept. The image of a job of the
    service was removed when that ended.

    Args:
        name: The job.
        config: The settings.
        cancel: Requested to stop the work.
        sinks: See `upload.run`, as for the next two.
        is_verbose: As there.
        watch: As there.

    Returns:
        The job, scheduled; or how the new one ended.

    Raises:
        NoSuchJobError: There is no such job.
        JobStateError: It has succeeded, or is still at work.
        MissingFileError: Image or target data are gone.
        ClouduploaderError: The upload failed, or was stopped; or the spool can't be changed.
    """
    spool = Spool(config.spool.value)
    try:
        return schedule(spool, name)
    except NoSuchJobError:
        job = spool.read(name)[0]
    if job.state is not JobState.FAILED:
        raise JobStateError(f"the job {name} has {job.state}: there is nothing left to do")
    request = _request(spool, job, config)
    return upload.run(request, config=config, cancel=cancel, sinks=sinks, is_verbose=is_verbose, watch=watch)


def schedule(spool: Spool, name: str) -> Job:
    """Schedule a job that waits for another try, for the worker to start it now.

    Raises:
        NoSuchJobError: There is no such job, or it is over.
        JobStateError: It does not wait.
        ClouduploaderError: It can't be changed.
    """
    with spool.lock(name) as locked:
        job = locked.job
        if job.state is JobState.UPLOADING:
            raise JobStateError(
                f"the job {name} is uploading", hint="If its uploader died, `clouduploader resume` goes on with it."
            )
        if job.state is not JobState.WAITING:
            raise JobStateError(f"the job {name} is {job.state}: it is about to run")
        job = dataclasses.replace(job, state=JobState.SCHEDULED, details=None)
        locked.replace(job)
    spool.ping_worker()
    return job


def _request(spool: Spool, job: Job, config: Config) -> upload.ManualUpload:
    """Return what was to be uploaded by hand, if all of it is still there, and the same.

    Raises:
        MissingFileError: It is not.
        JobStateError: The image is another one by now.
    """
    reading = resume.journal_of(spool, job, config.state.value)
    began = (reading.state.began if reading else None) or {}
    data = reading.targetdata() if reading else None
    if began.get("job") not in (None, job.name):
        raise JobStateError(f"the job {job.name} was run again as the job {began['job']}")
    if data is None or not began.get("by_hand"):
        raise MissingFileError(f"the image and the target data of the job {job.name} are gone", hint=AGAIN)
    image_path = Path(str(began.get("image")))
    try:
        status = image_path.stat()
    except FileNotFoundError as exc:
        raise MissingFileError(f"the image of the job {job.name} is gone: {image_path}", hint=AGAIN) from exc
    except OSError as exc:
        raise LocalIOError(f"the image {image_path} can't be read: {exc.strerror}") from exc
    changed = datetime.datetime.fromtimestamp(status.st_mtime, datetime.UTC)
    started = visibility.time_of(began)
    if status.st_size != job.size or (started and changed > started):
        raise JobStateError(
            f"the image {image_path} is not the one of the job {job.name} any more",
            hint="`clouduploader upload` takes it as it is now.",
        )
    return upload.ManualUpload(
        user=job.user or "", target=job.target or "", image_path=image_path, targetdata=data, events_path=None
    )
