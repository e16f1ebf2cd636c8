"""The job's log: what a platform tells, written for people, and read back by `inspect` and `kill`.

Plain text, one line at a time, append only: OBS keeps a lock on the file, renames it when the job
is archived, and serves it as bytes.
"""

import contextlib
import errno
import re
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import clouduploader
from clouduploader.plugin import (
    BytesMoved,
    CloudObject,
    Event,
    ImageFound,
    ObjectCreated,
    ObjectRemoved,
    PhaseStarted,
)
from clouduploader.util import masking
from clouduploader.util.frozen import frozen

MAX_UNWRITTEN_BYTES = 1 << 20  # kept for a full disk; the logs of most uploads are smaller
PASSING_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # a full disk, or one read-only after a fault, may be mended
# These are compiled, and kept, by `re` when a log is first read: an upload writes one only.
_TIME = r"^(?:[0-9]{2}:[0-9]{2}:[0-9]{2} )?"
_JOURNAL = rf"{_TIME}Journal: (?P<key>[0-9a-f]{{32}})$"
_PHASE = rf"{_TIME}Phase: (?P<phase>.+)$"
_THING = r"(?P<kind>[a-z][a-z ]*?) (?:'(?P<quoted>.+)'|(?P<id>\S+))(?: in (?P<region>\S+))?"
_CREATED = rf"{_TIME}Created {_THING}\.$"
_REMOVED = rf"{_TIME}Removed {_THING}\.$"
_FOUND = rf"{_TIME}There is {_THING}\.$"


@frozen()
class LogReading:
    """What a job's log says about the job.

    Attributes:
        phase: The last phase that began, or None.
        objects: What was made in the cloud and, as far as the log tells, not removed again.
        journal_key: Of the upload's journal, or None.
        found: What was asked for and, in part at least, there already.
    """

    phase: str | None
    objects: tuple[CloudObject, ...]
    journal_key: str | None = None
    found: tuple[CloudObject, ...] = ()


class Sink(Protocol):
    """A binary stream; only `write` is used."""

    def write(self, data: bytes, /) -> object:
        """Write the bytes at once, unbuffered; a number that is returned is how many were written."""


class _Stream:
    """One stream of a log, and what did not fit on its disk yet."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._unwritten = b""

    def write(self, data: bytes) -> bool:
        """Write a line, after those that there was no room for; False if the stream has failed for good."""
        self._unwritten = (self._unwritten + data)[-MAX_UNWRITTEN_BYTES:]
        try:
            while self._unwritten:
                count = self._sink.write(self._unwritten)
                self._unwritten = self._unwritten[count:] if isinstance(count, int) else b""
        except OSError as exc:
            return exc.errno in PASSING_ERRNOS
        return True


class JobLog:
    """A `Reporter` that writes to one or more streams. Safe to use from several threads.

    What does not fit on a full disk comes with the first line that does. A stream that fails otherwise (reader
    gone) is left out from then on: an upload does not end because its log can't be read.

    Args:
        sinks: Unbuffered binary streams.
        is_verbose: Whether `detail` lines are written too.
        has_times: Whether each line begins with the time of day, in UTC.
    """

    def __init__(self, sinks: Sequence[Sink], *, is_verbose: bool, has_times: bool = False) -> None:
        self._streams = [_Stream(sink) for sink in sinks]
        self._is_verbose = is_verbose
        self._has_times = has_times
        self._listeners: list[Callable[[Event], None]] = []
        self._secrets: list[str] = []
        self._lock = threading.Lock()

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call this with every event from now on, in the thread that reports it."""
        self._listeners.append(listener)

    @contextlib.contextmanager
    def listening(self, listener: Callable[[Event], None]) -> Iterator[None]:
        """Call this with every event, inside the block."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def line(self, text: str) -> None:
        """Write a line: secrets masked, control characters escaped."""
        moment = time.strftime("%H:%M:%S ", time.gmtime()) if self._has_times else ""
        data = f"{moment}{self.masked(text)}\n".encode("utf-8", "backslashreplace")
        with self._lock:
            self._streams = [stream for stream in self._streams if stream.write(data)]

    def detail(self, text: str) -> None:
        """Write a line if the log is verbose."""
        if self._is_verbose:
            self.line(text)

    def event(self, event: Event) -> None:
        """Tell the listeners, and write what people want to know of it."""
        match event:
            case ImageFound(image):
                self.line(f"Start uploading image {image.filename}.")
            case PhaseStarted(phase):
                self.line(f"Phase: {phase}")
            case ObjectCreated(thing):
                self.line(f"Created {describe(thing)}.")
            case ObjectRemoved(thing):
                self.line(f"Removed {describe(thing)}.")
            case BytesMoved():
                pass
        for listener in self._listeners:
            listener(event)

    def hide(self, secret: str) -> None:
        """Mask this string from now on, also where the process ends; the empty string is nothing to hide."""
        masking.hide(secret)
        if secret:
            with self._lock:
                self._secrets.append(secret)

    def masked(self, text: str) -> str:
        """Return the text as one line that may be shown: no secrets, no control characters."""
        return _shown(masking.without(text.rstrip(), self._secrets))


def tell_beginning(log: JobLog, *, user: str, target: str) -> None:
    """Write to a log which program works on the job, whose it is, and which day it is."""
    today = time.strftime("%Y-%m-%d", time.gmtime())
    log.line(f"clouduploader {clouduploader.__version__} on {today}, times in UTC: user {user}, target {target}")


def tell_journal(log: JobLog, key: str) -> None:
    """Write to a log which journal the upload has."""
    log.line(f"Journal: {key}")


def tell_found(log: JobLog, objects: Iterable[CloudObject]) -> None:
    """Write to a log what there is in the cloud, where an earlier upload had made it or a part of it."""
    for thing in objects:
        log.line(f"There is {describe(thing)}.")


def one_line(text: str) -> str:
    """Return the text without line ends, control characters and lone surrogates, whatever it was.

    OBS puts such text into XML unchecked, where one of these makes the job vanish for ever.
    """
    return _shown(text.strip())


def _shown(text: str) -> str:
    return "".join(map(_printable, text))


def _printable(char: str) -> str:
    if char == "\t":
        return " "
    if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or char in "\ufffe\uffff":
        return char.encode("unicode_escape").decode("ascii")
    return char


def describe(thing: CloudObject) -> str:
    """Return a cloud object in words: kind, id (in quotes if there are blanks in it) and region."""
    shown = f"'{thing.id}'" if " " in thing.id else thing.id or "of unknown id"
    return f"{thing.kind} {shown}" + (f" in {thing.region}" if thing.region else "")


def read(lines: Iterable[str]) -> LogReading:
    """Read back what `JobLog.event` wrote. Never raises; lines of others are passed over."""
    phase = None
    journal_key = None
    objects: dict[CloudObject, None] = {}
    there: dict[CloudObject, None] = {}
    for line in lines:
        text = line.rstrip("\n")
        if found := re.match(_PHASE, text):
            phase = found["phase"]
        elif found := re.match(_JOURNAL, text):
            journal_key = found["key"]
        elif found := re.match(_CREATED, text):
            objects[_object(found)] = None
        elif found := re.match(_REMOVED, text):
            with contextlib.suppress(KeyError):
                del objects[_object(found)]
        elif found := re.match(_FOUND, text):
            there[_object(found)] = None
    return LogReading(phase=phase, objects=tuple(objects), journal_key=journal_key, found=tuple(there))


def _object(found: re.Match[str]) -> CloudObject:
    return CloudObject(found["kind"], found["quoted"] or found["id"], found["region"] or "")
