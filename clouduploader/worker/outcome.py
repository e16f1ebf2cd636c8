"""Write the record of a job whose upload has ended, from exit code and result.

The states and details are those of OBS's worker (bs_clouduploadworker 2.9.4), with three differences: exit code
75 asks for another try, a signal is named (OBS says "exit status 0"), and where no exit code is known, because
the process that waited for it is gone too, the journal of the upload decides, if there is one.
"""

import contextlib
import dataclasses
import datetime
import os
import signal
from pathlib import Path

from clouduploader.errors import ExitCode, NoSuchJobError
from clouduploader.model.job import Job, JobState
from clouduploader.store import job_log, journal, spool
from clouduploader.store.spool.locked import LockedJob
from clouduploader.util import files
from clouduploader.util.frozen import frozen

INTERRUPTED = "the upload was interrupted: its process is gone, and left no exit code"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # an uploader that gets one cleans up and ends
MAX_RESULT_BYTES = 65_536  # ours: a result is an id or a sentence, and is shown in lists


@frozen()
class RetryLimits:
    """How often, and when, an upload is tried again after a transient failure.

    Attributes:
        tries: How often an upload is tried in all.
        pause_seconds: How long until the next try.
    """

    tries: int
    pause_seconds: int


def record_exit(
    jobs: spool.Spool, name: str, *, pid: int | None, code: int, retries: RetryLimits, state_dir: Path
) -> Job | None:
    """Record how an upload ended, and mark a clean-up as pending if needed. May be called again after an error.

    Args:
        jobs: The spool.
        name: The job.
        pid: What its record names if no other process has ended the job; None for the upload of another host.
        code: The uploader's exit code; below 0 the signal that ended it.
        retries: For exit code 75.
        state_dir: Where the journals are.

    Returns:
        The job's record now; None if another process has ended the job.

    Raises:
        JobFileError: Its record is damaged.
        LockedError: Another process has the lock.
        CannotCreateError, LocalIOError: It can't be written; nothing is lost.
    """
    was_killed = code < 0 and -code not in STOP_SIGNALS
    if was_killed or (code != ExitCode.TEMPORARY and _is_something_left(jobs, name, state_dir)):
        jobs.mark_cleanup_pending(name)
    with contextlib.suppress(NoSuchJobError), jobs.lock(name) as locked:
        job = locked.job
        if job.state is not JobState.UPLOADING or job.pid != pid:
            return None
        result = _result(jobs, name)
        if code == ExitCode.TEMPORARY and (job.try_ or 1) < retries.tries:
            job = _waiting(job, result, retries)
            locked.replace(job)
            return job
        if code == ExitCode.TEMPORARY and _is_something_left(jobs, name, state_dir):
            jobs.mark_cleanup_pending(name)
        if code == 0:
            job = _ended(job, JobState.SUCCEEDED, result)
            locked.archive(job)
        else:
            # "0" is nothing to Perl, and so to OBS
            job = _ended(job, JobState.FAILED, result if result not in (None, "", "0") else _code_text(code))
            locked.archive(job)
        return job
    mark_leftovers(jobs, name, state_dir)  # killed: there is no next try that could make use of it
    return None


def mark_leftovers(jobs: spool.Spool, name: str, state_dir: Path) -> None:
    """Mark a clean-up as pending after a job that was killed, if its last try left something to the next.

    Args:
        jobs: The spool.
        name: The job; archived.
        state_dir: Where the journals are.
    """
    if _is_something_left(jobs, name, state_dir):
        jobs.mark_cleanup_pending(name)


def record_interrupted(jobs: spool.Spool, locked: LockedJob, state_dir: Path) -> Job:
    """End a job whose processes are gone without an exit code; unless it succeeded, a clean-up stays pending.

    Args:
        jobs: The spool.
        locked: The job; no process works on it.
        state_dir: Where the journals are.

    Returns:
        The job as it is archived.

    Raises:
        CannotCreateError, LocalIOError: As in `record_exit`.
    """
    job, result = locked.job, _result(jobs, locked.job.name)
    jobs.mark_cleanup_pending(job.name)
    end = _end_of_journal(jobs, job, state_dir)
    outcome = end.get("outcome")
    if outcome == journal.AttemptOutcome.SUCCEEDED:
        job = _ended(job, JobState.SUCCEEDED, job_log.one_line(str(end.get("result") or "")) or result)
    elif outcome == journal.AttemptOutcome.FAILED:
        job = _ended(job, JobState.FAILED, result or "the upload failed; its log tells why")
    else:
        job = _ended(job, JobState.FAILED, INTERRUPTED + (f"; it had written: {result}" if result else ""))
    locked.archive(job)
    if job.state is JobState.SUCCEEDED:
        jobs.clear_cleanup_pending(job.name)
    return job


def has_ended(jobs: spool.Spool, job: Job, state_dir: Path) -> bool:
    """Return whether the upload of a job is over by its journal, though its record does not say so."""
    return bool(_end_of_journal(jobs, job, state_dir))


def has_succeeded(jobs: spool.Spool, job: Job, state_dir: Path) -> bool:
    """Return whether the upload of a job has succeeded by its journal, though its record does not say so."""
    return _end_of_journal(jobs, job, state_dir).get("outcome") == journal.AttemptOutcome.SUCCEEDED


def fail(locked: LockedJob, details: str) -> Job:
    """Archive a job that can't be uploaded as failed.

    Raises:
        CannotCreateError, LocalIOError: As in `record_exit`.
    """
    job = _ended(locked.job, JobState.FAILED, details)
    locked.archive(job)
    return job


def _ended(job: Job, state: JobState, details: str | None) -> Job:
    return dataclasses.replace(job.ended(state, details), progress=None)


def _waiting(job: Job, result: str | None, retries: RetryLimits) -> Job:
    try_ = (job.try_ or 1) + 1
    pause = datetime.timedelta(seconds=retries.pause_seconds)
    due = (datetime.datetime.now(datetime.UTC) + pause).isoformat(timespec="seconds").replace("+00:00", "Z")
    reason = result or _code_text(ExitCode.TEMPORARY)
    return dataclasses.replace(
        job,
        state=JobState.WAITING,
        details=f"try {try_} of {retries.tries} at {due}: {reason}",
        try_=try_,
        progress=None,
        pid=None,
    )


def _code_text(code: int) -> str:
    number = -code if code < 0 else code - 128  # 128 and the signal: stopped, after the clean-up
    if code < 0 or number in STOP_SIGNALS:
        with contextlib.suppress(ValueError):
            return f"ended by {signal.Signals(number).name}"
        return f"ended by signal {number}"
    return f"exit status {code}"


def _result(jobs: spool.Spool, name: str) -> str | None:
    try:
        with files.open_read(jobs.result_path(name)) as file:
            return file.read(MAX_RESULT_BYTES).decode("utf-8", "replace")
    except OSError:
        return None


def _is_something_left(jobs: spool.Spool, name: str, state_dir: Path) -> bool:
    """Return whether the upload could not remove everything, by its journal; not if it kept something on purpose."""
    found = _journal_of(jobs, name, state_dir)
    return found is not None and found.state.has_leftovers and not found.state.kept


def _end_of_journal(jobs: spool.Spool, job: Job, state_dir: Path) -> journal.Entry:
    """Return how the job's last try ended by its journal; empty if that is not known."""
    found = _journal_of(jobs, job.name, state_dir)
    return (found.state.end or {}) if found else {}


def _journal_of(jobs: spool.Spool, name: str, state_dir: Path) -> journal.JournalContents | None:
    """Return the journal of a job's upload, if that is over and was the last of its key."""
    for path in (jobs.log_path(name), jobs.done_log_path(name)):
        try:
            descriptor = files.open_regular(path, os.O_RDONLY)
        except OSError:
            continue
        with os.fdopen(descriptor, encoding="utf-8", errors="replace") as log:
            key = job_log.read(log).journal_key
        found = journal.read(state_dir, key) if key else None
        is_over = found is not None and not found.is_live and (found.state.began or {}).get("job") == name
        return found if is_over else None
    return None
