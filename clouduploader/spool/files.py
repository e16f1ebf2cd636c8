"""What is done with single files of a spool: locked, written, made safe, removed. Knows no jobs."""

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import BinaryIO

REMOVE_TRIES = 5  # a killed uploader may make a file in the directory that is being removed
PUBLIC_MODE = 0o644  # what OBS's daemons write with their umask of 022
PRIVATE_MODE = 0o600


def try_lock(descriptor: int) -> bool:
    """Take the exclusive lock of an open file; False if somebody else has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def open_locked(path: Path) -> BinaryIO | None:
    """Open a log to append to it and lock it; None if somebody else has the lock."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with contextlib.ExitStack() as undo:
        file = undo.enter_context(os.fdopen(os.open(path, flags, PUBLIC_MODE), "ab", buffering=0))
        if not try_lock(file.fileno()):
            return None
        undo.pop_all()
    return file


def open_new(path: Path, *, mode: int, owner: tuple[int, int] | None) -> BinaryIO:
    """Open a file for writing, unbuffered and empty; see `write_file`. The caller closes it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with contextlib.ExitStack() as undo:
        file = undo.enter_context(os.fdopen(os.open(path, flags, PRIVATE_MODE), "wb", buffering=0))
        os.fchmod(file.fileno(), mode)  # whatever the umask or a file left by a crash says
        if owner:
            os.fchown(file.fileno(), *owner)
        undo.pop_all()
    return file


def write_file(path: Path, data: bytes, *, mode: int, owner: tuple[int, int] | None) -> None:
    """Write a file, and have it on the disk; its name is not, see `sync_directory`.

    Args:
        path: What is there is written over.
        data: Its content.
        mode: Its mode, whatever the umask says.
        owner: Its user and group; None for ours.
    """
    with open_new(path, mode=mode, owner=owner) as file:
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Have the names in a directory on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Remove a directory and all in it, as far as that can be; symbolic links are removed and not followed.

    What somebody goes on writing to, has mounted or owns is left, as OBS does it: better than the job.
    """
    import shutil  # loads every packing there is, which those who only read need not wait for

    if path.is_symlink() or path.is_file():
        path.unlink()
    for _ in range(REMOVE_TRIES):
        if not path.exists():
            break
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            continue  # somebody else removes it too
        except PermissionError:
            _open_up(path)
        except OSError as exc:
            if exc.errno not in (errno.ENOTEMPTY, errno.EBUSY):
                raise


def _open_up(directory: Path) -> None:
    """Let us remove what is in a directory that was made read-only, and in those in it."""
    with contextlib.suppress(OSError):
        directory.chmod(0o700)
        for entry in directory.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                _open_up(entry)
