"""Write the journal of one upload, locked as long as the upload lives."""

import contextlib
import datetime
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from clouduploader.errors import CannotCreateError, LocalIOError, LockedError
from clouduploader.plugin import Event, JsonValue, ObjectCreated, ObjectRemoved, UploadResult
from clouduploader.store.journal.directory import FILE_NAME, PLATFORM_NAME, keep_targetdata, read_bytes, tidy
from clouduploader.store.journal.entries import AttemptOutcome, Entry, JournalState, fields_of, parse, state_of
from clouduploader.store.journal.witness import Witness
from clouduploader.util import files, privileges
from clouduploader.util.frozen import frozen

LOCK_SECONDS = 2.0  # a reader has the lock for an instant, to see whether the upload lives
PAUSE_SECONDS = 0.05


@frozen(kw_only=True)
class UploadStart:
    """What the first entry of an attempt tells.

    Attributes:
        job: The id in the spool, or None.
        user: Any text.
        target: Names the platform.
        filename: The image's real name.
        image_path: Where the image was.
        is_by_hand: Whether a person started it from the command line.
        work_dir: The try's private directory.
    """

    job: str | None
    user: str
    target: str
    filename: str
    image_path: Path
    is_by_hand: bool
    work_dir: Path


class UploadJournal:
    """A `Journal` of the plugin API, locked for this process. Safe to use from several threads.

    Args:
        directory: Of this upload.
        descriptor: Of the locked file; the caller closes it.
        witness: Confirms each entry; None for none.
    """

    def __init__(self, directory: Path, descriptor: int, witness: Witness | None = None) -> None:
        self.key = directory.name
        self.has_successor = witness is not None
        self.directory = directory / PLATFORM_NAME
        self._home = directory
        self._descriptor = descriptor
        self._witness = witness
        self._lock = threading.Lock()
        data = read_bytes(descriptor)
        self._size_bytes = data.rfind(b"\n") + 1
        if self._size_bytes != len(data):
            os.ftruncate(descriptor, self._size_bytes)
        self._entries = list(parse(data))

    def entries(self) -> Sequence[Entry]:
        """See `Journal`."""
        with self._lock:
            return tuple(self._entries[state_of(self._entries).open_from :])

    def state(self) -> JournalState:
        """Return what all entries come to."""
        with self._lock:
            return state_of(self._entries)

    def write(self, what: str, **values: JsonValue) -> None:
        """See `Journal`."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        entry: dict[str, JsonValue] = {"what": what, "time": now, **values}
        line = json.dumps(entry).encode("ascii") + b"\n"
        with self._lock:
            try:
                files.write_all(self._descriptor, line)
                os.fsync(self._descriptor)
            except OSError as exc:
                with contextlib.suppress(OSError):  # no torn line in front of the next one
                    os.ftruncate(self._descriptor, self._size_bytes)
                raise LocalIOError(f"the journal {self._home / FILE_NAME} can't be written: {exc.strerror}") from exc
            self._size_bytes += len(line)
            self._entries.append(entry)
        self.ensure_ours()

    def ensure_ours(self) -> None:
        """See `Journal`."""
        if self._witness:
            self._witness.wait()

    def take(self, event: Event) -> None:
        """Write down what was made or removed.

        Raises:
            LocalIOError: It can't be written.
        """
        match event:
            case ObjectCreated(thing):
                self.write("made", **fields_of(thing))
            case ObjectRemoved(thing):
                self.write("removed", **fields_of(thing))

    def begin(self, beginning: UploadStart, targetdata: bytes | None) -> None:
        """Begin a try: keep its target data, if they are to lie here, and say whose it is.

        Raises:
            LocalIOError: It can't be written.
        """
        try:
            if targetdata is not None:
                keep_targetdata(self._home, targetdata)
            with privileges.as_owner(self._home):
                files.make_directory(self.directory, mode=files.PRIVATE_DIRECTORY_MODE)
        except OSError as exc:
            raise LocalIOError(f"the journal {self._home} can't be written: {exc.strerror}") from exc
        self.write(
            "begin",
            job=beginning.job,
            user=beginning.user,
            target=beginning.target,
            filename=beginning.filename,
            image=str(beginning.image_path),
            by_hand=beginning.is_by_hand,
            work_dir=str(beginning.work_dir),
            pid=os.getpid(),
        )

    def end(self, outcome: AttemptOutcome, result: UploadResult | None = None) -> None:
        """End the try; where nothing can be left in the cloud, only the entries stay.

        Raises:
            LocalIOError: It can't be written.
        """
        values: dict[str, JsonValue] = {"outcome": str(outcome), "result": None}
        if result:
            values["result"] = result.id
            values["objects"] = [dict(fields_of(thing)) for thing in result.objects]
            values["shortfalls"] = [{"subject": item.subject, "reason": item.reason} for item in result.shortfalls]
        self.write("end", **values)
        self.tidy()

    def tidy(self) -> None:
        """Remove target data and the platform's files, unless they may be needed; see `directory.tidy`."""
        tidy(self._home, self.state())


@contextlib.contextmanager
def open_journal(state_dir: Path, key: str, witness: Witness | None = None) -> Iterator[UploadJournal]:
    """Open a journal, or make it, and lock it; the lock ends with the context, or with the process.

    Args:
        state_dir: Made if it is missing.
        key: See `key_of`.
        witness: Confirms each entry; None for none.

    Raises:
        LockedError: An upload with this key lives, or is being cleaned up.
        CannotCreateError: It can't be made, or is not ours to write.
    """
    descriptor = open_locked(state_dir, key)
    try:
        try:
            opened = UploadJournal(state_dir / key, descriptor, witness)
        except OSError as exc:
            raise CannotCreateError(
                f"the journal {state_dir / key / FILE_NAME} can't be written: {exc.strerror}"
            ) from exc
        yield opened
    finally:
        os.close(descriptor)


def open_locked(state_dir: Path, key: str) -> int:
    """Open the file of a journal, made if it is not there, and lock it. The caller closes the descriptor.

    Raises:
        LockedError: An upload with this key lives, or is being cleaned up.
        CannotCreateError: It can't be made, or is not ours to write.
    """
    try:
        return _open_locked(state_dir, key)
    except OSError as exc:
        raise CannotCreateError(f"the journal {state_dir / key / FILE_NAME} can't be written: {exc.strerror}") from exc


def _open_locked(state_dir: Path, key: str) -> int:
    directory = state_dir / key
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        with privileges.as_owner(state_dir):
            for made in (state_dir, directory):
                files.make_directory(made, mode=files.PRIVATE_DIRECTORY_MODE)
            try:
                descriptor = files.open_regular(directory / FILE_NAME, os.O_RDWR | os.O_APPEND, mode=files.PRIVATE_MODE)
            except FileNotFoundError:
                continue  # it was just pruned
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, descriptor)
            if not files.try_lock(descriptor):
                if time.monotonic() >= deadline:
                    raise _locked(parse(read_bytes(descriptor)), key)
            elif os.fstat(descriptor).st_nlink:  # else it was pruned before the lock was ours
                files.sync_directory(directory)
                stack.pop_all()
                return descriptor
        time.sleep(PAUSE_SECONDS)


def _locked(entries: Sequence[Entry], key: str) -> LockedError:
    began = state_of(entries).began or {}
    job, pid = began.get("job"), began.get("pid")
    name = f"the job {job}" if job else f"process {pid}"
    return LockedError(
        f"the same upload is under way already, or is being cleaned up: {name} (journal {key})",
        hint="Wait for its end, or kill it.",
    )
