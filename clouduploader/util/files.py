"""Open, write and remove files in directories where other users, or a crash, may have left anything.

Only regular files are opened, no symbolic link is followed in the last part of a path, and nothing waits for the other
end of a FIFO. What is made gets its mode by us, whatever the umask. With which rights root works in a directory of
another user is in `util/privileges`.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

PUBLIC_MODE = 0o644
GROUP_MODE = 0o640  # in the spool: jobs of users who don't trust each other; OBS's daemons write 0644
PRIVATE_MODE = 0o600
PUBLIC_DIRECTORY_MODE = 0o755
GROUP_DIRECTORY_MODE = 0o750
PRIVATE_DIRECTORY_MODE = 0o700
REMOVE_TRIES = 5  # a killed uploader may make a file in the directory that is being removed


def open_regular(path: Path, flags: int, *, mode: int | None = None, is_followed: bool = False) -> int:
    """Open a regular file, and nothing else.

    Args:
        path: A symbolic link is refused, whatever it leads to, unless `is_followed`.
        flags: As for open(2).
        mode: If the file is not there it is made, with this mode, whatever the umask.
        is_followed: Whether a link is followed: for files that an administrator puts in any place.

    Returns:
        A descriptor; the caller closes it.

    Raises:
        OSError: It can't be opened, or is something else.
    """
    flags |= os.O_NONBLOCK | os.O_CLOEXEC | (0 if is_followed else os.O_NOFOLLOW)
    while True:
        try:
            descriptor = os.open(path, flags)
            is_new = False
        except FileNotFoundError:
            if mode is None:
                raise
            try:
                descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
            except FileExistsError:
                if path.is_symlink():
                    raise
                continue  # another process just made it
            is_new = True
        try:
            kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
            if kind == stat.S_IFDIR:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            if kind != stat.S_IFREG:
                raise OSError(errno.EINVAL, "it is not a regular file", str(path))
            if is_new and mode is not None:
                os.fchmod(descriptor, mode)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def open_read(path: Path, *, is_followed: bool = False) -> BinaryIO:
    """Open a regular file to read it, unbuffered; see `open_regular`. The caller closes it."""
    return os.fdopen(open_regular(path, os.O_RDONLY, is_followed=is_followed), "rb", buffering=0)


def try_lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Take the lock of an open file without waiting; return False if another process has it."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def open_locked(path: Path) -> BinaryIO | None:
    """Open a log to append to it and lock it; return None if another process has the lock. The caller closes it."""
    descriptor = open_regular(path, os.O_WRONLY | os.O_APPEND, mode=GROUP_MODE)
    with contextlib.ExitStack() as undo:
        file = undo.enter_context(os.fdopen(descriptor, "ab", buffering=0))
        if not try_lock(descriptor):
            return None
        undo.pop_all()
    return file


def open_new(path: Path, *, mode: int) -> BinaryIO:
    """Make a file, in place of what a crash left there, and open it for writing, unbuffered. The caller closes it.

    Raises:
        OSError: It can't be made.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, PRIVATE_MODE)
    except FileExistsError:
        path.unlink()
        descriptor = os.open(path, flags, PRIVATE_MODE)
    with contextlib.ExitStack() as undo:
        file = undo.enter_context(os.fdopen(descriptor, "wb", buffering=0))
        os.fchmod(file.fileno(), mode)
        undo.pop_all()
    return file


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all the bytes; a disk that is nearly full takes only some at first."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def write_file(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file, see `open_new`, with its content on the disk; its name is not, see `sync_directory`."""
    with open_new(path, mode=mode) as file:
        write_all(file.fileno(), data)
        os.fsync(file.fileno())


def discard(path: Path) -> None:
    """Remove a file if that can be done: what is left does no harm."""
    with contextlib.suppress(OSError):
        path.unlink()


def check_replaceable(path: Path) -> None:
    """Refuse to replace what is no regular file: a device, a link, a directory.

    Raises:
        OSError: It is none, or can't be looked at.
    """
    kind = stat.S_IFREG
    with contextlib.suppress(FileNotFoundError):
        kind = stat.S_IFMT(path.lstat().st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, "what is there is not a regular file", str(path))


def new_path(path: Path) -> Path:
    """Return where a file is written before it is moved to its place."""
    return path.with_name(f".{path.name}.new")


def replace_file(path: Path, data: bytes, *, mode: int, announce: Callable[[], None] | None = None) -> None:
    """Write a file beside its place, and move it there; afterwards it is safely on the disk.

    One writer at a time: a crash leaves a file that the next one overwrites.

    Args:
        path: Its place.
        data: Its content.
        mode: Its mode.
        announce: Called once it is written, before others can see it.

    Raises:
        OSError: That failed, see also `check_replaceable`; what was there before is still there, or the new content,
            should only its name not yet be on the disk.
    """
    check_replaceable(path)
    beside = new_path(path)
    try:
        write_file(beside, data, mode=mode)
        if announce:
            announce()
        beside.replace(path)
    except OSError:
        discard(beside)
        raise
    sync_directory(path.parent)


def create_file(path: Path, data: bytes, *, mode: int) -> None:
    """Make a file that must not be there yet; it appears with all its bytes, and is then safely on the disk.

    Any number of writers at a time: one of them makes it. A crash may leave a file beside it, called
    `.NAME.new.` and some random characters.

    Args:
        path: Its place.
        data: Its content.
        mode: Its mode.

    Raises:
        FileExistsError: Something is there already, if only a symbolic link.
        OSError: It can't be made; nothing is left.
    """
    import tempfile  # loads shutil, see `remove_tree`

    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{new_path(path).name}.")
    try:
        with os.fdopen(descriptor, "wb", buffering=0):
            write_all(descriptor, data)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        os.link(name, path)  # unlike a rename it refuses to overwrite
    finally:
        discard(Path(name))
    sync_directory(path.parent)


def make_directory(path: Path, *, mode: int) -> None:
    """Make a directory if it is not there, with its name on the disk.

    Raises:
        OSError: It can't be made, or is something else.
    """
    try:
        path.mkdir(mode=PRIVATE_DIRECTORY_MODE)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Write the names in a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Remove a directory and all in it, as far as that can be; symbolic links are removed and not followed.

    What another process goes on writing to, or has mounted, is left, as OBS does it: better than the job.
    """
    import shutil  # loads every packing there is, which commands that only read need not wait for

    if path.is_symlink() or path.is_file():
        path.unlink()
    for _ in range(REMOVE_TRIES):
        if not path.exists():
            break
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            continue  # another process removes it too
        except PermissionError:
            _open_up(path)
        except OSError as exc:
            if exc.errno not in (errno.ENOTEMPTY, errno.EBUSY):
                raise


def _open_up(directory: Path) -> None:
    """Give back the right to remove what is in a directory that was made read-only, and in those in it."""
    with contextlib.suppress(OSError):
        directory.chmod(PRIVATE_DIRECTORY_MODE)
        for entry in directory.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                _open_up(entry)
