"""Places for images on their way in, as a whole or in pieces: who gets one, and which image makes way for another."""

import asyncio
import collections
import math
import time
from collections.abc import Callable
from typing import TypeVar

from clouduploader.server.replies import RefusalError
from clouduploader.server.settings import SettingsSource

RATE_SECONDS = 10.0  # over which it is measured how fast an image comes
MIN_RATE = 16_384  # bytes a second; a slower client is dropped if others need its place: a GiB would take 18 hours
OTHERS_SHARE = 8  # one client leaves an eighth of the places to others

Result = TypeVar("Result")


class Place:
    """The place of one image, and how fast it comes.

    Args:
        client: See `origin.client_of`.

    Attributes:
        client: As given.
        refusal: Why it was dropped; None if it was not.
        cancel: Ends it.
    """

    def __init__(self, client: str) -> None:
        self.client = client
        self.refusal: RefusalError | None = None
        self.cancel: Callable[[], object] = lambda: None
        self._progress: Callable[[], tuple[int, int]] = lambda: (0, 1)
        self._marks = collections.deque([(time.monotonic(), 0)], maxlen=2)  # when, and how many bytes were here

    def begin(self, progress: Callable[[], tuple[int, int]]) -> None:
        """Take note that the image comes.

        Args:
            progress: Returns how many bytes of it have come by now, and how many are to come in all.
        """
        self._progress = progress

    def mark(self, now: float) -> None:
        """Remember how much is here."""
        self._marks.append((now, self._progress()[0]))

    def rate(self, now: float) -> float:
        """Return bytes a second since the last mark but one; infinite for one that has just begun, or is here."""
        began, before = self._marks[0]
        here, wanted = self._progress()
        if here >= wanted or now - began < RATE_SECONDS:
            return math.inf
        return (here - before) / (now - began)


class Places:
    """All places; for the event loop's thread.

    Args:
        source: The settings of the server.
    """

    def __init__(self, source: SettingsSource) -> None:
        self._source = source
        self._taken: dict[Place, None] = {}

    def take(self, client: str) -> Place:
        """Take a place; if there is none, drop the slowest.

        Raises:
            RefusalError: There is none, and all come quickly.
        """
        most = self._source.current.max_transfers
        counts = collections.Counter(it.client for it in self._taken)
        rivals: list[Place] = []
        if counts[client] >= most - most // OTHERS_SHARE:
            rivals = [it for it in self._taken if it.client == client]
        elif len(self._taken) >= most:
            rivals = list(self._taken)
        if rivals:
            now = time.monotonic()
            slowest = min(rivals, key=lambda it: it.rate(now))
            if slowest.rate(now) >= MIN_RATE:
                raise RefusalError("too many images are on their way in", status=503, is_coded=True)
            del self._taken[slowest]
            slowest.refusal = RefusalError("the image came too slowly, and others wait", status=503, is_coded=True)
            slowest.cancel()
        place = Place(client)
        self._taken[place] = None
        return place

    async def hold(self, place: Place, task: asyncio.Task[Result]) -> Result:
        """Wait for a task that receives what has a place, and give the place back. The task ends with the wait.

        Raises:
            RefusalError: The place was taken away, or the request ended by another; or as the task.
        """
        place.cancel = task.cancel
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            if place.refusal:
                raise place.refusal from None
            raise
        finally:
            self._taken.pop(place, None)

    async def measure_forever(self) -> None:
        """Measure how fast the images come, every RATE_SECONDS."""
        while True:
            await asyncio.sleep(RATE_SECONDS)
            for place in self._taken:
                place.mark(time.monotonic())
