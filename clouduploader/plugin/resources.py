"""What an upload asks a cloud for and gets: in the journal before it is asked for, and undone if the upload fails."""

import contextlib
from collections.abc import Callable, Iterator

from clouduploader.errors import ClouduploaderError, PlatformReplyError, StoppedError, TransientError
from clouduploader.plugin.events import ObjectCreated, Reporter
from clouduploader.plugin.fields import JsonValue
from clouduploader.plugin.objects import CloudObject
from clouduploader.plugin.request import Journal


class Resources:
    """The things that one try of an upload has made.

    Each is in one of four states, and a later clean-up can tell them apart by the journal: *asked* (written before the
    request), *made* (the cloud gave an id), *refused* (the cloud said no), *unknown* (asked, without an answer: the
    cloud may have made it).

    Args:
        journal: Where it is written; on disk before each step.
        reporter: Told what was made.
    """

    def __init__(self, journal: Journal, reporter: Reporter) -> None:
        self._journal = journal
        self._reporter = reporter
        self._made: list[CloudObject] = []

    @contextlib.contextmanager
    def creating(self, kind: str, region: str, **facts: JsonValue) -> Iterator[Callable[[str], CloudObject]]:
        """Surround a request that makes something.

        Args:
            kind: What is made, in the cloud's own word.
            region: Where; "" for a platform without regions.
            **facts: What else a later try must know, for example a client token.

        Yields:
            What to call with the id of what was made, on the line after the request.

        Raises:
            PlatformReplyError: The request gave no id.
        """
        self._journal.write("asked", kind=kind, region=region, **facts)
        things: list[CloudObject] = []

        def created(thing_id: str) -> CloudObject:
            thing = CloudObject(kind, thing_id, region)
            things.append(thing)
            self._made.append(thing)
            self._reporter.event(ObjectCreated(thing))  # the journal hears it too, as `made`
            return thing

        try:
            yield created
        except ClouduploaderError as exc:
            if not things and not isinstance(exc, TransientError | StoppedError):
                self._journal.write("refused", kind=kind, region=region)
            raise
        if not things:
            raise PlatformReplyError(f"the cloud said that it made a {kind}, but gave no id of it")

    def keep(self, thing: CloudObject) -> None:
        """Leave something where it is, even if the upload fails: another try can use it."""
        self._made.remove(thing)

    def to_undo(self) -> tuple[CloudObject, ...]:
        """List what a failed upload has to remove, the last made first."""
        return tuple(reversed(self._made))
