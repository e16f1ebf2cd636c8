"""Calls of foreign code that may never return, with an end.

Libraries bound each read from a socket at most, so that a server which sends a byte every few seconds holds them for
ever; a program that gives credentials, a resolver or a TLS handshake may have no bound at all.
"""

import concurrent.futures
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from clouduploader.stop import Stop

STOPPING_SECONDS = 5.0
"""What a call gets once a stop was requested: AWS answers in less, and a service manager waits 90 s for all of us."""
TICK_SECONDS = 0.2  # between looks whether a stop was requested

T = TypeVar("T")


class OverdueError(Exception):
    """A call has not returned in its time. Nobody knows whether it did what it was to do."""


def within(seconds: float, work: Callable[[], T], stop: Stop | None = None) -> T:
    """Make a call that has to return in time.

    The call is made in a thread, which is left behind when the time is over: it must use nothing that the caller goes
    on with. A signal handler of the caller's thread may raise through this function, which leaves the thread too.

    Args:
        seconds: How long the call may take.
        work: The call.
        stop: Once it is requested, the call gets STOPPING_SECONDS at most.

    Returns:
        What the call returned.

    Raises:
        OverdueError: It did not return in time.
        BaseException: What it raised.
    """
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as exc:  # noqa: BLE001 it is raised again, in the thread that waits
            future.set_exception(exc)

    threading.Thread(target=run, name="with-a-deadline", daemon=True).start()
    ends_at = time.monotonic() + seconds
    is_stopping = False
    while (left := ends_at - time.monotonic()) > 0:
        concurrent.futures.wait([future], timeout=min(left, TICK_SECONDS))
        if future.done():
            return future.result()
        if stop and stop.is_requested and not is_stopping:
            is_stopping = True
            ends_at = min(ends_at, time.monotonic() + STOPPING_SECONDS)
    raise OverdueError
