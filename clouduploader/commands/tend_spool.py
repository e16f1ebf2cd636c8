"""See to what grows old in a spool: jobs whose image does not come, and the archive."""

import os
import re
import time
from collections.abc import Set
from pathlib import Path

from clouduploader import spool
from clouduploader.errors import ClouduploaderError, LocalIOError, NoSuchJobError
from clouduploader.job import Details, Job, JobState

DEAD = "the server died while it received the image"
SECONDS_PER_DAY = 86_400
_PARTS = re.compile(r"\.?([0-9]{1,18})\.(?:data|file[0-9]*)|\.([0-9]{1,18}|next)(?:\.data)?\.new(?:\.[0-9]+)?")
"""What there is of a job before its own file, or when only that got lost; and files that were never renamed."""


def expire(jobs: spool.Spool, *, seconds: float, own: Set[str] = frozenset()) -> list[str]:
    """Fail the jobs whose image does not come, and remove what is left of it.

    A job that is received by a process that is gone fails at once.

    Args:
        jobs: The spool.
        seconds: How long a job may wait for its image, or for more of it.
        own: Jobs whose images this process receives; they are left alone. Another thread may change it, if a job
            is in it for all the time that it is in state receiving.

    Returns:
        The jobs that failed.

    Raises:
        MissingFileError, LocalIOError: The spool can't be read.
        LockedError, CannotCreateError: A job can't be archived; all others were seen to nevertheless.
    """
    failed, trouble = [], None
    names = set(jobs.running_names())
    for name in sorted(names, key=int):
        try:
            if _is_expired(jobs, name, seconds, own):
                failed.append(name)
        except NoSuchJobError:
            continue  # archived meanwhile
        except ClouduploaderError as exc:
            trouble = exc
    _remove_parts(jobs, names.difference(failed), seconds, own)
    if trouble:
        raise trouble
    return failed


def prune(jobs: spool.Spool, *, max_days: int | None, max_jobs: int | None) -> list[str]:
    """Remove archived jobs, with their logs.

    Args:
        jobs: The spool.
        max_days: Those that were archived longer ago; None for none.
        max_jobs: All but so many, the newest by their ids; None for none.

    Returns:
        The jobs that were removed.

    Raises:
        LocalIOError: The archive can't be read, or a file not be removed.
    """
    if max_days is None and max_jobs is None:
        return []
    running = set(jobs.running_names())  # one that is just being archived is in both
    names = sorted(jobs.archived_names(), key=int)
    doomed = set() if max_jobs is None else set(names[: max(0, len(names) - max_jobs)])
    if max_days is not None:
        limit = time.time() - max_days * SECONDS_PER_DAY
        doomed.update(name for name in names if _changed(jobs.done_path(name), limit) < limit)
    removed = sorted(doomed - running, key=int)
    for name in removed:
        # The record last: as long as it is there, the log is found.
        for path in (jobs.done_log_path(name), jobs.done_path(name)):
            _remove(path)
    return removed


def _is_expired(jobs: spool.Spool, name: str, seconds: float, own: Set[str]) -> bool:
    """Fail one job if it must."""
    if not _reason(jobs, _read(jobs, name), seconds):
        return False
    with jobs.lock(name) as locked:
        details = _reason(jobs, locked.job, seconds)
        if not details or name in own:  # in this order: what we began to receive before the lock is in it
            return False
        locked.archive(locked.job.ended(JobState.FAILED, details))
        return True


def _read(jobs: spool.Spool, name: str) -> Job:
    try:
        return jobs.read(name)[0]
    except ClouduploaderError as exc:
        raise NoSuchJobError(exc.message) from exc  # damaged: nothing can be said of it


def _reason(jobs: spool.Spool, job: Job, seconds: float) -> str | None:
    """Why a job must fail; None if it need not."""
    now = time.time()
    if job.state is JobState.CREATED:
        is_late = now - _changed(jobs.job_path(job.name), now) > seconds
        return f"no image came within {seconds:g} seconds" if is_late else None
    if job.state is not JobState.RECEIVING:
        return None
    if not _is_alive(job.pid):
        return DEAD
    return Details.CUT_OFF if now - _changed(jobs.received_path(job), now) > seconds else None


def _is_alive(pid: int | None) -> bool:
    """Whether a process receives an image; not we, who were asked for other jobs' only."""
    if pid is None or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # the record may hold any number
        return False
    except PermissionError:
        pass
    return True


def _changed(path: Path, default: float) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return default
    except OSError as exc:
        raise LocalIOError(f"{path} can't be read: {exc.strerror}") from exc


def _remove_parts(jobs: spool.Spool, names: Set[str], seconds: float, own: Set[str]) -> None:
    """Remove what belongs to no job: its server died before it made the job, or after it archived it."""
    now = time.time()
    try:
        entries = sorted(jobs.directory.iterdir())
    except OSError as exc:
        raise LocalIOError(f"the spool {jobs.directory} can't be read: {exc.strerror}") from exc
    for entry in entries:
        found = _PARTS.fullmatch(entry.name)
        if not found:
            continue
        name = found[1] or found[2]
        if name not in names and name not in own and now - _changed(entry, now) > seconds:
            _remove(entry)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as exc:
        raise LocalIOError(f"{path} can't be removed: {exc.strerror}") from exc
