"""Read journals, and remove those that are not needed any more."""

import contextlib
import datetime
import fcntl
import os
from collections.abc import Iterator, Set
from pathlib import Path

from clouduploader.errors import LocalIOError
from clouduploader.plugin import visibility
from clouduploader.store.journal.directory import FILE_NAME, TARGETDATA_NAME, keys, other_files, read_bytes
from clouduploader.store.journal.entries import Entry, JournalState, parse, state_of
from clouduploader.util import files, privileges
from clouduploader.util.frozen import frozen


@frozen()
class JournalContents:
    """A journal as it was found.

    Attributes:
        key: See `key_of`.
        directory: Where it lies.
        is_live: Whether a process has it locked: an upload, or a clean-up.
        entries: All, the oldest first.
        state: What they come to.
    """

    key: str
    directory: Path
    is_live: bool
    entries: tuple[Entry, ...]
    state: JournalState

    @property
    def changed(self) -> datetime.datetime | None:
        """When the last entry was written."""
        return visibility.time_of(self.entries[-1]) if self.entries else None

    def targetdata(self) -> bytes | None:
        """Return the target data as they came, or None if they are gone or can't be read."""
        try:
            with privileges.as_owner(self.directory), files.open_read(self.directory / TARGETDATA_NAME) as file:
                return file.read()
        except OSError:
            return None


def read(state_dir: Path, key: str) -> JournalContents | None:
    """Read one journal; None if there is none, or this user may not read it."""
    directory = state_dir / key
    path = directory / FILE_NAME
    try:
        with privileges.as_owner(directory):
            descriptor = files.open_regular(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        is_live = not files.try_lock(descriptor, fcntl.LOCK_SH)
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # at once: an upload may be starting
        entries = parse(read_bytes(descriptor))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return JournalContents(key, directory, is_live, entries, state_of(entries))


def read_all(state_dir: Path) -> Iterator[JournalContents]:
    """Read all journals of a state directory that can be read, in the order of their keys."""
    for key in keys(state_dir):
        if found := read(state_dir, key):
            yield found


def read_open(state_dir: Path) -> Iterator[JournalContents]:
    """Read those journals whose last try had no end or left something, without a look into all the others.

    They have target data, and files of their platform, which `UploadJournal.tidy` removes.
    """
    for key in keys(state_dir):
        if other_files(state_dir / key) and (found := read(state_dir, key)) and found.state.is_open:
            yield found


def prune(state_dir: Path, *, before: float, kept_jobs: Set[str]) -> list[str]:
    """Remove the journals of uploads that are over and left nothing.

    Args:
        state_dir: Where they are.
        before: Only those last written before this time, in seconds since the epoch.
        kept_jobs: Not those whose last try was for one of these jobs.

    Returns:
        The keys of those that were removed.

    Raises:
        LocalIOError: One can't be removed.
    """
    removed = []
    for key in keys(state_dir):
        try:
            if (state_dir / key / FILE_NAME).stat().st_mtime < before and _remove_closed(state_dir / key, kept_jobs):
                removed.append(key)
        except FileNotFoundError:
            continue  # it is just being made
        except OSError as exc:
            raise LocalIOError(f"the journal {state_dir / key} can't be removed: {exc.strerror}") from exc
    return removed


def forget(state_dir: Path, *, before: float) -> None:
    """Remove what the journals of uploads that are over keep for another try; what can't be removed stays.

    Args:
        state_dir: Where they are.
        before: Only of those last written before this time, in seconds since the epoch.
    """
    for key in keys(state_dir):
        directory = state_dir / key
        with contextlib.suppress(OSError):
            if other_files(directory) and (directory / FILE_NAME).stat().st_mtime < before:
                with _closed(directory) as state:
                    if state is not None:
                        _remove_others(directory)


@contextlib.contextmanager
def _closed(directory: Path) -> Iterator[JournalState | None]:
    """Lock a journal, and give its state; None if its upload lives, or it is open."""
    with privileges.as_owner(directory):
        descriptor = files.open_regular(directory / FILE_NAME, os.O_RDONLY)
        try:
            state = state_of(parse(read_bytes(descriptor))) if files.try_lock(descriptor) else None
            yield None if state is None or state.is_open else state
        finally:
            os.close(descriptor)


def _remove_others(directory: Path) -> None:
    for path in other_files(directory):
        files.remove_tree(path)


def _remove_closed(directory: Path, kept_jobs: Set[str]) -> bool:
    """Remove one journal under its lock, unless it is needed; return whether it was removed."""
    with _closed(directory) as state:
        if state is None or (state.began or {}).get("job") in kept_jobs:
            return False
        _remove_others(directory)
        (directory / FILE_NAME).unlink()  # the last: as long as it is there, the next look finds the rest
        directory.rmdir()
    return True
