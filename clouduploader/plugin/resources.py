"""What an upload asks a cloud for and gets: in the journal before it is asked for, and undone if the upload fails."""

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from clouduploader.errors import ClouduploaderError, PlatformReplyError, StoppedError, TransientError
from clouduploader.plugin import visibility
from clouduploader.plugin.events import ObjectCreated, ObjectRemoved, Reporter
from clouduploader.plugin.fields import JsonValue
from clouduploader.plugin.objects import CloudObject
from clouduploader.plugin.request import Journal
from clouduploader.util.clock import Clock


def is_refusal(exc: ClouduploaderError) -> bool:
    """Tell whether an error says that a request was refused, and that the cloud has made nothing."""
    return not isinstance(exc, TransientError | StoppedError)


class Resources:
    """The things that one try of an upload has made. Threads may share it.

    Each is in one of four states, and a later clean-up can tell them apart by the journal: *asked* (written before the
    request), *made* (the cloud gave an id), *refused* (the cloud said no), *unknown* (asked, without an answer: the
    cloud may have made it). `creating` writes them all; where a program makes the requests, and we learn of them, its
    parts `asked`, `made` and `refused` do.

    Args:
        journal: Where it is written; on disk before each step.
        reporter: Told what was made.
        clock: Tells how old things are.
    """

    def __init__(self, journal: Journal, reporter: Reporter, clock: Clock) -> None:
        self._journal = journal
        self._reporter = reporter
        self._clock = clock
        self._made_at: dict[CloudObject, float] = {}
        self._to_undo: dict[CloudObject, None] = {}
        self._unanswered: list[tuple[str, str, JsonValue]] = []  # kind, region, and token if there is one
        self._lock = threading.Lock()  # of `_unanswered`; what is done with the others is one step

    @contextlib.contextmanager
    def creating(
        self,
        kind: str,
        region: str,
        *,
        is_refused: Callable[[ClouduploaderError], bool] = is_refusal,
        **facts: JsonValue,
    ) -> Iterator[Callable[[str], CloudObject]]:
        """Surround a request that makes something.

        Args:
            kind: What is made, in the cloud's own word.
            region: Where; "" for a platform without regions.
            is_refused: Tells by an error of the request whether the cloud has certainly made nothing.
            **facts: What else a later try must know, for example a client token.

        Yields:
            What to call with the id of what was made, on the line after the request.

        Raises:
            PlatformReplyError: The request gave no id.
        """
        self.asked(kind, region, **facts)
        things: list[CloudObject] = []

        def created(thing_id: str) -> CloudObject:
            things.append(CloudObject(kind, thing_id, region))
            self.made(things[0])
            return things[0]

        try:
            yield created
        except ClouduploaderError as exc:
            if not things and is_refused(exc):
                self.refused(kind, region)
            raise
        if not things:
            raise PlatformReplyError(f"the cloud said that it made a {kind}, but gave no id of it")

    def asked(self, kind: str, region: str, **facts: JsonValue) -> None:
        """Write down that something is about to be asked for; see `creating`."""
        self._journal.write("asked", kind=kind, region=region, **facts)
        request = (kind, region, facts.get("token"))
        with self._lock:
            if request not in self._unanswered or not request[2]:  # the same token once more makes nothing more
                self._unanswered.append(request)

    def made(self, thing: CloudObject) -> None:
        """Note that something exists, and is to be undone if the upload fails."""
        self.adopt(thing)
        self._answer(thing.kind, thing.region)
        self._reporter.event(ObjectCreated(thing))  # the journal hears it too, as `made`

    def refused(self, kind: str, region: str) -> None:
        """Write down that the cloud has not made what was asked for last."""
        self._answer(kind, region)
        self._journal.write("refused", kind=kind, region=region)

    def removed(self, thing: CloudObject) -> None:
        """Note that something is gone that was not removed by `UploadContext.remove`."""
        self.keep(thing)
        self._reporter.event(ObjectRemoved(thing))  # the journal hears it too, as `removed`

    def unanswered(self, region: str) -> list[str]:
        """List the kinds of what was asked for in a region and may be there or not."""
        with self._lock:
            return [kind for kind, where, _token in self._unanswered if where == region]

    def adopt(self, thing: CloudObject) -> None:
        """Undo this too if the upload fails, without a word in the journal; made now, unless it is known when."""
        self._made_at.setdefault(thing, self._clock.monotonic())
        self._to_undo[thing] = None

    def keep(self, thing: CloudObject) -> None:
        """Leave something where it is, even if the upload fails: another try can use it."""
        self._to_undo.pop(thing, None)

    def to_undo(self) -> tuple[CloudObject, ...]:
        """List what a failed upload has to remove, the last made first."""
        return tuple(reversed(self._to_undo))

    def of_earlier_tries(self) -> list[CloudObject]:
        """List what earlier tries made and did not remove, by the journal."""
        now = self._clock.monotonic()
        found = unremoved(self._journal.entries())
        for thing, entry in found.items():
            age_seconds = visibility.UNSEEN_SECONDS - visibility.seconds_left(entry)
            self._made_at.setdefault(thing, now - age_seconds)
        return list(found)

    def age_seconds(self, thing: CloudObject) -> float:
        """Tell how old something is; infinitely, if neither this try nor the journal has made it."""
        return self._clock.monotonic() - self._made_at.get(thing, -math.inf)

    def _answer(self, kind: str, region: str) -> None:
        with self._lock:
            for index, request in enumerate(self._unanswered):
                if request[:2] == (kind, region):
                    del self._unanswered[index]
                    return


def unremoved(entries: Sequence[Mapping[str, JsonValue]]) -> dict[CloudObject, Mapping[str, JsonValue]]:
    """List what a journal's tries made and did not remove; each with the entry of its making."""
    found: dict[CloudObject, Mapping[str, JsonValue]] = {}
    for entry in entries:
        thing = _object(entry)
        match entry["what"]:
            case "made":
                found[thing] = entry
            case "removed":
                found.pop(thing, None)
            case "end" if isinstance(given := entry.get("objects"), list):  # of a success
                for item in given:
                    if isinstance(item, dict):
                        found.pop(_object(item), None)
    return found


def _object(entry: Mapping[str, JsonValue]) -> CloudObject:
    return CloudObject(*(str(entry.get(name) or "") for name in ("kind", "id", "region")))
