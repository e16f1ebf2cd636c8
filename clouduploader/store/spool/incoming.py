"""Receive an image into the spool."""

import contextlib
import dataclasses
import os
from collections.abc import Callable
from types import TracebackType
from typing import BinaryIO, Self

from clouduploader.errors import (
    ClouduploaderError,
    ImageError,
    JobFileError,
    JobStateError,
    LocalIOError,
    NoSuchJobError,
)
from clouduploader.model.job import Details, Job, JobState
from clouduploader.store.spool.locked import LockedJob
from clouduploader.store.spool.paths import SpoolPaths
from clouduploader.util import files, privileges


class IncomingImage:
    """An image on its way in; made by `Spool.receive`. One thread at a time.

    Args:
        paths: The spool.
        job: Its record while the image comes.
        file: Where it is written, unbuffered.
        lock: `Spool.lock`.
        ping: Wakes the worker.

    Attributes:
        job: As it is while the image comes.
        directory: The spool.
        received_bytes: How much of it is here.
    """

    def __init__(
        self,
        paths: SpoolPaths,
        job: Job,
        file: BinaryIO,
        *,
        lock: Callable[[str], contextlib.AbstractContextManager[LockedJob]],
        ping: Callable[[], None],
    ) -> None:
        self.job = job
        self.directory = paths.directory
        self._file = file
        self.received_bytes = 0
        self._paths = paths
        self._lock = lock
        self._ping = ping
        self._is_settled = False

    def __enter__(self) -> Self:
        """Do nothing: it has begun."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """See `abandon`."""
        self.abandon(error)

    def abandon(self, error: BaseException | None) -> None:
        """Fail the job unless it is settled already.

        Args:
            error: Why; its words are the details if it is one of ours.

        Raises:
            LocalIOError, LockedError, CannotCreateError: See `fail`.
        """
        if not self._is_settled:
            self.fail(error.message if isinstance(error, ClouduploaderError) else Details.CUT_OFF)

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes.

        Raises:
            LocalIOError: They can't be written.
        """
        try:
            left = memoryview(data)
            while left:
                written = self._file.write(left) or 0
                self.received_bytes += written
                left = left[written:]
        except OSError as exc:
            raise LocalIOError(f"the image can't be written: {exc.strerror}") from exc

    @privileges.works_as_owner
    def finish(self, *, announce: Callable[[], None] | None = None) -> Job:
        """Write the image to the disk, schedule the job, and wake OBS's worker.

        Args:
            announce: Called on the line before the job is scheduled for all to see, when that can hardly fail any more:
                what the caller logs then comes before what the worker logs of the job.

        Returns:
            The job, scheduled.

        Raises:
            ImageError: It is not as large as the job says; the job has failed.
            NoSuchJobError, JobStateError: The job was killed meanwhile; the image is removed.
            JobFileError, LocalIOError, LockedError, CannotCreateError: The job could not be scheduled, and fails.
        """
        job, paths = self.job, self._paths
        if self.received_bytes != job.size:
            self.fail(f"size mismatch: {self.received_bytes} != {job.size or 0}")
            raise ImageError(f"size mismatch: {self.received_bytes} != {job.size or 0}")
        with contextlib.ExitStack() as undo:
            undo.enter_context(self)
            try:
                os.fsync(self._file.fileno())
            except OSError as exc:
                raise LocalIOError(f"the image can't be written: {exc.strerror}") from exc
            with self._lock(job.name) as locked:
                if locked.job != job:
                    raise JobStateError(f"the job {job.name} is {locked.job.state}, and waits for no image")
                scheduled = dataclasses.replace(job, state=JobState.SCHEDULED, details=None, pid=None)
                path = paths.file_path(job.name)
                try:
                    paths.received_path(job).replace(path)
                except OSError as exc:
                    raise paths.cannot_create(path, exc) from exc
                locked.replace(scheduled, announce=announce)
            self._settle()
            undo.pop_all()
        self._ping()
        return scheduled

    @privileges.works_as_owner
    def fail(self, details: str) -> None:
        """Fail the job, unless it was killed meanwhile, and remove what is here of its image.

        Args:
            details: Why; OBS's words if it has some.

        Raises:
            LocalIOError, LockedError, CannotCreateError: The job can't be archived; it stays as it is.
        """
        self._settle()
        # First what is here of it: the disk may be full, and the archive needs room.
        files.discard(self._paths.received_path(self.job))
        try:
            with self._lock(self.job.name) as locked:
                if locked.job == self.job:
                    locked.archive(self.job.ended(JobState.FAILED, details))
        except (NoSuchJobError, JobFileError):
            pass  # killed, or damaged

    def _settle(self) -> None:
        self._is_settled = True
        self._file.close()
