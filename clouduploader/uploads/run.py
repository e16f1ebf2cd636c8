"""Run one upload, from its task to the platform's result; or plan it."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from clouduploader.errors import (
    CannotCreateError,
    ClouduploaderError,
    ExitCode,
    LocalIOError,
    StoppedError,
    TransientError,
)
from clouduploader.plugin import Cost, Plan, UploadContext, UploadResult
from clouduploader.plugin.cleanup import undone_on_failure
from clouduploader.store import job_log, journal, workspace
from clouduploader.store.config import Config
from clouduploader.store.job_log import JobLog, one_line
from clouduploader.uploads import journaling, prepare
from clouduploader.uploads.result import reason
from clouduploader.uploads.task import UploadTask
from clouduploader.util.cancel import Cancel


def run(task: UploadTask, *, config: Config, log: JobLog, cancel: Cancel, events_path: Path | None) -> UploadResult:
    """Upload, and wait until the image can be used. Blocks for minutes or hours.

    Args:
        task: What is to be uploaded.
        config: The settings.
        log: The job's log.
        cancel: Requested to stop the upload.
        events_path: Where the events are written as JSON lines, or None.

    Raises:
        StoppedError: `cancel` was requested; all is cleaned up.
        LockedError: The same upload is under way already.
        ClouduploaderError: The upload failed; all is cleaned up.
    """
    began = time.monotonic()
    witness = journal.witness_of(config.environment)
    workspace.remove_stale()
    with (
        _masked(log),
        _recorded(task, events_path, log) as record,
    ):
        with (
            prepare.prepared(task, config=config, log=log, cancel=cancel) as upload,
            journaling.journalled(
                journaling.start_of(task, filename=upload.filename, work_dir=upload.work_dir),
                key=upload.key,
                targetdata=(
                    None if witness else prepare.targetdata_to_keep(task.targetdata, upload.platform, config=config)
                ),
                state_dir=journaling.state_dir_of(task, config),
                log=log,
                witness=witness,
            ) as (opened, end),
        ):
            ctx = UploadContext(upload.platform, upload.request(opened), log, cancel)
            if upload.platform.needs_whole_file:
                ctx.request.await_file()
            with undone_on_failure(upload.platform, ctx):
                result = upload.platform.upload(ctx)
            for shortfall in result.shortfalls:
                log.line(f"Failed: {shortfall.subject}: {shortfall.reason}")
            if result.is_already_there:
                job_log.tell_found(log, result.objects)
            end(result)
        record(result)
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    log.line(f"Upload took: {minutes // 60:02}:{minutes % 60:02}:{seconds:02}")
    return result


def plan(task: UploadTask, *, config: Config, log: JobLog, cancel: Cancel) -> Plan:
    """Check all that can be checked without a change, and say what `run` would do.

    Raises:
        StoppedError: `cancel` was requested.
        ClouduploaderError: `run` would fail with this error.
    """
    with (
        prepare.prepared(task, config=config, log=log, cancel=cancel, is_plan=True) as upload,
        workspace.private_directory() as empty_state_dir,
        journal.open_journal(empty_state_dir, upload.key) as opened,
        cancel.interruptible(),
    ):
        steps = list(upload.platform.plan(UploadContext(upload.platform, upload.request(opened), log, cancel)))
        return Plan(
            steps=tuple(step for step in steps if isinstance(step, str)),
            costs=tuple(step for step in steps if isinstance(step, Cost)),
        )


@contextlib.contextmanager
def _masked(log: JobLog) -> Iterator[None]:
    """Mask secrets in an error's message and hint: it is shown outside the log too, and may quote the cloud.

    Raises:
        TransientError: A local disk is full, or read-only after a fault: another attempt may work.
    """
    try:
        yield
    except ClouduploaderError as exc:
        exc.message = log.masked(exc.message)
        exc.hint = exc.hint and log.masked(exc.hint)
        cause = exc.__cause__
        is_local = isinstance(exc, CannotCreateError | LocalIOError)
        if is_local and isinstance(cause, OSError) and cause.errno in job_log.PASSING_ERRNOS:
            raise TransientError(exc.message, hint=exc.hint) from exc
        raise


@contextlib.contextmanager
def _recorded(task: UploadTask, path: Path | None, log: JobLog) -> Iterator[Callable[[UploadResult], None]]:
    """Write the events of what is done inside, its end included, whatever it is."""
    if path is None:
        yield lambda _result: None
        return
    from clouduploader.store import event_file

    file = event_file.EventFile(path)
    log.listen(file)
    file.start(job=task.job.name if task.job else None, user=one_line(task.user), target=one_line(task.target))
    try:
        yield lambda result: file.end(
            outcome="succeeded",
            result=result.id,
            reason=None,
            exit_code=ExitCode.OK,
            shortfalls=result.shortfalls,
        )
    except ClouduploaderError as exc:
        outcome = "stopped" if isinstance(exc, StoppedError) else "failed"
        file.end(outcome=outcome, result=None, reason=log.masked(reason(exc)), exit_code=int(exc.exit_code))
        raise
    except BaseException as exc:
        file.end(outcome="failed", result=None, reason=type(exc).__name__, exit_code=ExitCode.SOFTWARE)
        raise
