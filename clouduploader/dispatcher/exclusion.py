"""One worker for each spool, whoever's it is; and the fifo by which OBS's server wakes its worker."""

import contextlib
import dataclasses
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from clouduploader import spool
from clouduploader.errors import CannotCreateError, LockedError, MissingFileError
from clouduploader.spool import files

LOCK_NAME = ".worker.lock"
OBS_LOCK = Path("run/bs_clouduploadworker.lock")  # below $bsdir: $rundir of OBS's own BSConfig.pm
PROBE_SECONDS = 1.0  # OBS's server takes the lock for an instant, whenever it is asked whether a worker runs
PAUSE_SECONDS = 0.02
FIFO_MODE = 0o666  # whoever may change a job may wake the worker (BSStdRunner.pm)


@dataclasses.dataclass(frozen=True)
class Hold:
    """A spool of which we are the only worker.

    Attributes:
        fifo: To be read without waiting; None if this is no directory of OBS, and there is none.
        path: Our lock.
        descriptor: Of the file that we have locked.
    """

    fifo: int | None
    path: Path
    descriptor: int

    def check(self) -> None:
        """See whether it still is so: inotify does not tell that something was mounted over the spool, or taken away.

        Raises:
            MissingFileError: The lock is not there any more, or another one is; there may be another worker.
        """
        with contextlib.suppress(OSError):
            if os.path.samestat(self.path.stat(), os.fstat(self.descriptor)):
                return
        raise MissingFileError(
            f"the lock {self.path} is gone, or another one", hint="Was something mounted there? Start the worker again."
        )


def lock_paths(jobs: spool.Spool, obs_lock: Path | None) -> tuple[Path, Path]:
    """What the spool's worker holds, ours and OBS's.

    Args:
        jobs: The spool.
        obs_lock: The lock of OBS's worker; None for where OBS has it by default.
    """
    return jobs.directory / LOCK_NAME, obs_lock or jobs.directory.parent / OBS_LOCK


@contextlib.contextmanager
def held(jobs: spool.Spool, obs_lock: Path | None) -> Iterator[Hold]:
    """Be the only worker of a spool, inside the block.

    OBS's own lock is taken too, where its directory exists: then OBS's worker does not start, and OBS's server
    shows that a worker runs. The fifo tells nothing: OBS's helpers of uploads keep it open without reading it.

    Args:
        jobs: The spool.
        obs_lock: See `lock_paths`.

    Yields:
        See Hold.

    Raises:
        LockedError: There is another worker.
        CannotCreateError: A lock can't be made.
        MissingFileError: There is no spool, and no directory that it could be made in.
    """
    own_path, obs_path = lock_paths(jobs, obs_lock)
    with contextlib.ExitStack() as stack:
        _make_spool(jobs.directory)
        descriptor = _hold(stack, jobs, own_path, f"another worker works on the spool {jobs.directory}")
        if obs_path.parent.is_dir():
            _hold(stack, jobs, obs_path, f"OBS's worker works on the spool {jobs.directory}: it holds {obs_path}")
        yield Hold(_fifo(stack, jobs), own_path, descriptor)


def _make_spool(directory: Path) -> None:
    """Make the spool if there was never a job: OBS's server makes it for the first one."""
    if directory.is_dir():
        return
    if not directory.parent.is_dir():
        raise MissingFileError(
            f"there is no spool {directory}, and no directory {directory.parent}",
            hint="--spool or CLOUDUPLOADER_SPOOL name another one.",
        )
    try:
        directory.mkdir(exist_ok=True)
        _give(directory, directory.parent)
    except OSError as exc:
        raise CannotCreateError(f"the spool {directory} can't be made: {exc.strerror}") from exc


def _give(path: Path | int, like: Path) -> None:
    """Give root's new file to the owner of another: the next worker, or the server, may not be root."""
    if os.geteuid() == 0:
        owner = like.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _hold(stack: contextlib.ExitStack, jobs: spool.Spool, path: Path, complaint: str) -> int:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, files.PUBLIC_MODE)
        stack.callback(os.close, descriptor)
        deadline = time.monotonic() + PROBE_SECONDS
        while not _try_lock(descriptor):
            if time.monotonic() >= deadline:
                raise LockedError(complaint, hint="Only one worker can work on a spool; end that one first.")
            time.sleep(PAUSE_SECONDS)
        _give(descriptor, jobs.directory)
        os.utime(descriptor)  # OBS's server shows it as the worker's start
    except OSError as exc:
        raise CannotCreateError(f"the lock {path} can't be made: {exc.strerror}") from exc
    return descriptor


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _fifo(stack: contextlib.ExitStack, jobs: spool.Spool) -> int | None:
    """Open the fifo as OBS's worker does; it makes it if there is none."""
    path = jobs.ping_path
    if not path.parent.parent.is_dir():
        return None
    try:
        path.parent.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path)
            path.chmod(FIFO_MODE)
        if not stat.S_ISFIFO(path.lstat().st_mode):
            return None
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise CannotCreateError(f"the fifo {path} can't be made: {exc.strerror}") from exc
    stack.callback(os.close, descriptor)
    return descriptor

