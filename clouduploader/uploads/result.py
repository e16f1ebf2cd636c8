"""How an upload ends for its job: the result file, and the reason of a failure."""

import time
import traceback
from pathlib import Path

from clouduploader.errors import CannotCreateError, ClouduploaderError
from clouduploader.store import job_log
from clouduploader.store.job_log import JobLog, one_line
from clouduploader.util import files, privileges
from clouduploader.util.cancel import Cancel

FULL_DISK_POLL_SECONDS = 2.0  # until the next look at a full disk; soon enough, and no load


def reason(error: ClouduploaderError) -> str:
    """Return an error as OBS is to show it: one line, with what to do about it."""
    return one_line(error.sentence())


def log_failure(log: JobLog, exc: BaseException, error: ClouduploaderError) -> str:
    """Write to the log why a job failed, with the traceback if it is a bug of ours.

    Args:
        log: The job's log.
        exc: What was raised.
        error: The same as an error of ours.

    Returns:
        The reason, masked, for the result.
    """
    if type(error) is ClouduploaderError:
        for line in "".join(traceback.format_exception(exc)).splitlines():
            log.line(line)
    text = log.masked(reason(error))
    log.line(f"Error: {text}")
    return text


def write_result(path: Path, text: str, *, log: JobLog, cancel: Cancel) -> None:
    """Write a job's result: whole or not at all, one line without an end, as OBS puts it into XML.

    Blocks while the disk is full or read-only: the image is in the cloud, and OBS would fail the job without a result.

    Args:
        path: The result file.
        text: Any text.
        log: The job's log.
        cancel: Looked at while the disk is full.

    Raises:
        StoppedError: `cancel` was requested while the result could not be written.
        CannotCreateError: The result can't be written.
    """
    is_waiting = False
    while (fault := _try_to_write(path, one_line(text).encode())) is not None:
        if fault.errno not in job_log.PASSING_ERRNOS:
            raise CannotCreateError(f"the result {path} can't be written: {fault.strerror}") from fault
        if not is_waiting:
            is_waiting = True
            log.line(f"Waiting until the result can be written: {fault.strerror}")
        with cancel.interruptible():
            time.sleep(FULL_DISK_POLL_SECONDS)
    if is_waiting:
        log.line("The result is written.")


def _try_to_write(path: Path, data: bytes) -> OSError | None:
    """Replace a file; return why that is not possible, or None."""
    try:
        with privileges.as_owner(path.parent):
            files.replace_file(path, data, mode=files.GROUP_MODE)
    except OSError as exc:
        return exc
    return None
