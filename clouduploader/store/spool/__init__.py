"""OBS's spool of jobs: read, lock, replace, archive, register; as its daemons do it.

    next            the id of the next job
    N               the job, as XML; also what is locked
    N.data          its target data
    N.file          its image
    N.log           its log; the process that works on the job holds a lock on it
    N.dir/          where its uploader starts
    .N.dir/         the same, before our worker's uploader was started
    N.result        what its uploader gave
    .N.cleanup      there is something in the cloud that its uploader can't remove any more
    .N.lease        which host of a cluster has it; see `leases`
    done/N          the archived job
    done/N.log      its log

The rules were read from bs_clouduploadserver and bs_clouduploadworker of OBS 2.9.4: readers never
lock, and look at `N` before `done/N`; writers lock `N`, and replace it by rename; the archive is
complete before `N` goes away. Our temporary names end in `.new`, with a dot before it, so that
they collide with none of OBS's; as only the holder of a lock writes them, a crash leaves one that
the next writer overwrites.
"""

import contextlib
import dataclasses
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from clouduploader.errors import (
    CannotCreateError,
    JobFileError,
    JobStateError,
    LocalIOError,
    LockedError,
    MissingFileError,
    NoSuchJobError,
)
from clouduploader.model import job_xml
from clouduploader.model.job import Details, Job, JobState
from clouduploader.store.spool import records
from clouduploader.store.spool.incoming import IncomingImage
from clouduploader.store.spool.locked import LockedJob
from clouduploader.store.spool.paths import SpoolPaths
from clouduploader.util import files, privileges

LOCK_TIMEOUT_SECONDS = 10.0  # no process holds one for longer than it takes to remove an image file
LOCK_POLL_SECONDS = 0.05
LOG_TIMEOUT_SECONDS = 0.1  # one that only looks whether a log is locked holds it for some us; see `processes.is_locked`
LOG_POLL_SECONDS = 0.01


class Spool(SpoolPaths):
    """One spool directory. Holds no open files, and may be used by several threads.

    Args:
        directory: Absolute; `/srv/obs/cloudupload` on an OBS host.
        lock_timeout_seconds: How long to wait for a lock that another process holds.
    """

    def __init__(self, directory: Path, *, lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS) -> None:
        super().__init__(directory)
        self._lock_timeout_seconds = lock_timeout_seconds

    @privileges.works_as_owner
    def make(self, *, has_parents: bool = True) -> None:
        """Make the spool if it is not there: OBS's server makes it for the first job.

        Args:
            has_parents: Whether the directory that it lies in must be there; else it is made too.

        Raises:
            MissingFileError: There is none.
            CannotCreateError: It can't be made.
        """
        parent = self.directory.parent
        if has_parents and not parent.is_dir() and not self.directory.is_dir():
            raise MissingFileError(
                f"there is no spool {self.directory}, and no directory {parent}",
                hint="--spool or CLOUDUPLOADER_SPOOL name another one.",
            )
        missing = [path for path in (self.directory, *self.directory.parents) if not path.is_dir()]
        try:
            for path in reversed(missing):
                is_spool = path == self.directory
                files.make_directory(path, mode=files.GROUP_DIRECTORY_MODE if is_spool else files.PUBLIC_DIRECTORY_MODE)
        except OSError as exc:
            raise CannotCreateError(f"the spool {self.directory} can't be made: {exc.strerror}") from exc

    def running_names(self) -> list[str]:
        """Return the names of the jobs that are not archived yet, in no order.

        Raises:
            MissingFileError: There is no spool.
            LocalIOError: It can't be read.
        """
        try:
            return records.names(self.directory)
        except FileNotFoundError as exc:
            raise self.missing() from exc
        except OSError as exc:
            raise LocalIOError(f"the spool {self.directory} can't be read: {exc.strerror}") from exc

    def archived_names(self) -> list[str]:
        """Return the names of the archived jobs, in no order; a job that is just being archived is in both lists.

        Raises:
            LocalIOError: The archive can't be read.
        """
        try:
            return records.names(self.done_dir)
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise LocalIOError(f"the archive {self.done_dir} can't be read: {exc.strerror}") from exc

    @privileges.works_as_owner
    def read(self, name: str) -> tuple[Job, bool]:
        """Read a job without a lock, as OBS does.

        Args:
            name: May come from a command line, and be anything.

        Returns:
            The job, and whether it is archived.

        Raises:
            NoSuchJobError: There is none of that name.
            JobFileError: Its file is damaged.
            LocalIOError: Its file can't be read.
        """
        if not job_xml.NAME.fullmatch(name):
            raise NoSuchJobError(f"there is no job '{name}'", hint="Jobs are named by numbers.")
        damage = None
        try:
            return records.read_job(self.job_path(name), name), False
        except FileNotFoundError:
            pass
        except JobFileError as exc:
            damage = exc
        try:
            return self.read_archived(name), True
        except NoSuchJobError:
            if damage:
                raise damage from None
            raise

    @privileges.works_as_owner
    def read_archived(self, name: str) -> Job:
        """Read a job that is known not to be running; half the work of `read`, for long lists.

        Args:
            name: From `archived_names`.

        Raises:
            NoSuchJobError: It is not there any more.
            JobFileError: Its file is damaged.
            LocalIOError: Its file can't be read.
        """
        try:
            return records.read_job(self.done_path(name), name)
        except FileNotFoundError as exc:
            raise self.no_such_job(name) from exc

    def is_archived(self, name: str) -> bool:
        """Tell whether a job is archived, and nothing of it is left outside the archive; its file may be damaged."""
        return self.done_path(name).exists() and not self.job_path(name).exists()

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[LockedJob]:
        """Hold a running job's lock, so that no other process changes it.

        An archiving that was interrupted is brought to its end first; the job then is archived.

        Raises:
            NoSuchJobError: There is no running job of that name; it may be archived.
            JobFileError: Its file is damaged.
            LocalIOError: Its file can't be read.
            LockedError: Another process did not release it in time.
        """
        path = self.job_path(name)
        try:
            descriptor = self._lock(path) if job_xml.NAME.fullmatch(name) else None
        except OSError as exc:
            raise LocalIOError(f"{path} can't be locked: {exc.strerror}") from exc
        if descriptor is None:
            raise self.no_such_job(name)
        try:
            try:
                with privileges.as_owner(self.directory):
                    job = records.read_job(path, name)
            except FileNotFoundError as exc:
                raise self.no_such_job(name) from exc
            locked = LockedJob(self, job)
            if locked.is_archive_written():
                locked.clear()
                raise self.no_such_job(name)
            yield locked
        finally:
            os.close(descriptor)

    @privileges.works_as_owner
    def allocate(self) -> str:
        """Take the next job's id, which no other process will get.

        Raises:
            MissingFileError: There is no spool.
            JobFileError: The file `next` holds something else.
            CannotCreateError: It can't be written.
            LockedError: Another process did not release it in time.
        """
        path = self.directory / "next"
        try:
            descriptor = self._lock(path)
            while descriptor is None:
                with contextlib.suppress(FileExistsError):  # another writer just made it
                    files.create_file(path, job_xml.serialize_next(1), mode=files.GROUP_MODE)
                descriptor = self._lock(path)
            try:
                number = records.read_next(path)
                # as OBS's server does it when it starts
                for name in (*records.names(self.directory), *self.archived_names()):
                    number = max(number, int(name) + 1)
                files.replace_file(path, job_xml.serialize_next(number + 1), mode=files.GROUP_MODE)
            finally:
                os.close(descriptor)
        except OSError as exc:
            raise self.cannot_create(path, exc) from exc
        return str(number)

    @privileges.works_as_owner
    def register(self, job: Job, *, targetdata: bytes, image_path: Path) -> BinaryIO:
        """Enter a job that was not given to OBS, so that all that is done with jobs can be done with it.

        Args:
            job: With an id from `allocate`; uploading, with the process group that works on it.
            targetdata: Its target data; only their owner can read them.
            image_path: The image; `N.file` becomes a link to it.

        Returns:
            Its log as `open_log` gives it.

        Raises:
            MissingFileError: There is no spool.
            CannotCreateError: A file can't be made; none of this job is left.
        """
        path = self.file_path(job.name)
        with contextlib.ExitStack() as undo:
            try:
                path.symlink_to(image_path.absolute())
            except OSError as exc:
                raise self.cannot_create(path, exc) from exc
            undo.callback(files.discard, path)
            undo.callback(files.discard, self.log_path(job.name))
            log = self.open_log(job.name)
            undo.callback(log.close)
            self._enter(job, targetdata)
            undo.pop_all()
        return log

    @privileges.works_as_owner
    def create(self, job: Job, *, targetdata: bytes) -> Job:
        """Enter a job that waits for its image, as OBS's server does.

        Args:
            job: What is to be done; its name, state, details, time and pid are set here.
            targetdata: Its target data; only their owner can read them.

        Returns:
            The job as it now is in the spool.

        Raises:
            MissingFileError: There is no spool.
            JobFileError: The file `next` holds something else.
            CannotCreateError: A file can't be written; there is no job then, and its id is used up.
            LockedError: Another process did not release `next` in time.
        """
        job = dataclasses.replace(
            job,
            name=self.allocate(),
            state=JobState.CREATED,
            details=Details.WAITING_FOR_IMAGE,
            created=int(time.time()),
            pid=None,
        )
        try:
            # later there may be no inode for it, and the job could never end
            files.make_directory(self.done_dir, mode=files.GROUP_DIRECTORY_MODE)
        except OSError as exc:
            raise self.cannot_create(self.done_dir, exc) from exc
        self._enter(job, targetdata)
        return job

    def _enter(self, job: Job, targetdata: bytes) -> None:
        """Write the files of a new job: the target data, and last its own, before which there is no job.

        Raises:
            MissingFileError: There is no spool.
            CannotCreateError: One can't be written; neither is left.
        """
        with contextlib.ExitStack() as undo:
            for path, data, mode in (
                (self.data_path(job.name), targetdata, files.PRIVATE_MODE),
                (self.job_path(job.name), job_xml.serialize(job), files.GROUP_MODE),
            ):
                undo.callback(files.discard, path)
                try:
                    files.replace_file(path, data, mode=mode)
                except OSError as exc:
                    raise self.cannot_create(path, exc) from exc
            undo.pop_all()

    @privileges.works_as_owner
    def receive(self, name: str) -> IncomingImage:
        """Begin to receive the image of a job that was created for it.

        Returns:
            What takes the image; a context manager, and the job fails if it is left before `finish`.

        Raises:
            NoSuchJobError, JobFileError, LocalIOError, LockedError: See `lock`.
            JobStateError: Its image is on the way, or here, or not wanted any more.
            CannotCreateError: It can't be written; the job still waits.
        """
        with self.lock(name) as locked:
            if locked.job.state is not JobState.CREATED:
                raise JobStateError(f"the job {name} is {locked.job.state}, and waits for no image")
            job = dataclasses.replace(locked.job, state=JobState.RECEIVING, pid=os.getpid())
            path = self.received_path(job)
            try:
                file = files.open_new(path, mode=files.GROUP_MODE)
            except OSError as exc:
                raise self.cannot_create(path, exc) from exc
            with contextlib.ExitStack() as undo:
                undo.callback(files.discard, path)
                undo.callback(file.close)
                locked.replace(job)
                undo.pop_all()
        return IncomingImage(self, job, file, lock=self.lock, ping=self.ping_worker)

    @privileges.works_as_owner
    def adopt(self, name: str, image_path: Path, *, announce: Callable[[], None] | None = None) -> Job:
        """Give a job that was created its image, by a link to one that is in the spool already, and schedule it.

        Args:
            name: The job.
            image_path: The image, as large as the job says, and on the disk.
            announce: See `IncomingImage.finish`.

        Returns:
            The job, scheduled.

        Raises:
            NoSuchJobError, JobFileError, LocalIOError, LockedError: See `lock`.
            JobStateError: The job waits for no image.
            CannotCreateError: It can't be written; the job still waits.
        """
        with self.lock(name) as locked:
            if locked.job.state is not JobState.CREATED:
                raise JobStateError(f"the job {name} is {locked.job.state}, and waits for no image")
            path = self.file_path(name)
            try:
                path.unlink(missing_ok=True)  # of one who did not get further
                os.link(image_path, path, follow_symlinks=False)
                files.sync_directory(self.directory)
            except OSError as exc:
                raise self.cannot_create(path, exc) from exc
            scheduled = dataclasses.replace(locked.job, state=JobState.SCHEDULED, details=None)
            locked.replace(scheduled, announce=announce)
        self.ping_worker()
        return scheduled

    @privileges.works_as_owner
    def open_log(self, name: str) -> BinaryIO:
        """Open a job's log to append to it, and lock it, as OBS's worker does.

        The lock says that a process works on the job, for as long as any process has this file open.
        If one does already, a new log takes the old one's place.

        Returns:
            The file, unbuffered; the caller closes it.

        Raises:
            CannotCreateError: It can't be made.
        """
        path = self.log_path(name)
        # OBS's own name for it: unlike others it has a separator, and cannot collide
        new_path = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            deadline = time.monotonic() + LOG_TIMEOUT_SECONDS
            while not (log := files.open_locked(path)) and time.monotonic() < deadline:
                time.sleep(LOG_POLL_SECONDS)
            if log:
                return log
            new_path.unlink(missing_ok=True)
            log = files.open_locked(new_path)
            if not log:
                raise LockedError(f"{new_path} is locked by another process")
            new_path.replace(path)
        except OSError as exc:
            raise self.cannot_create(path, exc) from exc
        return log

    @privileges.works_as_owner
    def append_archived_log(self, name: str) -> BinaryIO:
        """Open the log of an archived job to append to it, unbuffered; the caller closes it.

        Raises:
            CannotCreateError: It can't be written.
        """
        path = self.done_log_path(name)
        try:
            descriptor = files.open_regular(path, os.O_WRONLY | os.O_APPEND, mode=files.GROUP_MODE)
        except OSError as exc:
            raise self.cannot_create(path, exc) from exc
        return os.fdopen(descriptor, "ab", buffering=0)

    @privileges.works_as_owner
    def rewrite_archived(self, job: Job) -> None:
        """Write another end of a job that is archived already.

        Raises:
            CannotCreateError: It can't be written; the old one is still there.
        """
        path = self.done_path(job.name)
        try:
            files.replace_file(path, job_xml.serialize(job), mode=files.GROUP_MODE)
        except OSError as exc:
            raise self.cannot_create(path, exc) from exc

    @privileges.works_as_owner
    def mark_cleanup_pending(self, name: str) -> None:
        """Write down that the worker has to clean up in the cloud after a job; as far as the disk takes it."""
        with contextlib.suppress(OSError):
            files.write_file(self.cleanup_path(name), b"", mode=files.GROUP_MODE)
            files.sync_directory(self.directory)

    @privileges.works_as_owner
    def clear_cleanup_pending(self, name: str) -> None:
        """Take note that no clean-up in the cloud is due after a job."""
        with contextlib.suppress(OSError):
            self.cleanup_path(name).unlink(missing_ok=True)

    def is_cleanup_pending(self, name: str) -> bool:
        """Tell whether a clean-up in the cloud is due after a job."""
        return self.cleanup_path(name).exists()

    @privileges.works_as_owner
    def ping_worker(self) -> None:
        """Wake OBS's worker, so that it sees what became of its jobs. Never blocks or fails.

        Its fifo lies beside the spool, both in OBS's `$bsdir`; any byte will do.
        """
        with contextlib.suppress(OSError):
            descriptor = os.open(self.ping_path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if stat.S_ISFIFO(
                    os.fstat(descriptor).st_mode
                ):  # else it is another user's file, and this process may be root's
                    os.write(descriptor, b"x")
            finally:
                os.close(descriptor)

    @privileges.works_as_owner
    def _lock(self, path: Path) -> int | None:
        """Lock the file that has this name, and not one that just lost it.

        Returns:
            A descriptor that holds the lock until it is closed; None if there is no such file.

        Raises:
            OSError: It can't be opened.
            LockedError: The time is over.
        """
        deadline = time.monotonic() + self._lock_timeout_seconds
        while True:
            try:
                descriptor = files.open_regular(path, os.O_RDONLY)
            except FileNotFoundError:
                return None
            is_kept = False
            try:
                if files.try_lock(descriptor):
                    is_kept = os.fstat(descriptor).st_nlink > 0
                    if is_kept:
                        return descriptor
                    continue
            finally:
                if not is_kept:
                    os.close(descriptor)
            if time.monotonic() >= deadline:
                raise LockedError(f"{path} is locked by another process")
            time.sleep(LOCK_POLL_SECONDS)
