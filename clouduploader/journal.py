"""What uploads wrote down for the time after a crash: which things they asked the cloud for, and got.

    STATE/KEY/            0700, one for each upload, whatever number of tries it takes
        journal           one JSON object a line; locked (flock) as long as the upload lives
        targetdata        0600: the target data as they came, encrypted or not, while something may be left
        platform/         the platform's own files, while something may be left

Each line of `journal` is on the disk before what it tells of is done. The last one may be torn by a crash: then
nothing came of it, and the next try cuts it off. Whatever else is no entry is passed over by all readers.

Entries have `what` and `time` (UTC, ISO 8601), and by `what`:

* `begin`: a try began: `job` (or null), `user`, `target`, `filename`, `image` and `work_dir` (paths), `by_hand`,
  `pid`
* `asked`: the cloud is about to be asked for something: `kind`, `region`, and what the platform adds
* `refused`: the oldest `asked` of that `kind` and `region` came to nothing
* `made`, `removed`: `kind`, `id`, `region`; `made` also answers the oldest `asked` of that kind and region
* `end`: the try is over: `outcome` (`succeeded`, `failed`, `stopped`, or `cleaned` by `clouduploader cleanup`),
  `result` (or null), `objects` and `shortfalls` (of a success)

and whatever the platform writes for itself.
"""

import contextlib
import dataclasses
import datetime
import enum
import errno
import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clouduploader.errors import CannotCreateError, LocalIOError, LockedError
from clouduploader.platform import CloudObject, Event, JsonValue, ObjectCreated, ObjectRemoved, UploadResult

FILE_NAME = "journal"
TARGETDATA_NAME = "targetdata"
PLATFORM_NAME = "platform"
KEY_DIGITS = 32  # 128 bits: no two uploads meet by chance, and two keys fit into a client token of 64 characters
KEY_FORM = "clouduploader 1"  # part of what is hashed; another form of key must not meet this one
LOCK_SECONDS = 2.0  # a reader who asks whether the upload lives has the lock for an instant
PAUSE_SECONDS = 0.05
MAX_READ_BYTES = 1 << 26  # an upload by ec2uploadimg writes some 20 KB; ten regions and a hundred tries stay below

Entry = Mapping[str, JsonValue]


class Outcome(enum.StrEnum):
    """How a try ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    CLEANED = "cleaned"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beginning:
    """Whose upload it is, and of what.

    Attributes:
        job: The id in the spool, or None.
        user: Anything.
        target: Names the platform.
        filename: The image's real name.
        image_path: Where the image was.
        is_by_hand: Whether a person started it for himself.
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
    """The key that all tries of the same upload have in common.

    Args:
        target: Names the platform.
        user: Anything.
        filename: The image's real name.
        values: The target data, checked and decrypted, but for fields that are secret: the key is shown to all
            who see a tag, so that it must not help to guess a password. Keys that the platform does not know
            (OBS's `user_id`) are not among them.

    Returns:
        32 hexadecimal digits: the first of the SHA-256 of the JSON array of all that, in ASCII, without blanks, keys
        sorted.
    """
    text = json.dumps([KEY_FORM, target, user, filename, values], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:KEY_DIGITS]


@dataclasses.dataclass(frozen=True)
class State:
    """What a journal's entries come to.

    Attributes:
        began: The last `begin`, or None.
        end: The `end` of the last try, or None if it has none.
        objects: Made, not removed, and no result, with their entries.
        asked: Asked for by tries that did not succeed, and nobody knows what came of it.
        delivered: The results of tries that succeeded.
        open_from: The index of the first entry that later tries must know.
    """

    began: Entry | None
    end: Entry | None
    objects: Mapping[CloudObject, Entry]
    asked: tuple[Entry, ...]
    delivered: frozenset[CloudObject]
    open_from: int

    @property
    def has_leftovers(self) -> bool:
        """Whether something may be left in the cloud."""
        return bool(self.objects or self.asked)

    @property
    def is_open(self) -> bool:
        """Whether the last try had no end, or one that left something."""
        return self.began is not None and (self.end is None or self.has_leftovers)


def state_of(entries: Iterable[Entry]) -> State:
    """Sum up entries, the oldest first."""
    began: Entry | None = None
    end: Entry | None = None
    objects: dict[CloudObject, Entry] = {}
    asked: list[Entry] = []
    delivered: set[CloudObject] = set()
    open_from = 0
    for index, entry in enumerate(entries):
        match entry["what"]:
            case "begin":
                began, end = entry, None
            case "asked":
                asked.append(entry)
            case "refused":
                _answer(asked, entry)
            case "made":
                _answer(asked, entry)
                objects[object_of(entry)] = entry
            case "removed":
                objects.pop(object_of(entry), None)
            case "end":
                end = entry
                delivered.update(results_of(entry))
                has_succeeded = entry.get("outcome") == Outcome.SUCCEEDED
                if has_succeeded:  # what it made and neither gave nor removed is left
                    objects, asked = {thing: made for thing, made in objects.items() if thing not in delivered}, []
                elif entry.get("outcome") == Outcome.CLEANED:
                    objects, asked = {}, []
                if not (objects or asked or (has_succeeded and entry.get("shortfalls"))):
                    open_from = index + 1
    return State(began, end, objects, tuple(asked), frozenset(delivered), open_from)


def _answer(asked: list[Entry], entry: Entry) -> None:
    for index, question in enumerate(asked):
        if (question.get("kind"), question.get("region")) == (entry.get("kind"), entry.get("region")):
            del asked[index]
            return


def object_of(entry: Entry) -> CloudObject:
    """The thing that an entry `made` or `removed` is about."""
    return CloudObject(str(entry.get("kind")), str(entry.get("id")), str(entry.get("region") or ""))


def results_of(end: Entry) -> list[CloudObject]:
    """The things that an `end` gave."""
    objects = end.get("objects")
    return [object_of(item) for item in objects if isinstance(item, dict)] if isinstance(objects, list) else []


@dataclasses.dataclass(frozen=True)
class Reading:
    """A journal as it was found.

    Attributes:
        key: See `key_of`.
        directory: Where it lies.
        is_live: Whether somebody has it locked: an upload, or a clean-up.
        entries: All, the oldest first.
        state: What they come to.
    """

    key: str
    directory: Path
    is_live: bool
    entries: tuple[Entry, ...]
    state: State

    @property
    def changed(self) -> datetime.datetime | None:
        """When the last entry was written."""
        return time_of(self.entries[-1]) if self.entries else None

    def targetdata(self) -> bytes | None:
        """The target data as they came, or None if they are gone or can't be read."""
        try:
            return (self.directory / TARGETDATA_NAME).read_bytes()
        except OSError:
            return None


def time_of(entry: Entry) -> datetime.datetime | None:
    """When an entry was written; None if it does not tell."""
    try:
        found = datetime.datetime.fromisoformat(str(entry.get("time")))
    except ValueError:
        return None
    return found if found.tzinfo else None


def read(state_dir: Path, key: str) -> Reading | None:
    """Read one journal; None if there is none, or it is not for us to read."""
    directory = state_dir / key
    path = directory / FILE_NAME
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        is_live = not _try_lock(descriptor, fcntl.LOCK_SH)
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # at once: an upload may be starting
        entries = parse(_read_all(descriptor))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return Reading(key, directory, is_live, entries, state_of(entries))


def read_all(state_dir: Path) -> Iterator[Reading]:
    """Read all journals of a state directory that can be read, in the order of their keys."""
    try:
        names = sorted(path.name for path in state_dir.iterdir())
    except OSError:
        return
    for name in names:
        if is_key(name) and (found := read(state_dir, name)):
            yield found


def is_key(text: str) -> bool:
    """Whether a text is what `key_of` gives."""
    return len(text) == KEY_DIGITS and not set(text) - set("0123456789abcdef")


def parse(data: bytes) -> tuple[Entry, ...]:
    """The entries in the bytes of a journal; what is none is passed over, whatever it is."""
    return tuple(entry for line in data.split(b"\n")[:-1] if (entry := _parse_line(line)))


def _parse_line(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):  # no JSON, no UTF-8, a number of 5000 digits; nested without end
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("what"), str) else None


class Journal:
    """A `platform.Journal`, locked for us. Safe to use from several threads.

    Args:
        directory: Of this upload.
        descriptor: Of the locked file; closed by whoever opened it.
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
        """See `platform.Journal`."""
        with self._lock:
            return tuple(self._entries[state_of(self._entries).open_from :])

    def state(self) -> State:
        """What all entries come to."""
        with self._lock:
            return state_of(self._entries)

    def write(self, what: str, **values: JsonValue) -> None:
        """See `platform.Journal`."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        entry: dict[str, JsonValue] = {"what": what, "time": now, **values}
        line = json.dumps(entry).encode("ascii") + b"\n"
        with self._lock:
            try:
                _write_all(self._descriptor, line)
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

    def begin(self, beginning: Beginning, targetdata: bytes) -> None:
        """Begin a try: keep its target data, and say whose it is.

        Raises:
            LocalIOError: It can't be written.
        """
        try:
            _replace(self._home / TARGETDATA_NAME, targetdata)
            _make_directory(self.directory)
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

    def end(self, outcome: Outcome, result: UploadResult | None = None) -> None:
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
        """Remove target data and the platform's files, unless something may be left in the cloud."""
        if self.state().is_open:
            return
        with contextlib.suppress(FileNotFoundError):
            (self._home / TARGETDATA_NAME).unlink()
        shutil.rmtree(self.directory, ignore_errors=True)


def fields_of(thing: CloudObject) -> Mapping[str, JsonValue]:
    """A thing as entries have it."""
    return {"kind": thing.kind, "id": thing.id, "region": thing.region}


@contextlib.contextmanager
def open_journal(state_dir: Path, key: str) -> Iterator[Journal]:
    """Open a journal, or make it, and lock it; the lock ends with the context, or with the process.

    Args:
        state_dir: Made if it is missing, as its parent's owner's if we are root.
        key: See `key_of`.

    Raises:
        LockedError: An upload with this key lives, or is being cleaned up.
        CannotCreateError: It can't be made, or is not ours to write.
    """
    directory = state_dir / key
    path = directory / FILE_NAME
    try:
        _make_directory(state_dir)
        _make_directory(directory)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _give_away(descriptor, directory)
            _sync(directory)
            deadline = time.monotonic() + LOCK_SECONDS
            while not _try_lock(descriptor, fcntl.LOCK_EX):
                if time.monotonic() >= deadline:
                    raise _locked(parse(_read_all(descriptor)), key)
                time.sleep(PAUSE_SECONDS)
            opened = Journal(directory, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as exc:
        raise CannotCreateError(f"the journal {path} can't be written: {exc.strerror}") from exc
    try:
        yield opened
    finally:
        os.close(descriptor)


def _locked(entries: Sequence[Entry], key: str) -> LockedError:
    began = state_of(entries).began or {}
    job, pid = began.get("job"), began.get("pid")
    name = f"the job {job}" if job else f"process {pid}"
    return LockedError(
        f"the same upload is under way already, or is being cleaned up: {name} (journal {key})",
        hint="Wait for its end, or kill it.",
    )


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _give_away(descriptor, path.parent)
    finally:
        os.close(descriptor)
    _sync(path.parent)


def _give_away(descriptor: int, parent: Path) -> None:
    """If we are root, let who owns a directory own what is made in it: OBS's jobs do not run as root."""
    if os.geteuid() == 0:
        status = parent.stat()
        os.fchown(descriptor, status.st_uid, status.st_gid)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno != errno.EWOULDBLOCK:
            raise
        return False
    return True


def _read_all(descriptor: int) -> bytes:
    size_bytes = min(os.fstat(descriptor).st_size, MAX_READ_BYTES)
    data = bytearray()
    while len(data) < size_bytes and (piece := os.pread(descriptor, size_bytes - len(data), len(data))):
        data += piece
    return bytes(data)


def _write_all(descriptor: int, data: bytes) -> None:
    view: Any = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _replace(path: Path, data: bytes) -> None:
    """Write a file beside its place, and move it there: whole or not at all, for nobody else to read."""
    temporary = path.with_name(f".{path.name}")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()  # of a try that was killed here
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _give_away(descriptor, path.parent)
        _write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    _sync(path.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
