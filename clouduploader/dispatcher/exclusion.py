"""One worker for each spool, whoever's it is; and the fifo by which OBS's server wakes its worker."""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from clouduploader import spool
from clouduploader.errors import CannotCreateError, LockedError
from clouduploader.spool import files

LOCK_NAME = ".worker.lock"
OBS_LOCK = Path("run/bs_clouduploadworker.lock")  # below $bsdir: $rundir of OBS's own BSConfig.pm
FIFO_MODE = 0o666  # whoever may change a job may wake the worker (BSStdRunner.pm)


@contextlib.contextmanager
def held(jobs: spool.Spool, obs_lock: Path | None) -> Iterator[int | None]:
    """Be the only worker of a spool, inside the block.

    OBS's own lock is taken too, where its directory exists: then OBS's worker does not start, and OBS's server
    shows that a worker runs. A worker of OBS with another `$rundir` is known by the fifo that it reads.

    Args:
        jobs: The spool.
        obs_lock: The lock of OBS's worker; None for where OBS has it by default.

    Yields:
        The fifo, to be read without waiting; None if this is no directory of OBS, and there is none.

    Raises:
        LockedError: There is another worker.
        CannotCreateError: A lock can't be made.
        MissingFileError: There is no spool.
    """
    bsdir = jobs.directory.parent
    obs_path = obs_lock or bsdir / OBS_LOCK
    with contextlib.ExitStack() as stack:
        jobs.running_names()  # a spool must be there
        _hold(stack, jobs, jobs.directory / LOCK_NAME, f"another worker works on the spool {jobs.directory}")
        if obs_path.parent.is_dir():
            _hold(stack, jobs, obs_path, f"OBS's worker works on the spool {jobs.directory}: it holds {obs_path}")
        yield _fifo(stack, jobs)


def _hold(stack: contextlib.ExitStack, jobs: spool.Spool, path: Path, complaint: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, files.PUBLIC_MODE)
        stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.geteuid() == 0:  # the next worker may be started as somebody else
            owner = jobs.directory.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        os.utime(descriptor)  # OBS's server shows it as the worker's start
    except BlockingIOError as exc:
        raise LockedError(complaint, hint="Only one worker can work on a spool; end that one first.") from exc
    except OSError as exc:
        raise CannotCreateError(f"the lock {path} can't be made: {exc.strerror}") from exc


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
        if _is_read(path):
            raise LockedError(
                f"another worker works on the spool {jobs.directory}: it reads {path}",
                hint="It may be OBS's own. Only one worker can work on a spool; end that one first.",
            )
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise CannotCreateError(f"the fifo {path} can't be made: {exc.strerror}") from exc
    stack.callback(os.close, descriptor)
    return descriptor


def _is_read(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as exc:
        if exc.errno == errno.ENXIO:
            return False
        raise
    return True
