"""Run the upload that OBS asks for: one job, unattended."""

import contextlib
import os
from pathlib import Path

from clouduploader.errors import CannotCreateError, ClouduploaderError, StoppedError
from clouduploader.jobs import progress
from clouduploader.model.job import Job, JobState
from clouduploader.plugin import UploadResult
from clouduploader.store import target_data
from clouduploader.store.config import Config
from clouduploader.store.job_log import JobLog
from clouduploader.store.spool import Spool
from clouduploader.store.spool.paths import job_of_image
from clouduploader.uploads import run as uploads_run
from clouduploader.uploads.result import write_result
from clouduploader.uploads.task import UploadTask
from clouduploader.util import files
from clouduploader.util.cancel import Cancel


def run(
    *,
    config: Config,
    log: JobLog,
    cancel: Cancel,
    user: str,
    target: str,
    upload_path: Path,
    targetdata_path: Path,
    filename: str | None,
    result_path: Path | None,
) -> UploadResult:
    """Upload one image as OBS asks for it, and write the result.

    Args:
        config: The settings; `events` is honoured.
        log: The job's log.
        cancel: Requested to stop the work.
        user: As OBS gives it.
        target: As OBS gives it.
        upload_path: The image, `N.file` in a spool.
        targetdata_path: `N.data`.
        filename: The sixth form's argument, or None.
        result_path: Where the result is written; None if the caller writes it.

    Raises:
        ClouduploaderError: It failed, or was stopped; no result is written then.
    """
    if result_path:
        _check_result_path(result_path)
    job = _job(upload_path, log)
    task = UploadTask(
        user=user,
        target=target,
        image_path=upload_path,
        targetdata=target_data.read_file(targetdata_path),
        filename=filename,
        job=job,
        is_by_hand=False,
    )
    with contextlib.ExitStack() as stack:
        note = _note_progress(stack, upload_path, job, log)
        result = uploads_run.run(task, config=config, log=log, cancel=cancel, events_path=_events_path(config, job))
        if note:
            note.complete()
    if result_path and not (cancel.is_requested and _is_archived(upload_path)):
        try:
            write_result(result_path, result.id, log=log, cancel=cancel)
        except (CannotCreateError, StoppedError) as exc:
            log.line(f"Warning: the image is delivered, but {exc.message}.")
    return result


def _check_result_path(path: Path) -> None:
    if not path.parent.is_dir():
        raise CannotCreateError(f"the result {path} can't be written: there is no directory for it")
    try:
        files.check_replaceable(path)
    except OSError as exc:
        raise CannotCreateError(f"the result {path} can't be written: {exc.strerror}") from exc


def _spool_job(upload_path: Path) -> tuple[Spool, str] | None:
    """Return the spool and the name of the job whose image this is; None if it lies in no spool."""
    found = job_of_image(upload_path)
    return (Spool(found[0]), found[1]) if found else None


def _is_archived(upload_path: Path) -> bool:
    """Tell whether a kill has archived the job meanwhile: then nothing would remove the result."""
    found = _spool_job(upload_path)
    return found is not None and not found[0].job_path(found[1]).exists()


def _note_progress(
    stack: contextlib.ExitStack, upload_path: Path, job: Job | None, log: JobLog
) -> progress.ProgressNote | None:
    """Keep the upload's progress in the job's record, if this process group works on that job."""
    found = _spool_job(upload_path)
    if found is None or job is None or job.state is not JobState.UPLOADING or job.pid != os.getpgrp():
        return None
    note = progress.ProgressNote(found[0], job)
    stack.enter_context(log.listening(note))
    return note


def _events_path(config: Config, job: Job | None) -> Path | None:
    """Return the setting `events` with the job's id in it, or the process's for an image that is no job's."""
    template = config.events.value
    return Path(template.replace("{job}", job.name if job else str(os.getpid()))) if template else None


def _job(upload_path: Path, log: JobLog) -> Job | None:
    """Return the record of the spool, if there is one that can be read; an upload does not need it."""
    found = _spool_job(upload_path)
    if found is None:
        return None
    try:
        return found[0].read(found[1])[0]
    except ClouduploaderError as exc:
        log.detail(f"The job's file can't be used: {exc.message}.")
        return None
