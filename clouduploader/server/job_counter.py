"""Count jobs by state; re-read only records that changed."""

import collections
from collections.abc import Mapping
from pathlib import Path

from clouduploader.errors import ClouduploaderError
from clouduploader.model.job import JobState
from clouduploader.store import spool
from clouduploader.util.frozen import frozen

QUEUED = (JobState.SCHEDULED, JobState.WAITING)


@frozen()
class JobCount:
    """How many jobs a spool holds.

    Attributes:
        states: How many jobs there are in each state.
        damaged: How many records can't be read.
        queued_since: Since when the job has waited that has done so longest, to be started or tried again; in seconds
            since the epoch. None if none waits.
    """

    states: Mapping[JobState, int]
    damaged: int
    queued_since: float | None


class JobCounter:
    """Counts the jobs of a spool; for one thread at a time.

    Args:
        jobs: The spool.
    """

    def __init__(self, jobs: spool.Spool) -> None:
        self._jobs = jobs
        self._known: dict[Path, tuple[tuple[int, int], JobState | None]] = {}

    def count(self) -> JobCount:
        """Count all jobs, running and archived.

        Raises:
            LocalIOError: The spool can't be read.
            MissingFileError: There is none.
        """
        running = set(self._jobs.running_names())  # first: a job that is archived meanwhile is then in both
        archived = [name for name in self._jobs.archived_names() if name not in running]
        found: dict[Path, tuple[tuple[int, int], JobState | None]] = {}
        states: collections.Counter[JobState] = collections.Counter()
        damaged, queued_since = 0, None
        for path in (*map(self._jobs.job_path, running), *map(self._jobs.done_path, archived)):
            try:
                status = path.stat()
            except OSError:
                continue  # gone since we looked
            key = (status.st_ino, status.st_mtime_ns)
            known = self._known.get(path)
            state = known[1] if known and known[0] == key else self._state(path)
            found[path] = (key, state)
            if state is None:
                damaged += 1
                continue
            states[state] += 1
            if state in QUEUED:
                queued_since = min(status.st_mtime, queued_since or status.st_mtime)
        self._known = found
        return JobCount({state: states[state] for state in JobState}, damaged, queued_since)

    def _state(self, path: Path) -> JobState | None:
        """Return the state of a job; None if its record can't be read."""
        try:
            if path.parent == self._jobs.done_dir:
                return self._jobs.read_archived(path.name).state
            return self._jobs.read(path.name)[0].state
        except ClouduploaderError:
            return None
