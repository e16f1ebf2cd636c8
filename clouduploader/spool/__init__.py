"""OBS's spool of jobs: read, lock, replace, archive, register; as its daemons do it.

    next            the id of the next job
    N               the job, as XML; also what is locked
    N.data          its target data
    N.file          its image
    N.log           its log; whoever works on the job holds a lock on it
    N.dir/          where its uploader starts
    .N.dir/         the same, before our worker's uploader was started
    N.result        what its uploader gave
    .N.cleanup      there is something in the cloud that its uploader can't remove any more
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
import errno
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from clouduploader import jobxml
from clouduploader.errors import (
    CannotCreateError,
    ClouduploaderError,
    ImageError,
    JobFileError,
    JobStateError,
    LocalIOError,
    LockedError,
    MissingFileError,
    NoSuchJobError,
)
from clouduploader.job import Job, JobState
from clouduploader.spool import files

MAX_JOB_BYTES = 10_000_000  # what OBS takes from the network for one (bs_clouduploadserver)
READ_BYTES = 65_536  # a job has some hundred
LOCK_TIMEOUT_SECONDS = 10.0  # nobody holds one for longer than it takes to remove an image file
LOCK_POLL_SECONDS = 0.05
WAITING_FOR_IMAGE = "waiting to receive image"  # OBS's details of a job that was created
CUT_OFF = "unexpected EOF"  # OBS's details of one whose image stopped coming


class Spool:
    """One spool directory. Holds no open files, and may be used by several threads.

    Args:
        directory: Absolute; `/srv/obs/cloudupload` on an OBS host.
        lock_timeout_seconds: How long to wait for a lock that somebody else holds.
    """

    def __init__(self, directory: Path, *, lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS) -> None:
        self.directory = directory
        self._lock_timeout_seconds = lock_timeout_seconds
        self.done_dir = directory / "done"

    def job_path(self, name: str) -> Path:
        """Where a running job's XML is."""
        return self.directory / name

    def data_path(self, name: str) -> Path:
        """Where a running job's target data are."""
        return self.directory / f"{name}.data"

    def file_path(self, name: str) -> Path:
        """Where a running job's image is."""
        return self.directory / f"{name}.file"

    def log_path(self, name: str) -> Path:
        """Where a running job's log is."""
        return self.directory / f"{name}.log"

    def result_path(self, name: str) -> Path:
        """Where a running job's uploader writes its result."""
        return self.directory / f"{name}.result"

    def work_dir(self, name: str) -> Path:
        """Where a running job's uploader starts."""
        return self.directory / f"{name}.dir"

    def prepared_dir(self, name: str) -> Path:
        """What becomes `work_dir` on the line before the uploader is executed; as long as it is there, none was."""
        return self.directory / f".{name}.dir"

    def done_path(self, name: str) -> Path:
        """Where an archived job's XML is."""
        return self.done_dir / name

    def done_log_path(self, name: str) -> Path:
        """Where an archived job's log is."""
        return self.done_dir / f"{name}.log"

    @property
    def ping_path(self) -> Path:
        """The fifo by which OBS's server wakes the worker."""
        return self.directory.parent / "events" / "clouduploadworker" / ".ping"

    def received_path(self, job: Job) -> Path:
        """Where OBS's server puts the image of a job while it receives it."""
        return self.directory / f".{job.name}.file{job.pid}"

    def free_bytes(self) -> int:
        """How much is free where the jobs are, for those who are not root.

        Raises:
            LocalIOError: It can't be seen.
        """
        try:
            status = os.statvfs(self.directory)
        except OSError as exc:
            raise LocalIOError(f"the spool {self.directory} can't be looked at: {exc.strerror}") from exc
        return status.f_bavail * status.f_frsize

    def running_names(self) -> list[str]:
        """The jobs that are not archived yet, in no order.

        Raises:
            MissingFileError: There is no spool.
            LocalIOError: It can't be read.
        """
        try:
            return _numeric_names(self.directory)
        except FileNotFoundError as exc:
            raise self._missing() from exc
        except OSError as exc:
            raise LocalIOError(f"the spool {self.directory} can't be read: {exc.strerror}") from exc

    def archived_names(self) -> list[str]:
        """The archived jobs, in no order; a job that is just being archived is in both lists.

        Raises:
            LocalIOError: The archive can't be read.
        """
        try:
            return _numeric_names(self.done_dir)
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise LocalIOError(f"the archive {self.done_dir} can't be read: {exc.strerror}") from exc

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
        if not jobxml.NAME.fullmatch(name):
            raise NoSuchJobError(f"there is no job '{name}'", hint="Jobs are named by numbers.")
        damage = None
        try:
            return _read_job(self.job_path(name), name), False
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
            return _read_job(self.done_path(name), name)
        except FileNotFoundError as exc:
            raise self._no_such_job(name) from exc

    def is_archived(self, name: str) -> bool:
        """Whether a job is archived, and nothing of it is left outside the archive; its file may be damaged."""
        return self.done_path(name).exists() and not self.job_path(name).exists()

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator["LockedJob"]:
        """Hold a running job's lock, so that nobody else changes it.

        An archiving that was interrupted is brought to its end first; the job then is archived.

        Raises:
            NoSuchJobError: There is no running job of that name; it may be archived.
            JobFileError: Its file is damaged.
            LocalIOError: Its file can't be read.
            LockedError: Somebody else did not release it in time.
        """
        path = self.job_path(name)
        try:
            descriptor = self._lock(path) if jobxml.NAME.fullmatch(name) else None
        except OSError as exc:
            raise LocalIOError(f"{path} can't be locked: {exc.strerror}") from exc
        if descriptor is None:
            raise self._no_such_job(name)
        try:
            try:
                job = _read_job(path, name)
            except FileNotFoundError as exc:
                raise self._no_such_job(name) from exc
            locked = LockedJob(self, job)
            if locked.is_archive_written():
                locked.clear()
                raise self._no_such_job(name)
            yield locked
        finally:
            os.close(descriptor)

    def allocate(self) -> str:
        """Take the next job's id, which nobody else will get.

        Raises:
            MissingFileError: There is no spool.
            JobFileError: The file `next` holds something else.
            CannotCreateError: It can't be written.
            LockedError: Somebody else did not release it in time.
        """
        path = self.directory / "next"
        try:
            descriptor = self._lock(path)
            while descriptor is None:
                self._create_next(path)
                descriptor = self._lock(path)
            try:
                number = _read_next(path)
                # as OBS's server does it when it starts
                for name in (*_numeric_names(self.directory), *self.archived_names()):
                    number = max(number, int(name) + 1)
                self._write(path, jobxml.serialize_next(number + 1))
            finally:
                os.close(descriptor)
        except OSError as exc:
            raise self._cannot_create(path, exc) from exc
        return str(number)

    def register(self, job: Job, *, targetdata: bytes, image_path: Path) -> BinaryIO:
        """Enter a job that was not given to OBS, so that all that is done with jobs can be done with it.

        The job's own file comes last: before it, there is no job.

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
        name = job.name
        path = self.data_path(name)
        with contextlib.ExitStack() as undo:
            try:
                undo.callback(path.unlink, missing_ok=True)
                self._write(path, targetdata, mode=files.PRIVATE_MODE)
                path = self.file_path(name)
                path.symlink_to(image_path.absolute())
                undo.callback(path.unlink, missing_ok=True)
                undo.callback(self.log_path(name).unlink, missing_ok=True)
                log = self.open_log(name)
                undo.callback(log.close)
                path = self.job_path(name)
                undo.callback(path.unlink, missing_ok=True)
                self._write(path, jobxml.serialize(job))
            except OSError as exc:
                raise self._cannot_create(path, exc) from exc
            undo.pop_all()
        return log

    def create(self, job: Job, *, targetdata: bytes) -> Job:
        """Enter a job that waits for its image, as OBS's server does.

        The target data come first: before the job's own file there is no job.

        Args:
            job: What is to be done; its name, state, details, time and pid are set here.
            targetdata: Its target data; only their owner can read them.

        Returns:
            The job as it now is in the spool.

        Raises:
            MissingFileError: There is no spool.
            JobFileError: The file `next` holds something else.
            CannotCreateError: A file can't be written; there is no job then, and its id is used up.
            LockedError: Somebody else did not release `next` in time.
        """
        job = dataclasses.replace(
            job,
            name=self.allocate(),
            state=JobState.CREATED,
            details=WAITING_FOR_IMAGE,
            created=int(time.time()),
            pid=None,
        )
        path = self.data_path(job.name)
        with contextlib.ExitStack() as undo:
            try:
                undo.callback(path.unlink, missing_ok=True)
                self._write(path, targetdata, mode=files.PRIVATE_MODE)
                path = self.job_path(job.name)
                self._write(path, jobxml.serialize(job))
            except OSError as exc:
                raise self._cannot_create(path, exc) from exc
            undo.pop_all()
        return job

    def receive(self, name: str) -> "Reception":
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
                file = files.open_new(path, mode=files.PUBLIC_MODE, owner=self._owner())
            except OSError as exc:
                raise self._cannot_create(path, exc) from exc
            with contextlib.ExitStack() as undo:
                undo.callback(path.unlink)
                undo.callback(file.close)
                locked.replace(job)
                undo.pop_all()
        return Reception(self, job, file)

    def open_log(self, name: str) -> BinaryIO:
        """Open a job's log to append to it, and lock it, as OBS's worker does.

        The lock says that somebody works on the job, for as long as anybody has this file open.
        If somebody does already, a new log takes the old one's place.

        Returns:
            The file, unbuffered; the caller closes it.

        Raises:
            CannotCreateError: It can't be made.
        """
        path = self.log_path(name)
        # OBS's own name for it: unlike others it has a separator, and cannot collide
        new_path = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            log = files.open_locked(path)
            if log:
                return log
            new_path.unlink(missing_ok=True)
            log = files.open_locked(new_path)
            if not log:
                raise LockedError(f"{new_path} is locked by another process")
            new_path.replace(path)
        except OSError as exc:
            raise self._cannot_create(path, exc) from exc
        return log

    def rewrite_archived(self, job: Job) -> None:
        """Write another end of a job that is archived already.

        Raises:
            CannotCreateError: It can't be written; the old one is still there.
        """
        path = self.done_path(job.name)
        try:
            self._write(path, jobxml.serialize(job))
        except OSError as exc:
            raise self._cannot_create(path, exc) from exc

    def owe_cleanup(self, name: str) -> None:
        """Write down that our worker has to clean up in the cloud after a job; as far as the disk takes it."""
        with contextlib.suppress(OSError):
            files.write_file(self._cleanup_path(name), b"", mode=files.PUBLIC_MODE, owner=self._owner())
            files.sync_directory(self.directory)

    def forget_cleanup(self, name: str) -> None:
        """It has, or need not."""
        with contextlib.suppress(OSError):
            self._cleanup_path(name).unlink(missing_ok=True)

    def owed_cleanups(self) -> list[str]:
        """The jobs, archived or not, after which it has to."""
        names = (path.name.removeprefix(".").removesuffix(".cleanup") for path in self.directory.glob(".*.cleanup"))
        return [name for name in names if jobxml.NAME.fullmatch(name)]

    def is_cleanup_owed(self, name: str) -> bool:
        """Whether it has to after this job."""
        return self._cleanup_path(name).exists()

    def _cleanup_path(self, name: str) -> Path:
        return self.directory / f".{name}.cleanup"

    def ping_worker(self) -> None:
        """Wake OBS's worker, so that it sees what became of its jobs. Never blocks or fails.

        Its fifo lies beside the spool, both in OBS's `$bsdir`; any byte will do.
        """
        with contextlib.suppress(OSError):
            descriptor = os.open(self.ping_path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if stat.S_ISFIFO(os.fstat(descriptor).st_mode):  # else it is somebody's file, and we may be root
                    os.write(descriptor, b"x")
            finally:
                os.close(descriptor)

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
                descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
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

    def _create_next(self, path: Path) -> None:
        """Make `next`, unless somebody else just did."""
        new_path = path.with_name(f".next.new.{os.getpid()}")
        try:
            files.write_file(new_path, jobxml.serialize_next(1), mode=files.PUBLIC_MODE, owner=self._owner())
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(new_path)
        finally:
            new_path.unlink(missing_ok=True)

    def _write(self, path: Path, data: bytes, *, mode: int = files.PUBLIC_MODE) -> None:
        """Write a file beside its place, and move it there; afterwards it is safely on the disk."""
        new_path = path.with_name(f".{path.name}.new")
        try:
            files.write_file(new_path, data, mode=mode, owner=self._owner())
            new_path.replace(path)
        except OSError:
            new_path.unlink(missing_ok=True)
            raise
        files.sync_directory(path.parent)

    def _make_done_dir(self) -> None:
        try:
            self.done_dir.mkdir()
        except FileExistsError:
            return
        owner = self._owner()
        if owner:
            os.chown(self.done_dir, *owner)

    def _owner(self) -> tuple[int, int] | None:
        """Whose root's files must be, so that OBS's daemons, which are not root, can go on with them."""
        if os.geteuid() != 0:
            return None
        status = self.directory.stat()
        return status.st_uid, status.st_gid

    def _no_such_job(self, name: str) -> NoSuchJobError:
        if not self.directory.is_dir():
            return NoSuchJobError(f"there is no job {name}: there is no spool {self.directory}", hint=_SPOOL_HINT)
        return NoSuchJobError(
            f"there is no job {name} in {self.directory}", hint="`clouduploader list` shows the jobs."
        )

    def _missing(self) -> MissingFileError:
        return MissingFileError(f"there is no spool {self.directory}", hint=_SPOOL_HINT)

    def _cannot_create(self, path: Path, exc: OSError) -> CannotCreateError | MissingFileError:
        if not self.directory.is_dir():
            return self._missing()
        return CannotCreateError(f"{path} can't be written: {exc.strerror}")


_SPOOL_HINT = "OBS's upload server makes it; --spool or CLOUDUPLOADER_SPOOL name another one."


class LockedJob:
    """A running job whose lock we hold; made by `Spool.lock` and good inside its block.

    Attributes:
        job: As it was when the lock was taken.
    """

    def __init__(self, spool: Spool, job: Job) -> None:
        self.job = job
        self._spool = spool

    def replace(self, job: Job) -> None:
        """Write the job's new state, as the last thing in the block: it ends the lock.

        The lock stays on the old file, which has no name any more; those who wait for it see that.

        Raises:
            CannotCreateError: It can't be written; the old state is still there.
        """
        path = self._spool.job_path(self.job.name)
        try:
            self._spool._write(path, jobxml.serialize(job))
        except OSError as exc:
            raise self._spool._cannot_create(path, exc) from exc

    def archive(self, job: Job) -> None:
        """Move the job to the archive, and remove its files; as OBS does it, and in its order.

        On a full disk the image goes first: the archive needs room, and nobody needs the image any more.

        Args:
            job: In its final state.

        Raises:
            CannotCreateError: The archive can't be written; the job is still running.
            LocalIOError: A file can't be removed; the next `Spool.lock` tries again.
        """
        spool = self._spool
        try:
            try:
                self._write_archive(job)
            except OSError as exc:
                if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                spool.file_path(job.name).unlink(missing_ok=True)
                self._write_archive(job)
        except OSError as exc:
            raise spool._cannot_create(spool.done_path(job.name), exc) from exc
        self.clear()

    def _write_archive(self, job: Job) -> None:
        spool, name = self._spool, job.name
        spool._make_done_dir()
        with contextlib.suppress(FileNotFoundError):
            spool.log_path(name).replace(spool.done_log_path(name))
        spool._write(spool.done_path(name), jobxml.serialize(job))

    def is_archive_written(self) -> bool:
        """Whether the archive has this job already: somebody who archived it did not get to the end."""
        try:
            return _read_job(self._spool.done_path(self.job.name), self.job.name).state.is_final
        except (FileNotFoundError, JobFileError, LocalIOError):
            return False

    def clear(self) -> None:
        """Remove what an archived job leaves in the spool, its own file last.

        Raises:
            LocalIOError: Something can't be removed.
        """
        spool, name = self._spool, self.job.name
        try:
            for path in (
                spool.log_path(name),
                spool.data_path(name),
                spool.file_path(name),
                spool.result_path(name),
            ):
                path.unlink(missing_ok=True)
            if self.job.state is JobState.RECEIVING:
                spool.received_path(self.job).unlink(missing_ok=True)
            for directory in (spool.work_dir(name), spool.prepared_dir(name)):
                files.remove_tree(directory)
            spool.job_path(name).unlink(missing_ok=True)
        except OSError as exc:
            raise LocalIOError(f"{exc.filename} can't be removed: {exc.strerror}") from exc


class Reception:
    """An image on its way in; made by `Spool.receive`. One thread at a time.

    Attributes:
        job: As it is while the image comes.
        received_bytes: How much of it is here.
        file: Where it is written, unbuffered. Whoever writes there directly counts in `received_bytes`.
    """

    def __init__(self, spool: Spool, job: Job, file: BinaryIO) -> None:
        self.job = job
        self.file = file
        self.received_bytes = 0
        self._spool = spool
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
            self.fail(error.message if isinstance(error, ClouduploaderError) else CUT_OFF)

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes.

        Raises:
            LocalIOError: They can't be written.
        """
        try:
            left = memoryview(data)
            while left:
                written = self.file.write(left) or 0
                self.received_bytes += written
                left = left[written:]
        except OSError as exc:
            raise LocalIOError(f"the image can't be written: {exc.strerror}") from exc

    def finish(self) -> Job:
        """The image is here: have it on the disk, schedule the job, and wake OBS's worker.

        Returns:
            The job, scheduled.

        Raises:
            ImageError: It is not as large as the job says; the job has failed.
            NoSuchJobError, JobStateError: The job was killed meanwhile; the image is removed.
            JobFileError, LocalIOError, LockedError, CannotCreateError: The job could not be scheduled, and fails.
        """
        job, spool = self.job, self._spool
        if self.received_bytes != job.size:
            self.fail(f"size mismatch: {self.received_bytes} != {job.size or 0}")
            raise ImageError(f"size mismatch: {self.received_bytes} != {job.size or 0}")
        with contextlib.ExitStack() as undo:
            undo.enter_context(self)
            try:
                os.fsync(self.file.fileno())
            except OSError as exc:
                raise LocalIOError(f"the image can't be written: {exc.strerror}") from exc
            with spool.lock(job.name) as locked:
                if locked.job != job:
                    raise JobStateError(f"the job {job.name} is {locked.job.state}, and waits for no image")
                scheduled = dataclasses.replace(job, state=JobState.SCHEDULED, details=None, pid=None)
                path = spool.file_path(job.name)
                try:
                    spool.received_path(job).replace(path)
                except OSError as exc:
                    raise spool._cannot_create(path, exc) from exc
                locked.replace(scheduled)
            self._settle()
            undo.pop_all()
        spool.ping_worker()
        return scheduled

    def fail(self, details: str) -> None:
        """The image will not come: fail the job, unless it was killed meanwhile, and remove what is here.

        Args:
            details: Why; OBS's words if it has some.

        Raises:
            LocalIOError, LockedError, CannotCreateError: The job can't be archived; it stays as it is.
        """
        self._settle()
        # First what is here of it: the disk may be full, and the archive needs room.
        self._spool.received_path(self.job).unlink(missing_ok=True)
        try:
            with self._spool.lock(self.job.name) as locked:
                if locked.job == self.job:
                    locked.archive(self.job.ended(JobState.FAILED, details))
        except (NoSuchJobError, JobFileError):
            pass  # killed, or nobody's any more

    def _settle(self) -> None:
        self._is_settled = True
        self.file.close()


def _numeric_names(directory: Path) -> list[str]:
    is_name = jobxml.NAME.fullmatch
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries if is_name(entry.name)]


def _read_job(path: Path, name: str) -> Job:
    """Read the job of that name.

    Raises:
        FileNotFoundError: There is no such file.
        JobFileError, LocalIOError: See `Spool.read`.
    """
    data = _read_bytes(path)
    try:
        job = jobxml.parse(data)
    except JobFileError as exc:
        raise JobFileError(f"{path} is damaged: {exc.message}") from exc
    if job.name != name:
        raise JobFileError(f"{path} is damaged: it holds the job {job.name}")
    return job


def _read_next(path: Path) -> int:
    try:
        return jobxml.parse_next(_read_bytes(path))
    except JobFileError as exc:
        raise JobFileError(
            f"{path} is damaged: {exc.message}", hint="Remove it: it will be made anew from the jobs there are."
        ) from exc


def _read_bytes(path: Path) -> bytes:
    try:
        # Not to wait for a writer, should it be a fifo.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            data = piece = os.read(descriptor, READ_BYTES)
            while len(piece) == READ_BYTES and len(data) <= MAX_JOB_BYTES:
                piece = os.read(descriptor, READ_BYTES)
                data += piece
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise LocalIOError(f"{path} can't be read: {exc.strerror}") from exc
    if len(data) > MAX_JOB_BYTES:
        raise JobFileError(f"{path} is damaged: it is larger than {MAX_JOB_BYTES} bytes")
    return data
