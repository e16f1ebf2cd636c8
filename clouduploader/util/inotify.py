"""Watch what changes in a directory, told at once by the kernel (inotify)."""

import contextlib
import errno
import os
from pathlib import Path

from clouduploader.errors import LocalIOError, MissingFileError, UnavailableError

try:
    import inotify_simple
except ImportError as exc:
    raise UnavailableError(
        "the package inotify_simple is not installed", hint="Install clouduploader with the extra `server`."
    ) from exc

_CHANGES = inotify_simple.flags.MOVED_TO | inotify_simple.flags.CLOSE_WRITE | inotify_simple.flags.DELETE
_LIMITS = {
    errno.EMFILE: "fs.inotify.max_user_instances, or the number of files that this process may open",
    errno.ENOSPC: "fs.inotify.max_user_watches",
}
"""What is too low where the kernel says so: inotify_init(2), inotify_add_watch(2)."""
_ENDS = inotify_simple.flags.DELETE_SELF | inotify_simple.flags.MOVE_SELF


class DirectoryWatch:
    """The names in one directory that got another file, or lost theirs, since the last look.

    Can be polled by its `fileno`. One thread may use it.

    Args:
        directory: Must exist.

    Raises:
        MissingFileError: There is no such directory.
        LocalIOError: It can't be watched; one of the kernel's limits may be reached.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            with contextlib.ExitStack() as undo:
                self._inotify = undo.enter_context(inotify_simple.INotify(nonblocking=True))
                self._inotify.add_watch(os.fsencode(directory), _CHANGES | _ENDS)
                undo.pop_all()
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise MissingFileError(f"there is no directory {directory}") from exc
        except OSError as exc:
            raise self._failure(exc) from exc

    def fileno(self) -> int:
        """Return the descriptor that can be read when something changed."""
        return int(self._inotify.fileno())

    def changed(self) -> set[str] | None:
        """Return the names that changed; does not wait.

        Returns:
            None if so many changed that the kernel gave up counting: any may have.

        Raises:
            MissingFileError: The directory itself was removed or moved away.
            LocalIOError: The kernel does not tell any more.
        """
        names: set[str] | None = set()
        try:
            events = self._inotify.read(timeout=0)
        except OSError as exc:
            raise self._failure(exc) from exc
        for event in events:
            if event.mask & (_ENDS | inotify_simple.flags.IGNORED):
                raise MissingFileError(f"the directory {self._directory} was removed, or moved away")
            if event.mask & inotify_simple.flags.Q_OVERFLOW:
                names = None
            elif names is not None:
                names.add(event.name)
        return names

    def _failure(self, exc: OSError) -> LocalIOError:
        limit = _LIMITS.get(exc.errno or 0)
        return LocalIOError(
            f"the directory {self._directory} can't be watched: "
            + ("the kernel allows no more of that" if limit else exc.strerror or str(exc)),
            hint=f"Raise {limit}." if limit else None,
        )

    def close(self) -> None:
        """Watch no longer."""
        self._inotify.close()
