"""The lock of a spool's only worker, OBS's or ours, and the fifo by which OBS's server wakes its worker."""

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from clouduploader.errors import CannotCreateError, LockedError, MissingFileError
from clouduploader.store import spool
from clouduploader.util import files, privileges
from clouduploader.util.frozen import frozen

LOCK_NAME = ".worker.lock"
OBS_LOCK = Path("run/bs_clouduploadworker.lock")  # below $bsdir: $rundir of OBS's own BSConfig.pm
PROBE_SECONDS = 1.0  # OBS's server takes the lock for an instant, whenever it is asked whether a worker runs
PAUSE_SECONDS = 0.02
FIFO_MODE = 0o666  # a process that may change a job may wake the worker (BSStdRunner.pm)


@frozen()
class WorkerLock:
    """The lock of a spool, while it is held.

    Attributes:
        fifo: Descriptor of the fifo, non-blocking; None if there is none, as this is no directory of OBS.
        path: The lock file.
        descriptor: Of the lock file as it was locked.
    """

    fifo: int | None
    path: Path
    descriptor: int

    def check(self) -> None:
        """Check that the lock file is still the one that was locked: inotify does not report mounts over the spool.

        Raises:
            MissingFileError: It is not there any more, or is another one; there may be another worker.
        """
        with contextlib.suppress(OSError):
            if os.path.samestat(self.path.stat(), os.fstat(self.descriptor)):
                return
        raise MissingFileError(
            f"the lock {self.path} is gone, or another one", hint="Was something mounted there? Start the worker again."
        )


def lock_paths(jobs: spool.Spool, obs_lock: Path | None) -> tuple[Path, Path]:
    """Return the lock files of a spool's worker: ours and OBS's.

    Args:
        jobs: The spool.
        obs_lock: The lock of OBS's worker; None for where OBS has it by default.
    """
    return jobs.directory / LOCK_NAME, obs_lock or jobs.directory.parent / OBS_LOCK


@contextlib.contextmanager
def acquire(jobs: spool.Spool, obs_lock: Path | None) -> Iterator[WorkerLock]:
    """Hold the lock of a spool's worker inside the block.

    OBS's own lock is taken too, where its directory exists: then OBS's worker does not start, and OBS's server
    shows that a worker runs. The fifo can't be used for that: OBS's helpers of uploads keep it open without reading it.

    Args:
        jobs: The spool.
        obs_lock: See `lock_paths`.

    Yields:
        See WorkerLock.

    Raises:
        LockedError: There is another worker.
        CannotCreateError: A lock can't be made.
        MissingFileError: There is no spool, and no directory that it could be created in.
    """
    own_path, obs_path = lock_paths(jobs, obs_lock)
    with contextlib.ExitStack() as stack:
        jobs.make()
        descriptor = _lock(stack, own_path, f"another worker works on the spool {jobs.directory}")
        if obs_path.parent.is_dir():
            _lock(stack, obs_path, f"OBS's worker works on the spool {jobs.directory}: it holds {obs_path}")
        yield WorkerLock(_fifo(stack, jobs), own_path, descriptor)


def _lock(stack: contextlib.ExitStack, path: Path, complaint: str) -> int:
    try:
        with privileges.as_owner(path.parent):
            descriptor = files.open_regular(path, os.O_WRONLY, mode=files.GROUP_MODE)
        stack.callback(os.close, descriptor)
        deadline = time.monotonic() + PROBE_SECONDS
        while not files.try_lock(descriptor):
            if time.monotonic() >= deadline:
                raise LockedError(complaint, hint="Only one worker can work on a spool; end that one first.")
            time.sleep(PAUSE_SECONDS)
        os.utime(descriptor)  # OBS's server shows it as the worker's start
    except OSError as exc:
        raise CannotCreateError(f"the lock {path} can't be made: {exc.strerror}") from exc
    return descriptor


def _fifo(stack: contextlib.ExitStack, jobs: spool.Spool) -> int | None:
    """Open the fifo as OBS's worker does, which creates it if there is none."""
    path = jobs.ping_path
    if not path.parent.parent.is_dir():
        return None
    with contextlib.ExitStack() as undo:
        try:
            with privileges.as_owner(path.parent.parent):
                files.make_directory(path.parent, mode=files.PUBLIC_DIRECTORY_MODE)
                with contextlib.suppress(FileExistsError):
                    os.mkfifo(path, files.PRIVATE_MODE)
                    path.chmod(FIFO_MODE)
                descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as exc:
            raise CannotCreateError(f"the fifo {path} can't be made: {exc.strerror}") from exc
        undo.callback(os.close, descriptor)
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return None
        stack.push(undo.pop_all())
    return descriptor
