"""Messages on their way to the broker. A thread of its own waits for the broker, in the place of the dispatcher."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from clouduploader.errors import NetworkError
from clouduploader.util.frozen import frozen

RETRY_SECONDS = 1.0  # until the broker is asked again that could not be reached
ENDED = "the thread that sends messages to the broker has ended"
PROBE_SECONDS = 10.0  # between looks at the queues: they show too whether the broker is there


class Publisher(Protocol):
    """What is needed of `broker.Publisher`."""

    def publish(self, queue: str, *, job: str, attempt: int, url: str) -> None:
        """Publish a job; NetworkError if the broker did not confirm it."""

    def depth(self, queue: str) -> int:
        """Return how many messages of a queue are with no host; NetworkError if the broker can't be asked."""

    def close(self) -> None:
        """Close the connection."""


@frozen(kw_only=True)
class Message:
    """One publication of a job.

    Attributes:
        job: The job.
        attempt: Its number.
        queue: Where it goes to.
    """

    job: str
    attempt: int
    queue: str


class Outbox:
    """Sends messages in the order in which they came, and each until the broker has confirmed it.

    A message may get to the broker twice. That does no harm: an attempt is claimed once.

    Args:
        publisher: Used by the thread of the outbox alone, which closes it.
        url: Of the server, for the messages.
        queues: Those whose depths are looked at from the beginning.
        wake: Called in that thread when `fault` or `depths` have changed.
    """

    def __init__(self, publisher: Publisher, *, url: str, queues: Iterable[str], wake: Callable[[], None]) -> None:
        self._publisher = publisher
        self._url = url
        self._queues = set(queues)
        self._wake = wake
        self._changed = threading.Condition()
        self._messages: dict[str, Message] = {}
        self._depths: dict[str, int] = {}
        self._fault: str | None = None
        self._is_closing = False
        self._probe = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="outbox")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def fault(self) -> str | None:
        """Why the broker gets no messages; None if it could be reached, or was not asked yet."""
        return self._fault

    @property
    def depths(self) -> Mapping[str, int]:
        """How many messages are with no host, by queue; empty as long as that is not known."""
        return {} if self._fault else self._depths

    def put(self, message: Message) -> None:
        """Send a message, in the place of one of the same job that was not sent yet."""
        with self._changed:
            self._messages.pop(message.job, None)
            self._messages[message.job] = message
            self._queues.add(message.queue)
            self._changed.notify()

    def keep(self, is_wanted: Callable[[Message], bool]) -> None:
        """Send no message any more that is not wanted."""
        with self._changed:
            self._messages = {job: message for job, message in self._messages.items() if is_wanted(message)}

    def close(self) -> None:
        """Send no more, and end the thread; a call of the publisher is waited for."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._is_closing:
                try:
                    self._work()
                except NetworkError as exc:
                    self._note(exc.message, {})
                    with self._changed:
                        self._changed.wait_for(lambda: self._is_closing, RETRY_SECONDS)
            self._publisher.close()
        finally:  # an error of ours too
            self._fault = ENDED

    def _work(self) -> None:
        """Send what is there, look at the queues when it is time, and wait for more.

        Raises:
            NetworkError: The broker can't be reached.
        """
        while (message := self._next()) and not self._is_closing:
            self._publisher.publish(message.queue, job=message.job, attempt=message.attempt, url=self._url)
            with self._changed:
                if self._messages.get(message.job) == message:
                    del self._messages[message.job]
        if time.monotonic() >= self._probe or self._fault:
            self._note(None, {queue: self._publisher.depth(queue) for queue in sorted(self._queues)})
            self._probe = time.monotonic() + PROBE_SECONDS
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._is_closing, self._probe - time.monotonic())

    def _next(self) -> Message | None:
        with self._changed:
            return next(iter(self._messages.values()), None)

    def _note(self, fault: str | None, depths: dict[str, int]) -> None:
        if (self._fault, self._depths) != (fault, depths):
            self._fault, self._depths = fault, depths
            self._wake()
