"""The worker that starts uploads on this host, as processes beside it."""

import dataclasses
import functools
import resource
import time
from collections import Counter
from collections.abc import Iterator, Mapping

from clouduploader.errors import ClouduploaderError, NoSuchJobError
from clouduploader.model.job import JobState
from clouduploader.store.spool import leases
from clouduploader.store.spool.leases import LeaseState
from clouduploader.util import privileges
from clouduploader.worker import launcher, outcome, settings, tracked
from clouduploader.worker.base import SpoolWorker
from clouduploader.worker.events import WorkerEventKind
from clouduploader.worker.settings import WorkerSettings


class Worker(SpoolWorker):
    """See SpoolWorker; the arguments are the same.

    Raises:
        ConfigError: The settings are wrong.
        MissingProgramError: There is no uploader.
    """

    @functools.cached_property
    def _descriptor_limits(self) -> tuple[int, int]:
        """Those of uploads, as they are when the worker is made: the server raises its own after that."""
        return resource.getrlimit(resource.RLIMIT_NOFILE)

    def _uploaders(self) -> str:
        return str(self._launch_config.program)

    def _take(self, found: WorkerSettings, environment: Mapping[str, str]) -> None:
        if found.program != settings.PROGRAM:
            privileges.check_program(self._config.path, found.program)
        self._launch_config = launcher.LaunchConfig(
            jobs=self._jobs,
            settings=found,
            program=settings.find_program(found.program, self._config.environment),
            environment=environment,
            descriptor_limits=self._descriptor_limits,
        )

    def _begin(self) -> None:
        self._leased: dict[str, float] = {}  # until when, by the monotonic clock, hosts may work on jobs
        now = time.monotonic()
        for name in self._jobs.leased_names():
            try:
                lease, (job, is_archived) = leases.read(self._jobs, name), self._jobs.read(name)
                if lease and lease.state is LeaseState.CLAIMED and (is_archived or job.state is JobState.UPLOADING):
                    self._leased[name] = now + lease.seconds
                else:
                    if is_archived:
                        outcome.mark_leftovers(self._jobs, name, self._config.state.value)
                    leases.remove(self._jobs, name)
            except NoSuchJobError:
                leases.remove(self._jobs, name)
            except ClouduploaderError as exc:
                self._tell_trouble(name, exc.message)
        if self._leased:
            names = ", ".join(sorted(self._leased, key=int))
            self._tell(WorkerEventKind.ADOPTED, None, f"hosts of a cluster may still work on: {names}")

    def _is_elsewhere(self, name: str) -> bool:
        return name in self._leased

    def _times(self) -> Iterator[float]:
        yield from super()._times()
        yield from (due for name, due in self._leased.items() if name not in self._retry_at)

    def _act(self) -> None:
        now = time.monotonic()
        for name in [name for name, due in self._leased.items() if due <= now and name not in self._retry_at]:
            self._attempt(name, self._take_back)
        super()._act()

    def _take_back(self, name: str) -> None:
        """Schedule a job whose host has lost its lease, unless its upload was over; clean up after it if it was killed.

        Where that host's uploader was, the next one goes on by the journal.
        """
        try:
            with self._jobs.lock(name) as locked:
                if outcome.has_succeeded(self._jobs, locked.job, self._config.state.value):
                    outcome.record_interrupted(self._jobs, locked, self._config.state.value)
                else:
                    changes = {"state": JobState.SCHEDULED, "details": None, "progress": None}
                    locked.replace(dataclasses.replace(locked.job, **changes))  # type: ignore[arg-type]
        except NoSuchJobError:
            self._jobs.mark_cleanup_pending(name)
            self._clean_up(self._jobs.read_archived(name))
        leases.remove(self._jobs, name)
        del self._leased[name]
        self._tell(
            WorkerEventKind.LOST, name, "the host of a cluster that had it, which does not answer to this worker"
        )

    def _start_jobs(self) -> None:
        """Start what may be started: the oldest first, as many as the limits allow."""
        limits, now = self._settings, time.monotonic()
        if len(self._uploads) >= limits.max_jobs:
            return  # spares the look at the queue
        users = Counter(upload.job.user for upload in self._uploads.values())
        for record in self._queue.startable(lambda user: users[user] >= limits.max_jobs_per_user):
            if len(self._uploads) >= limits.max_jobs:
                break
            name = record.job.name
            if name not in self._uploads and name not in self._retry_at and record.due(limits) <= now:
                self._attempt(name, self._start)
                users[record.job.user] += name in self._uploads

    def _start(self, name: str) -> None:
        job = launcher.start(self._launch_config, name)
        if job is None:
            return
        if job.state is JobState.UPLOADING:
            self._uploads[name] = tracked.track_started(job)
            tried = f", try {job.try_}" if job.try_ else ""
            self._tell(WorkerEventKind.STARTED, name, f"user {job.user}, target {job.target}, process {job.pid}{tried}")
        else:
            self._tell(WorkerEventKind.FAILED, name, job.details or "")
