"""Journals of uploads, for the time after a crash: which objects they asked the cloud for, and got.

    STATE/KEY/            0700, one for each upload, whatever number of tries it takes
        journal           one JSON object a line; locked (flock) as long as the upload lives
        targetdata        0600: the target data as they came, encrypted or not, while something may be left; of an
                          upload by hand also after a failure, so that it can be run again
        platform/         the platform's own files, while something may be left

Each line of `journal` is on the disk before what it tells of is done. The last one may be torn by a crash: then
nothing came of it, and the next try cuts it off. Whatever else is no entry is passed over by all readers.

Entries have `what` and `time` (UTC, ISO 8601), and by `what`:

* `begin`: a try began: `job` (or null), `user`, `target`, `filename`, `image` and `work_dir` (paths), `by_hand`,
  `pid`
* `asked`: the cloud is about to be asked for something: `kind`, `region`, and what the platform adds; with a `token`
  it takes the place of an earlier one of that token, of which the cloud makes one thing only
* `refused`: the oldest `asked` of that `kind` and `region` came to nothing
* `made`, `removed`: `kind`, `id`, `region`; `made` also answers the oldest `asked` of that kind and region
* `kept`: `kind`, `id`, `region`: of what a failed try left on purpose, because its target data ask for that
* `end`: the try is over: `outcome` (`succeeded`, `failed`, `stopped`, or `cleaned` by `clouduploader cleanup`),
  `result` (or null), `objects` and `shortfalls` (of a success)

and whatever the platform writes for itself.
"""

import contextlib
import datetime
import enum
import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path

from clouduploader.errors import CannotCreateError, LocalIOError, LockedError
from clouduploader.plugin import CloudObject, Event, JsonValue, ObjectCreated, ObjectRemoved, UploadResult, visibility
from clouduploader.util import files, privileges
from clouduploader.util.frozen import frozen

FILE_NAME = "journal"
TARGETDATA_NAME = "targetdata"
PLATFORM_NAME = "platform"
KEY_DIGITS = 32  # 128 bits: no two uploads meet by chance, and two keys fit into a client token of 64 characters
KEY_FORM = "clouduploader 1"  # part of what is hashed; another form of key must not meet this one
LOCK_SECONDS = 2.0  # a reader has the lock for an instant, to see whether the upload lives
PAUSE_SECONDS = 0.05
MAX_READ_BYTES = 1 << 26  # an upload by ec2uploadimg writes some 20 KB; ten regions and a hundred tries stay below

Entry = Mapping[str, JsonValue]


class AttemptOutcome(enum.StrEnum):
    """How a try ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    CLEANED = "cleaned"


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


def key_of(*, target: str, user: str, filename: str, values: Mapping[str, JsonValue]) -> str:
    """Make the key that all attempts of the same upload have in common.

    Args:
        target: Names the platform.
        user: Anything.
        filename: The image's real name.
        values: The target data, checked and decrypted, but for fields that are secret: the key is shown to all
            users who see a tag, so that it must not help to guess a password. Keys that the platform does not know
            (OBS's `user_id`) are not among them.

    Returns:
        32 hexadecimal digits: the first of the SHA-256 of the JSON array of all that, in ASCII, without blanks, keys
        sorted.
    """
    text = json.dumps([KEY_FORM, target, user, filename, values], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:KEY_DIGITS]


@frozen()
class JournalState:
    """What a journal's entries come to.

    Attributes:
        began: The last `begin`, or None.
        end: The `end` of the last try, or None if it has none.
        objects: Made, not removed, and no result, with their entries.
        asked: Asked for, and not known what came of it.
        delivered: The results of tries that succeeded.
        kept: What the last try left on purpose.
        open_from: The index of the first entry that later tries must know.
    """

    began: Entry | None
    end: Entry | None
    objects: Mapping[CloudObject, Entry]
    asked: tuple[Entry, ...]
    delivered: frozenset[CloudObject]
    kept: frozenset[CloudObject]
    open_from: int

    @property
    def has_leftovers(self) -> bool:
        """Whether something may be left in the cloud."""
        return bool(self.objects or self.asked)

    @property
    def is_open(self) -> bool:
        """Whether the last try had no end, or one that left something."""
        return self.began is not None and (self.end is None or self.has_leftovers)


def state_of(entries: Iterable[Entry]) -> JournalState:
    """Sum up entries, the oldest first."""
    began: Entry | None = None
    end: Entry | None = None
    objects: dict[CloudObject, Entry] = {}
    asked: list[Entry] = []
    delivered: set[CloudObject] = set()
    kept: set[CloudObject] = set()
    open_from = 0
    for index, entry in enumerate(entries):
        match entry["what"]:
            case "begin":
                began, end, kept = entry, None, set()
            case "asked":
                asked = [question for question in asked if not _is_repeated(question, entry)]
                asked.append(entry)
            case "refused":
                _answer(asked, entry)
            case "made":
                _answer(asked, entry)
                objects[object_of(entry)] = entry
            case "removed":
                objects.pop(object_of(entry), None)
            case "kept":
                kept.add(object_of(entry))
            case "end":
                end = entry
                found_again = [thing for thing in results_of(entry) if thing not in objects and thing not in delivered]
                for thing in found_again:  # the answer to its making was lost
                    _answer(asked, fields_of(thing))
                delivered.update(results_of(entry))
                has_succeeded = entry.get("outcome") == AttemptOutcome.SUCCEEDED
                if has_succeeded:  # what it made and neither gave nor removed is left
                    objects = {thing: made for thing, made in objects.items() if thing not in delivered}
                elif entry.get("outcome") == AttemptOutcome.CLEANED:
                    objects, asked = {}, []
                if not (objects or asked or (has_succeeded and entry.get("shortfalls"))):
                    open_from = index + 1
    return JournalState(began, end, objects, tuple(asked), frozenset(delivered), frozenset(kept), open_from)


def _is_repeated(question: Entry, entry: Entry) -> bool:
    """Tell whether two requests ask for the same thing, which is made once, whichever of them arrives."""
    same = all(question.get(name) == entry.get(name) for name in ("kind", "region", "token"))
    return same and bool(entry.get("token"))


def _answer(asked: list[Entry], entry: Entry) -> None:
    for index, question in enumerate(asked):
        if (question.get("kind"), question.get("region")) == (entry.get("kind"), entry.get("region")):
            del asked[index]
            return


def object_of(entry: Entry) -> CloudObject:
    """Return the object that an entry `made` or `removed` is about."""
    return CloudObject(str(entry.get("kind")), str(entry.get("id")), str(entry.get("region") or ""))


def results_of(end: Entry) -> list[CloudObject]:
    """Return the objects that an `end` gave."""
    objects = end.get("objects")
    return [object_of(item) for item in objects if isinstance(item, dict)] if isinstance(objects, list) else []


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
        entries = parse(_read_all(descriptor))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return JournalContents(key, directory, is_live, entries, state_of(entries))


def read_all(state_dir: Path) -> Iterator[JournalContents]:
    """Read all journals of a state directory that can be read, in the order of their keys."""
    for key in _keys(state_dir):
        if found := read(state_dir, key):
            yield found


def read_open(state_dir: Path) -> Iterator[JournalContents]:
    """Read those journals whose last try had no end or left something, without a look into all the others.

    They have target data, and files of their platform, which `UploadJournal.tidy` removes.
    """
    for key in _keys(state_dir):
        if _rest(state_dir / key) and (found := read(state_dir, key)) and found.state.is_open:
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
    for key in _keys(state_dir):
        try:
            if (state_dir / key / FILE_NAME).stat().st_mtime < before and _remove_closed(state_dir / key, kept_jobs):
                removed.append(key)
        except FileNotFoundError:
            continue  # it is just being made
        except OSError as exc:
            raise LocalIOError(f"the journal {state_dir / key} can't be removed: {exc.strerror}") from exc
    return removed


def _remove_closed(directory: Path, kept_jobs: Set[str]) -> bool:
    """Remove one journal under its lock, unless it is needed; return whether it was removed."""
    with privileges.as_owner(directory):
        descriptor = files.open_regular(directory / FILE_NAME, os.O_RDONLY)
        try:
            if not files.try_lock(descriptor):
                return False
            state = state_of(parse(_read_all(descriptor)))
            if state.is_open or (state.began or {}).get("job") in kept_jobs:
                return False
            for path in _rest(directory):
                files.remove_tree(path)
            (directory / FILE_NAME).unlink()  # the last: as long as it is there, the next look finds the rest
            directory.rmdir()
        finally:
            os.close(descriptor)
    return True


def _rest(directory: Path) -> list[Path]:
    """Return what there is of a journal besides its entries; nothing that we may not see."""
    try:
        return [path for path in directory.iterdir() if path.name != FILE_NAME]
    except OSError:
        return []


def _keys(state_dir: Path) -> list[str]:
    try:
        return sorted(path.name for path in state_dir.iterdir() if is_key(path.name))
    except OSError:
        return []


def is_key(text: str) -> bool:
    """Tell whether a text is what `key_of` gives."""
    return len(text) == KEY_DIGITS and not set(text) - set("0123456789abcdef")


def parse(data: bytes) -> tuple[Entry, ...]:
    """Return the entries in the bytes of a journal; what is none is passed over, whatever it is."""
    return tuple(entry for line in data.split(b"\n")[:-1] if (entry := _parse_line(line)))


def _parse_line(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):  # no JSON, no UTF-8, a number of 5000 digits; nested without end
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("what"), str) else None


class UploadJournal:
    """A `Journal` of the plugin API, locked for this process. Safe to use from several threads.

    Args:
        directory: Of this upload.
        descriptor: Of the locked file; the caller closes it.
    """

    def __init__(self, directory: Path, descriptor: int) -> None:
        self.key = directory.name
        self.directory = directory / PLATFORM_NAME
        self._home = directory
        self._descriptor = descriptor
        self._lock = threading.Lock()
        data = _read_all(descriptor)
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

    def begin(self, beginning: UploadStart, targetdata: bytes) -> None:
        """Begin a try: keep its target data, and say whose it is.

        Raises:
            LocalIOError: It can't be written.
        """
        try:
            with privileges.as_owner(self._home):
                files.replace_file(self._home / TARGETDATA_NAME, targetdata, mode=files.PRIVATE_MODE)
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
        """Remove target data and the platform's files, unless they may be needed.

        Where the disk does not let us, they stay until the next try, or until the journal goes.
        """
        state = self.state()
        if state.is_open:
            return
        outcome = (state.end or {}).get("outcome")
        is_repeatable = bool((state.began or {}).get("by_hand")) and outcome != AttemptOutcome.SUCCEEDED
        with privileges.as_owner(self._home), contextlib.suppress(OSError):
            for path in _rest(self._home):
                if not (is_repeatable and path.name == TARGETDATA_NAME):
                    files.remove_tree(path)


def fields_of(thing: CloudObject) -> Mapping[str, JsonValue]:
    """Return an object as entries have it."""
    return {"kind": thing.kind, "id": thing.id, "region": thing.region}


@contextlib.contextmanager
def open_journal(state_dir: Path, key: str) -> Iterator[UploadJournal]:
    """Open a journal, or make it, and lock it; the lock ends with the context, or with the process.

    Args:
        state_dir: Made if it is missing.
        key: See `key_of`.

    Raises:
        LockedError: An upload with this key lives, or is being cleaned up.
        CannotCreateError: It can't be made, or is not ours to write.
    """
    path = state_dir / key / FILE_NAME
    try:
        descriptor = _open_locked(state_dir, key)
        try:
            opened = UploadJournal(state_dir / key, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as exc:
        raise CannotCreateError(f"the journal {path} can't be written: {exc.strerror}") from exc
    try:
        yield opened
    finally:
        os.close(descriptor)


def _open_locked(state_dir: Path, key: str) -> int:
    """Open the file of a journal, made if it is not there, and lock it."""
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
                    raise _locked(parse(_read_all(descriptor)), key)
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


def _read_all(descriptor: int) -> bytes:
    size_bytes = min(os.fstat(descriptor).st_size, MAX_READ_BYTES)
    data = bytearray()
    while len(data) < size_bytes and (piece := os.pread(descriptor, size_bytes - len(data), len(data))):
        data += piece
    return bytes(data)
