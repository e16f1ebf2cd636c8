"""The Unix socket: for the users of this host, as whom the kernel knows them (SO_PEERCRED, unix(7))."""

import contextlib
import errno
import os
import pwd
import socket
import stat
import struct
from asyncio.trsock import TransportSocket
from collections.abc import Iterator
from pathlib import Path

from clouduploader.errors import UnavailableError
from clouduploader.util import files

SCHEME = "unix:"
CONNECT_SECONDS = 5.0  # for a server that may live there
_UCRED = struct.Struct("iII")  # pid, uid, gid
ANY_USER = 0o111  # a mask: each may connect, for the kernel tells who it is


@contextlib.contextmanager
def listen(path: Path, *, backlog: int) -> Iterator[socket.socket]:
    """Listen on a socket, in place of what a crash left there; it is removed afterwards.

    To be called while there are no threads: the mask of the process is changed for a moment.

    Args:
        path: Absolute. Its directory must be there.
        backlog: See listen(2).

    Raises:
        UnavailableError: It can't be; or another server has it, or something else is there.
    """
    beside = files.new_path(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            _check_place(path)
            beside.unlink(missing_ok=True)
            mask = os.umask(ANY_USER)
            try:
                listener.bind(os.fsencode(beside))
            finally:
                os.umask(mask)
            listener.listen(backlog)
            beside.replace(path)
            own = path.lstat()
        except OSError as exc:
            raise UnavailableError(f"{path} can't be listened on: {exc.strerror or exc}") from exc
        try:
            yield listener
        finally:
            with contextlib.suppress(OSError):
                if os.path.samestat(own, path.lstat()):
                    path.unlink()


def _check_place(path: Path) -> None:
    """Refuse to take the place of a socket that is in use, or of something else.

    Raises:
        OSError: It is, or can't be looked at.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "what is there is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_SECONDS)
        try:
            probe.connect(os.fsencode(path))
        except ConnectionRefusedError:
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def peer_uid(client: socket.socket | TransportSocket) -> int | None:
    """Return the uid of the process that has connected; None if it came otherwise."""
    if client.family != socket.AF_UNIX:
        return None
    uid: int = _UCRED.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[1]
    return uid


def client_name(uid: int) -> str:
    """Return what a user is called among clients, which else are addresses."""
    return f"uid {uid}"


def is_own(uid: int) -> bool:
    """Return whether a user can do all that this process can: root, and the user that it runs as."""
    return uid in (0, os.geteuid())


def login(uid: int) -> str | None:
    """Return the login of a user; None if there is none. May ask a directory over the network."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def is_member(uid: int, gid: int) -> bool:
    """Return whether a user is in a group. May ask a directory over the network."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return False
    return gid in os.getgrouplist(entry.pw_name, entry.pw_gid)
