"""The jobs of the spool that wait to be started, and those that are being uploaded, by their records."""

import bisect
import heapq
import time
from collections.abc import Callable, Iterable, Iterator

from clouduploader.errors import JobFileError, LocalIOError, NoSuchJobError
from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState
from clouduploader.store import spool
from clouduploader.util.frozen import frozen
from clouduploader.worker.settings import WorkerSettings

STARTABLE = (JobState.SCHEDULED, JobState.WAITING)  # OBS's worker starts both


@frozen()
class QueuedJob:
    """One job.

    Attributes:
        job: As it was read.
        since: Since when it is in this state, by the monotonic clock; never later than it was read.
    """

    job: Job
    since: float

    def due(self, settings: WorkerSettings) -> float:
        """Return when it may be started, by the monotonic clock: after a transient failure there is a pause.

        The record has no field for it that OBS could read; it follows from when the record was written, and from the
        number of the try.
        """
        if self.job.state is not JobState.WAITING or (self.job.try_ or 1) < 2:
            return self.since
        return self.since + settings.pause_seconds(self.job.try_ or 1)


class JobQueue:
    """An index of the records of running jobs; re-reads only those that changed. Keeps about half a KiB a job.

    What is asked often takes no longer with ten thousand jobs than with ten.

    Args:
        jobs: The spool.
        complain: Called with the job's name and the reason when a record can't be read, at each look.
    """

    def __init__(self, jobs: spool.Spool, complain: Callable[[str, str], None]) -> None:
        self._jobs = jobs
        self._complain = complain
        self._startable: dict[str, QueuedJob] = {}
        self._order: dict[str | None, list[tuple[int, str]]] = {}  # of the same, by user: numbers and names
        self._waiting: dict[str, QueuedJob] = {}
        self._uploading: dict[str, QueuedJob] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        self._gone: set[str] = set()
        self._is_new = True

    def refresh(self, names: Iterable[str] | None) -> None:
        """Read records that changed.

        Args:
            names: Of files in the spool that changed, jobs or not; None for all.

        Raises:
            MissingFileError: There is no spool any more.
            LocalIOError: It can't be read.
        """
        if names is None:
            there = self._jobs.running_names()
            names = {*there, *self._seen}
        for name in names:
            if job_xml.NAME.fullmatch(name):
                self._look(name)
        self._is_new = False

    def startable(self, is_served: Callable[[str | None], bool]) -> Iterator[QueuedJob]:
        """Yield the jobs that are scheduled, or wait for another try, in the order of their ids.

        Args:
            is_served: Returns whether no more of a user's jobs are wanted; the rest of them is left out then.
        """
        heads = [(order[0], user) for user, order in self._order.items()]
        heapq.heapify(heads)
        while heads:
            place, user = heapq.heappop(heads)
            if is_served(user):
                continue
            yield self._startable[place[1]]
            order = self._order.get(user, [])  # that one may be gone by now
            following = bisect.bisect_right(order, place)
            if following < len(order):
                heapq.heappush(heads, (order[following], user))

    def by_user(self) -> dict[str | None, Iterator[QueuedJob]]:
        """Return the same jobs by their users, each user's in the order of their ids."""
        return {user: self._of_user(user) for user in self._order}

    def _of_user(self, user: str | None) -> Iterator[QueuedJob]:
        place = (-1, "")
        while (order := self._order.get(user, [])) and order[-1] > place:  # any may be gone by now
            place = order[bisect.bisect_right(order, place)]
            yield self._startable[place[1]]

    def waiting(self) -> Iterable[QueuedJob]:
        """Return those of them that wait for another try."""
        return self._waiting.values()

    def take_gone(self) -> set[str]:
        """Return the jobs that waited to be started, or were uploading, and are over now; each of them once."""
        gone, self._gone = self._gone, set()
        return gone

    def uploading(self) -> list[str]:
        """Return the names of jobs in state uploading, whether or not a process works on them."""
        return list(self._uploading)

    def _look(self, name: str) -> None:
        try:
            status = self._jobs.job_path(name).stat()
            identity = (status.st_ino, status.st_mtime_ns)
            if self._seen.get(name) == identity:
                return
            job, is_archived = self._jobs.read(name)
        except (FileNotFoundError, NoSuchJobError):
            if name in self._startable or name in self._uploading:  # that it waits again may not have been seen
                self._gone.add(name)
            self._forget(name)
            return
        except JobFileError as exc:
            self._forget(name)
            self._seen[name] = identity
            self._complain(name, exc.message)
            return
        except (LocalIOError, OSError) as exc:  # no descriptor is free, or worse: what was known stays
            self._complain(name, str(exc))
            return
        self._forget(name)
        self._seen[name] = identity
        # Only the time stamp tells how old a record of an earlier worker is. What changes from now on is as old as our
        # look at it, whatever the machine's clock, or that of a file server, says: no pause gets longer than is set.
        age = max(0.0, time.time() - status.st_mtime) if self._is_new else 0.0
        record = QueuedJob(job, time.monotonic() - age)
        if not is_archived and job.state in STARTABLE:
            self._startable[name] = record
            bisect.insort(self._order.setdefault(job.user, []), (int(name), name))
            if job.state is JobState.WAITING:
                self._waiting[name] = record
        elif not is_archived and job.state is JobState.UPLOADING:
            self._uploading[name] = record

    def _forget(self, name: str) -> None:
        self._seen.pop(name, None)
        self._uploading.pop(name, None)
        self._waiting.pop(name, None)
        record = self._startable.pop(name, None)
        if record:
            order = self._order[record.job.user]
            del order[bisect.bisect_left(order, (int(name), name))]
            if not order:
                del self._order[record.job.user]
