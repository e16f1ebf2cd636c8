"""The private directory of one job, and the image in it under its real name."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from clouduploader.errors import CannotCreateError

PREFIX = "clouduploader-"
STALE_SECONDS = 600  # a directory younger than this may belong to a job that is just starting


@contextlib.contextmanager
def private_directory() -> Iterator[Path]:
    """Make a directory that only this user can enter (0700), and remove it with all that is in it.

    It lies in $TMPDIR and is locked as long as it is in use, so that the directories of jobs that were
    killed are recognised, and removed by the next one.

    Raises:
        CannotCreateError: It can't be made.
    """
    try:
        base = Path(tempfile.gettempdir())
        _remove_stale(base)
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    except OSError as exc:
        raise CannotCreateError(f"no temporary directory can be made: {exc.strerror}", hint="Set TMPDIR.") from exc
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _remove_stale(base: Path) -> None:
    """Remove the directories of this user that nobody holds the lock of."""
    for path in base.glob(f"{PREFIX}*"):
        _remove_unless_locked(path, owner=os.geteuid(), min_age_seconds=STALE_SECONDS)


def remove_dead(path: Path, *, owner: int) -> None:
    """Remove the private directory of a job that was killed; what is none, is in use, or another user's stays.

    Args:
        path: As the job's journal has it.
        owner: Whose journal that is: root is not to be told by others what to remove.
    """
    if path.is_absolute() and path.name.startswith(PREFIX):
        _remove_unless_locked(path, owner=owner, min_age_seconds=0)


def _remove_unless_locked(path: Path, *, owner: int, min_age_seconds: float) -> None:
    with contextlib.suppress(OSError):
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            status = os.fstat(lock)
            if status.st_uid == owner and time.time() - status.st_mtime >= min_age_seconds:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(lock)


@contextlib.contextmanager
def linked(image_path: Path, directory: Path, name: str) -> Iterator[Path]:
    """Present an image under another name, by a symbolic link that is removed afterwards.

    The same link may be there already: of an earlier try that was killed.

    Args:
        image_path: The image.
        directory: Where the link is made.
        name: A base name.

    Raises:
        CannotCreateError: It can't be made.
    """
    link = directory / name
    target = image_path.absolute()
    try:
        if not (link.is_symlink() and link.readlink() == target):
            link.symlink_to(target)
    except OSError as exc:
        raise CannotCreateError(f"the image can't be linked as {link}: {exc.strerror}") from exc
    try:
        yield link
    finally:
        with contextlib.suppress(OSError):  # OBS's kill empties its directory under our feet
            link.unlink()
