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
from clouduploader.util import files, privileges

PREFIX = "clouduploader-"
MARK_NAME = ".clouduploader-private"  # says that a directory is one of ours, and which one
MAX_MARK_BYTES = 256
STALE_SECONDS = 600  # a directory younger than this may belong to a job that is just starting


@contextlib.contextmanager
def private_directory() -> Iterator[Path]:
    """Make a directory that only this user can enter (0700), and remove it with all that is in it.

    It lies in $TMPDIR, is locked as long as it is in use, and has a mark in it: by both, the directories of jobs that
    were killed are recognised, see `remove_stale`.

    Raises:
        CannotCreateError: It can't be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            path = Path(tempfile.mkdtemp(prefix=PREFIX))
            stack.callback(_remove, path)
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX)
            files.write_file(path / MARK_NAME, _mark(path, os.fstat(lock)), mode=files.PRIVATE_MODE)
        except OSError as exc:
            raise CannotCreateError(f"no temporary directory can be made: {exc.strerror}", hint="Set TMPDIR.") from exc
        yield path


def _mark(path: Path, status: os.stat_result) -> bytes:
    """Return what stands in a private directory: its name and inode. No copy of it has these."""
    return f"{path.name} {status.st_dev} {status.st_ino}\n".encode()


def remove_stale() -> None:
    """Remove the private directories of this user's jobs that were killed: there are keys in them."""
    with contextlib.suppress(OSError):
        for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            _remove_unless_locked(path, owner=os.geteuid(), min_age_seconds=STALE_SECONDS)


def remove_dead(path: Path, *, owner: int) -> None:
    """Remove the private directory of a job that was killed; leave what is none, is in use, or is another user's.

    Args:
        path: As the job's journal has it.
        owner: The owner of that journal: no other user may tell root what to remove.
    """
    if path.is_absolute():
        _remove_unless_locked(path, owner=owner, min_age_seconds=0)


def _remove_unless_locked(path: Path, *, owner: int, min_age_seconds: float) -> None:
    with contextlib.suppress(OSError):
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(lock)
            if (
                status.st_uid == owner
                and time.time() - status.st_mtime >= min_age_seconds
                and _is_marked(path, status)
                and files.try_lock(lock)
            ):
                with privileges.as_owner(path):
                    _remove(path)
        finally:
            os.close(lock)


def _remove(path: Path) -> None:
    """Remove a private directory, its mark last: if we are killed meanwhile, the next one goes on."""
    with contextlib.suppress(OSError):
        for entry in path.iterdir():
            if entry.name != MARK_NAME:
                files.remove_tree(entry)
        shutil.rmtree(path)


def _is_marked(path: Path, status: os.stat_result) -> bool:
    with privileges.as_owner(path), files.open_read(path / MARK_NAME) as file:
        return file.read(MAX_MARK_BYTES) == _mark(path, status)


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
        with privileges.as_owner(directory):
            if not (link.is_symlink() and link.readlink() == target):
                link.symlink_to(target)
    except OSError as exc:
        raise CannotCreateError(f"the image can't be linked as {link}: {exc.strerror}") from exc
    try:
        yield link
    finally:
        with privileges.as_owner(directory):  # OBS's kill empties it under our feet
            files.discard(link)
