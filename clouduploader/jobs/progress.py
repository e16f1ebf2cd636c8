"""Keep the progress of an upload in its job's record, where OBS has a place for it."""

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Callable

from clouduploader.errors import ClouduploaderError
from clouduploader.model.job import Job, JobState
from clouduploader.plugin import BytesMoved, Event
from clouduploader.store import spool

INTERVAL_SECONDS = 5.0  # each note is synced to the disk; OBS's page of a job asks that often


class ProgressNote:
    """A listener of `job_log.JobLog` that writes the percents of the phase that is under way.

    Never raises, and never waits for a lock: a note that can't be written is left out. Only a record that names our
    process group is touched, so that what a kill or the worker wrote stays.

    Args:
        jobs: The spool.
        job: The job.
        clock: Seconds that only grow.
    """

    def __init__(self, jobs: spool.Spool, job: Job, clock: Callable[[], float] = time.monotonic) -> None:
        self._jobs = spool.Spool(jobs.directory, lock_timeout_seconds=0)
        self._name = job.name
        self._clock = clock
        self._next = clock() + INTERVAL_SECONDS
        self._written = job.progress
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Take note of an event; from any thread."""
        if isinstance(event, BytesMoved) and event.total_bytes and self._lock.acquire(blocking=False):
            try:
                if self._clock() >= self._next:
                    self._write(min(100, 100 * event.done_bytes // event.total_bytes))
                    self._next = self._clock() + INTERVAL_SECONDS
            finally:
                self._lock.release()

    def complete(self) -> None:
        """Take note that the upload has succeeded: what was noted becomes 100."""
        with self._lock:
            if self._written is not None:
                self._write(100)

    def _write(self, percent: int) -> None:
        if percent == self._written:
            return
        # archived meanwhile, locked, or on a full disk: the next note will do
        with contextlib.suppress(ClouduploaderError), self._jobs.lock(self._name) as locked:
            job = locked.job
            if job.state is JobState.UPLOADING and job.pid == os.getpgrp():
                locked.replace(dataclasses.replace(job, progress=percent))
                self._written = percent
