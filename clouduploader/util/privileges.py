"""The rights of this process: root's given up for good, or inside a block for those of a directory's owner.

Root works in a directory of another user with that user's rights (`as_owner`): whatever that user put there leads to
nothing that the user could not have reached alone.
"""

import contextlib
import functools
import os
import pwd
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from clouduploader.errors import ConfigError, NotOwnerError, UsageError

PR_SET_DUMPABLE = 4  # <linux/prctl.h>


def owner_of(directory: Path) -> tuple[int, int] | None:
    """Find the user, other than root, who can put files into a directory.

    Args:
        directory: Absolute; if it is not there, the nearest one above it counts.

    Returns:
        That user's uid and the group for new files: the directory's owner; for a directory of root's the owner of what
        it was reached through, who can exchange it. None if all of that is root's, or belongs to users whose rights
        root can't take in the user namespace of a plain user.
    """
    chain = [directory, *directory.parents]
    while True:
        try:
            status = chain[0].stat()
            break
        except OSError:
            if len(chain) == 1:
                return None
            del chain[0]
    if not _is_lesser(status.st_uid):
        owners = (path.lstat() for path in reversed(chain))
        status = next((found for found in owners if _is_lesser(found.st_uid)), status)
    if not _is_lesser(status.st_uid):
        return None
    return status.st_uid, status.st_gid or _primary_group(status.st_uid)


def _is_lesser(uid: int) -> bool:
    """Tell whether root has more rights than a user.

    In a user namespace of its own (user_namespaces(7)) a plain user is called root, and has no more rights than before
    over what belongs to users outside, the real root among them; these all bear one uid that is not in its map.
    """
    if uid == 0:
        return False
    rows = [tuple(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    is_inside = any(first <= uid < first + count for first, _outside, count in rows)
    return is_inside or any(first == outside == 0 for first, outside, _count in rows)


def _primary_group(uid: int) -> int:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid  # a number without a name; by custom its group bears the same one


def check_program(path: Path, program: str) -> None:
    """Refuse as root a program that is named in a file which a lesser user may have written.

    Args:
        path: The file, such as one of the home.
        program: What it names, for the message.

    Raises:
        ConfigError: This process is root's, and another user may have written the file; see `owner_of`.
    """
    owner = owner_of(path) if os.geteuid() == 0 else None
    if owner is None:
        return
    try:
        name = pwd.getpwuid(owner[0]).pw_name
    except KeyError:  # a number without a name
        name = f"#{owner[0]}"
    raise ConfigError(
        f"root does not run {program}: {path} may have been written by the user {name}",
        hint=f"Work as that user: `runuser -u {name} -- clouduploader ...`.",
    )


@contextlib.contextmanager
def as_owner(directory: Path) -> Iterator[None]:
    """Let root do inside the block what the owner of a directory could do with files, and no more; others as ever.

    The thread's file system uid and gid are changed (setfsuid(2)): the kernel checks each part of each path, without a
    race, and what is made belongs to the owner. Other threads, and the right to send signals, stay as they are; a
    thread that is started inside the block begins with the owner's rights, a program that is executed with root's.

    Args:
        directory: See `owner_of`.

    Raises:
        NotOwnerError: Root may not change them here.
    """
    owner = owner_of(directory) if os.geteuid() == 0 else None
    if owner is None:
        yield
        return
    libc = _libc()
    with contextlib.suppress(PermissionError):  # of the whole process, for which root has no need
        os.setgroups([])
    before = libc.setfsuid(owner[0]), libc.setfsgid(owner[1])
    try:
        if (libc.setfsuid(-1), libc.setfsgid(-1)) != owner:  # they report no errors
            raise NotOwnerError(f"{directory} belongs to another user, whose rights root may not take here")
        yield
    finally:
        libc.setfsuid(before[0])
        libc.setfsgid(before[1])


@functools.cache
def _libc() -> Any:  # noqa: ANN401 there is no better type for it
    import ctypes  # only root needs it

    return ctypes.CDLL(None)


class _HasDirectory(Protocol):
    @property
    def directory(self) -> Path: ...


Instance = TypeVar("Instance", bound=_HasDirectory)
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def works_as_owner(
    method: Callable[Concatenate[Instance, Parameters], Result],
) -> Callable[Concatenate[Instance, Parameters], Result]:
    """Decorate a method of an object with a `directory`, so that root works there as its owner."""

    @functools.wraps(method)
    def wrapper(self: Instance, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with as_owner(self.directory):
            return method(self, *args, **kwargs)

    return wrapper


def become(account: str) -> None:
    """Give up root's rights for those of a user, for good; do nothing if this process is that user's already.

    Raises:
        UsageError: There is no such user.
        NotOwnerError: Only root can do that.
    """
    try:
        entry = pwd.getpwnam(account)
    except KeyError as exc:
        raise UsageError(f"there is no user {account} on this machine") from exc
    if os.geteuid() == entry.pw_uid:
        return
    try:
        os.initgroups(account, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    except PermissionError as exc:
        raise NotOwnerError(f"only root can work as {account}", hint=f"Start it as root, or as {account}.") from exc


def hide_memory() -> None:
    """Let no other process of this user, and no program that collects crashes, read this one's memory: it holds keys.

    For processes that work for the service. It hides the open files too (/proc/PID is root's from here on), which is
    why an upload by hand does not do it: `kill` knows its process by these. An upload of the service is known by its
    supervisor, or OBS's helper, which lead its process group and have no keys.
    """
    _libc().prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
