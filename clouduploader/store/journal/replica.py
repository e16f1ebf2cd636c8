"""Keep a copy of the journal of an upload that runs on another host, so that the next host can go on with it.

The host sends what its uploader wrote: the bytes by which the journal and the files of the platform grew, and files
that were replaced or removed. What it calls them is not trusted, nor how much it sends.
"""

import contextlib
import os
import re
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from clouduploader.errors import DataError, LocalIOError, UsageError
from clouduploader.store.journal.directory import FILE_NAME, PLATFORM_NAME, keep_targetdata, read_bytes, tidy
from clouduploader.store.journal.entries import parse, state_of
from clouduploader.store.journal.writer import open_locked
from clouduploader.util import files, privileges

MAX_BYTES = 6 << 30  # of all files: the largest disk of any cloud has 64 TiB, confirmed in blocks of 512 KiB
MAX_JOURNAL_BYTES = 1 << 24  # its readers read more; each needs seconds for that
MAX_FILES = 1000  # of the platform: each snapshot, disk or blob that a try begins has one
READ_BYTES = 1 << 20
PLATFORM_FILE = re.compile(rf"{PLATFORM_NAME}/[A-Za-z0-9_-][A-Za-z0-9._-]{{0,199}}")  # what a host calls such a file


class JournalReplica:
    """A journal that another host writes, locked for this process. A context manager, which closes it.

    Its files are called `journal`, and `platform/NAME`. Threads may share it.

    Args:
        state_dir: Made if it is missing.
        key: See `key_of`.

    Raises:
        LockedError: An upload with this key lives, or is being cleaned up.
        CannotCreateError: It can't be made, or is not ours to write.
    """

    def __init__(self, state_dir: Path, key: str) -> None:
        self._home = state_dir / key
        self._lock = threading.Lock()
        self._unsynced: set[str] = set()  # files of the platform that have grown since the journal has
        self._descriptor: int | None = open_locked(state_dir, key)
        try:
            with self._told(FILE_NAME), privileges.as_owner(self._home):
                data = read_bytes(self._descriptor)
                if data and not data.endswith(b"\n"):  # torn by a crash: the next uploader cuts it off as well
                    os.ftruncate(self._descriptor, data.rfind(b"\n") + 1)
                files.make_directory(self._home / PLATFORM_NAME, mode=files.PRIVATE_DIRECTORY_MODE)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "JournalReplica":
        """Give itself."""
        return self

    def __exit__(self, *_details: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Unlock it; nothing can be read or written any more."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
            self._descriptor = None

    def files(self) -> dict[str, int]:
        """Return the size of each file in bytes; of the platform's only those that a host may send.

        Raises:
            LocalIOError: They can't be read.
        """
        with self._lock, self._told(FILE_NAME), privileges.as_owner(self._home):
            return self._sizes()

    def read(self, name: str, offset: int, size_bytes: int = READ_BYTES) -> bytes:
        """Return the bytes of a file from an offset on, so many at most; none at its end, or if it is not there.

        Raises:
            UsageError: There can be no such file.
            LocalIOError: It can't be read.
        """
        _check(name, offset)
        with self._lock, self._told(name), contextlib.suppress(FileNotFoundError), self._opened(name) as descriptor:
            return os.pread(descriptor, size_bytes, offset)
        return b""

    def append(self, name: str, offset: int, data: bytes) -> int:
        """Add bytes to a file, which is made if it is not there.

        With the journal, all that was added to the platform's files before is brought to the disk too.

        Args:
            name: Of the file.
            offset: Where the bytes belong; those that are there already are passed over, and nothing is added if some
                are missing in front of them.
            data: The bytes.

        Returns:
            The size of the file, from where the host goes on.

        Raises:
            UsageError: There can be no such file.
            DataError: The host sends more than an upload has.
            LocalIOError: It can't be written, and is as it was.
        """
        _check(name, offset)
        is_journal = name == FILE_NAME
        with self._lock, self._told(name), self._opened(name, is_made=True) as descriptor:
            before = os.fstat(descriptor).st_size
            new = memoryview(data)[before - offset :] if offset <= before else b""
            if new:
                self._check_room(name, before + len(new))
                try:
                    files.write_all(descriptor, bytes(new))
                    if is_journal:
                        self._sync_platform()
                        os.fsync(descriptor)
                except OSError:
                    with contextlib.suppress(OSError):  # no torn bytes in front of the next ones
                        os.ftruncate(descriptor, before)
                    raise
                if not is_journal:
                    self._unsynced.add(name)
            return before + len(new)

    def replace(self, name: str, data: bytes) -> int:
        """Put a file in the place of another, or of none.

        Returns:
            Its size.

        Raises:
            UsageError: There can be no such file, or it is the journal itself.
            DataError: The host sends more than an upload has.
            LocalIOError: It can't be written, and is as it was.
        """
        _check(name, 0, is_journal_allowed=False)
        with self._lock, self._told(name), privileges.as_owner(self._home):
            self._check_room(name, len(data))
            files.replace_file(self._home / name, data, mode=files.PRIVATE_MODE)
            self._unsynced.discard(name)
        return len(data)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            UsageError: There can be no such file, or it is the journal itself.
            LocalIOError: It can't be removed.
        """
        _check(name, 0, is_journal_allowed=False)
        with self._lock, self._told(name), privileges.as_owner(self._home):
            (self._home / name).unlink(missing_ok=True)
            self._unsynced.discard(name)

    def keep_targetdata(self, data: bytes) -> None:
        """Write the target data, which lie at the server alone; see `UploadJournal.begin`.

        Raises:
            LocalIOError: They can't be written.
        """
        with self._lock, self._told("targetdata"):
            keep_targetdata(self._home, data)

    def tidy(self) -> None:
        """Remove target data and the platform's files, unless they may be needed; see `directory.tidy`.

        Raises:
            LocalIOError: The journal can't be read.
        """
        with self._lock, self._told(FILE_NAME), self._opened(FILE_NAME) as descriptor:
            tidy(self._home, state_of(parse(read_bytes(descriptor))))

    @contextlib.contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Turn what goes wrong with a file into an error of ours; an OSError with the file's name must not get out."""
        if self._descriptor is None:
            raise LocalIOError(f"the journal {self._home} is closed")
        try:
            yield
        except OSError as exc:
            raise LocalIOError(f"{self._home / name} can't be read or written: {exc.strerror}") from exc

    @contextlib.contextmanager
    def _opened(self, name: str, *, is_made: bool = False) -> Iterator[int]:
        """Open a file; the journal is open all the time.

        Raises:
            FileNotFoundError: There is none, and none is to be made.
        """
        if name == FILE_NAME and self._descriptor is not None:
            yield self._descriptor
            return
        if is_made:
            self._check_room(name, 0)
        flags, mode = (os.O_RDWR | os.O_APPEND, files.PRIVATE_MODE) if is_made else (os.O_RDONLY, None)
        with privileges.as_owner(self._home):
            descriptor = files.open_regular(self._home / name, flags, mode=mode)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _sync_platform(self) -> None:
        """Bring what was added to the platform's files to the disk, and their names."""
        for name in self._unsynced:
            with self._opened(name) as descriptor:
                os.fsync(descriptor)
        if self._unsynced:
            files.sync_directory(self._home / PLATFORM_NAME)
        self._unsynced.clear()

    def _sizes(self) -> dict[str, int]:
        sizes = {FILE_NAME: (self._home / FILE_NAME).stat().st_size}
        for entry in os.scandir(self._home / PLATFORM_NAME):
            found = entry.stat(follow_symlinks=False)
            name = f"{PLATFORM_NAME}/{entry.name}"
            if stat.S_ISREG(found.st_mode) and PLATFORM_FILE.fullmatch(name):
                sizes[name] = found.st_size
        return sizes

    def _check_room(self, name: str, size_bytes: int) -> None:
        """Refuse to let a file grow to a size that no upload needs.

        Raises:
            DataError: It would.
        """
        with privileges.as_owner(self._home):
            sizes = self._sizes() | {name: size_bytes}
        is_too_much = len(sizes) > MAX_FILES or sum(sizes.values()) > MAX_BYTES or sizes[FILE_NAME] > MAX_JOURNAL_BYTES
        if is_too_much:
            raise DataError("the host sends more of a journal than an upload has")


def _check(name: str, offset: int, *, is_journal_allowed: bool = True) -> None:
    if not (PLATFORM_FILE.fullmatch(name) or (is_journal_allowed and name == FILE_NAME)):
        raise UsageError("an upload's journal has no such file")
    if offset < 0:
        raise UsageError(f"{offset} is no offset in a file")
