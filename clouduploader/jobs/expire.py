"""Expire what grows old in a spool: jobs whose image does not come, and the archive."""

import math
import os
import time
from collections.abc import Callable, Set
from pathlib import Path

from clouduploader.errors import ClouduploaderError, LocalIOError, NoSuchJobError
from clouduploader.model.job import Details, Job, JobState
from clouduploader.store import journal, spool
from clouduploader.store.spool import paths
from clouduploader.util import privileges, wall_clock
from clouduploader.util.frozen import frozen

DEAD = "the server died while it received the image"
SECONDS_PER_DAY = 86_400


@frozen()
class ExpiredJob:
    """A job that was failed.

    Attributes:
        name: Its id.
        details: Why, as it now is in its record.
    """

    name: str
    details: str


class WaitTimes:
    """Measures how long things have stayed as they are, by a clock that is never set.

    The machine's clock may be put forward by hours while a client is between two requests: after a sleep, or by the
    first step of NTP. What a process has not seen before it begins to wait for, so a restart gives time and takes none.

    Args:
        clock: Seconds since any moment; does not go back, nor stand still while this process waits.
        wall_clock: Seconds since the epoch, by the machine's clock.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._began_at = wall_clock() - clock()
        self._known: dict[str, tuple[object, float]] = {}
        self._seen: dict[str, tuple[object, float]] = {}

    def now(self) -> float:
        """Return seconds since the epoch, by the machine's clock when this was made, or by now: the earlier one."""
        return min(self._began_at + self._clock(), self._wall_clock())

    def waited(self, name: str, signature: object) -> float:
        """Return for how many seconds something has been as it is.

        Args:
            name: What.
            signature: How it is; time begins anew when it is otherwise.
        """
        now = self._clock()
        known = self._known.get(name)
        if known is None or known[0] != signature:
            known = (signature, now)
        self._known[name] = self._seen[name] = known
        return now - known[1]

    def forget_others(self) -> None:
        """Forget what was not asked for since the last time."""
        self._known, self._seen = self._seen, {}


def expire(
    jobs: spool.Spool,
    *,
    seconds: float,
    waits: WaitTimes,
    own: Set[str] = frozenset(),
    leased: Set[str] = frozenset(),
) -> list[ExpiredJob]:
    """Fail the jobs whose image does not come, and remove what is left of it.

    A job that is received by a process that is gone fails at once.

    Args:
        jobs: The spool.
        seconds: How long a job may wait for its image, or for more of it.
        waits: Knows how long they have waited; the same object in each call.
        own: Jobs whose images this process receives; they are left alone. Another thread may change it, if a job
            is in it for all the time that it is in state receiving.
        leased: Jobs that hosts of a cluster have, also some that were killed; their leases are left alone.

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
            if details := _expired(jobs, name, seconds, waits, own):
                failed.append(ExpiredJob(name, details))
        except NoSuchJobError:
            continue  # archived meanwhile
        except ClouduploaderError as exc:
            trouble = exc
    _remove_parts(jobs, names.difference(job.name for job in failed) | leased, seconds, waits, own)
    waits.forget_others()
    if trouble:
        raise trouble
    return failed


def prune(jobs: spool.Spool, *, now: float, max_days: int | None, max_jobs: int | None, state_dir: Path) -> list[str]:
    """Remove archived jobs, with their logs; and the journals of uploads that are over, left nothing and are as old.

    Args:
        jobs: The spool.
        state_dir: Where the journals are.
        now: See `WaitTimes.now`: a clock that is put forward does not empty the archive.
        max_days: Those that were archived longer ago; None for none. Not what was archived before
            `wall_clock.EARLIEST`, when the clock was wrong: its age is not known.
        max_jobs: All but so many, the newest by their ids; None for none.

    Returns:
        The jobs that were removed.

    Raises:
        LocalIOError: The archive can't be read, or a file not be removed.
    """
    if max_days is None and max_jobs is None:
        return []
    # one that is just being archived is in both; by its record the worker knows what is still to be cleaned up, also
    # of one that was killed and that a host of a cluster has
    needed = {*jobs.running_names(), *jobs.pending_cleanups(), *jobs.leased_names()}
    names = sorted(jobs.archived_names(), key=int)
    changed = {name: _changed(jobs.done_path(name), now) for name in names}
    to_remove = set() if max_jobs is None else set(names[: max(0, len(names) - max_jobs)])
    limit = -math.inf if max_days is None else now - max_days * SECONDS_PER_DAY
    to_remove.update(name for name in names if wall_clock.EARLIEST.timestamp() <= changed[name] < limit)
    removed = sorted(to_remove - needed, key=int)
    for name in removed:
        # The record last: as long as it is there, the log is found.
        for path in (jobs.done_log_path(name), jobs.done_path(name)):
            _remove(jobs, path)
    kept = set(names).difference(removed)
    if max_jobs is not None and len(kept) >= max_jobs:  # what is older than all of them belongs to none that is here
        limit = max(limit, min((changed[name] for name in kept), default=now))
    journal.prune(state_dir, before=limit, kept_jobs=kept | needed)
    return removed


def _expired(jobs: spool.Spool, name: str, seconds: float, waits: WaitTimes, own: Set[str]) -> str | None:
    """Fail one job if it must; return why, or None."""
    if not _reason(jobs, _read(jobs, name), seconds, waits):
        return None
    with jobs.lock(name) as locked:
        details = _reason(jobs, locked.job, seconds, waits)
        if not details or name in own:  # in this order: what we began to receive before the lock is in it
            return None
        locked.archive(locked.job.ended(JobState.FAILED, details))
        return details


def _read(jobs: spool.Spool, name: str) -> Job:
    try:
        return jobs.read(name)[0]
    except ClouduploaderError as exc:
        raise NoSuchJobError(exc.message) from exc  # damaged: nothing can be said of it


def _reason(jobs: spool.Spool, job: Job, seconds: float, waits: WaitTimes) -> str | None:
    """Return why a job must fail; None if it need not."""
    if job.state is JobState.CREATED:
        is_late = waits.waited(job.name, _signature(jobs.job_path(job.name))) > seconds
        return f"no image came within {seconds:g} seconds" if is_late else None
    if job.state is not JobState.RECEIVING:
        return None
    if not _is_alive(job.pid):
        return DEAD
    return Details.CUT_OFF if waits.waited(job.name, _signature(jobs.received_path(job))) > seconds else None


def _is_alive(pid: int | None) -> bool:
    """Tell whether another process receives an image."""
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
    status = _status(path)
    return status.st_mtime if status else default


def _signature(path: Path) -> tuple[int, int] | None:
    """Return what changes whenever the file is written or replaced; None if it is not there."""
    status = _status(path)
    return (status.st_ino, status.st_mtime_ns) if status else None


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise LocalIOError(f"{path} can't be read: {exc.strerror}") from exc


def _remove_parts(jobs: spool.Spool, names: Set[str], seconds: float, waits: WaitTimes, own: Set[str]) -> None:
    """Remove what belongs to no job: its server died before it made the job, or after it archived it."""
    try:
        entries = sorted(jobs.directory.iterdir())
    except OSError as exc:
        raise LocalIOError(f"the spool {jobs.directory} can't be read: {exc.strerror}") from exc
    for entry in entries:
        name = paths.job_of_part(entry.name)
        if name and name not in names and name not in own and waits.waited(entry.name, _signature(entry)) > seconds:
            _remove(jobs, entry)


def _remove(jobs: spool.Spool, path: Path) -> None:
    try:
        with privileges.as_owner(jobs.directory):
            path.unlink(missing_ok=True)
    except OSError as exc:
        raise LocalIOError(f"{path} can't be removed: {exc.strerror}") from exc
