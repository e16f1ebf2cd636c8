"""Wait for a cloud: pauses, calls that are made again while another try may help, looks until something is so."""

import random
from collections.abc import Callable, Iterator
from typing import TypeVar

from clouduploader.errors import ClouduploaderError, TransientError
from clouduploader.util.cancel import Cancel
from clouduploader.util.clock import Clock

T = TypeVar("T")

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 15.0  # calls that describe things are throttled too
SHORTEST_PAUSE_SECONDS = 0.1  # no clock stands still for so long
JITTER = 0.2  # of a pause: many hosts that failed together don't come back together
LOOK_SECONDS = 1.0  # how soon a cancellation is seen
PATIENCE_SECONDS = 180.0  # the some 15 s of an SDK's own tries were not enough where an account is busy


def is_transient(exc: ClouduploaderError) -> bool:
    """Tell whether the same call may be answered otherwise in a while."""
    return isinstance(exc, TransientError)


def pauses() -> Iterator[float]:
    """Yield seconds to wait between tries, without an end: doubled each time, with jitter."""
    seconds = FIRST_PAUSE_SECONDS
    while True:
        yield seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 nothing secret
        seconds = min(2 * seconds, LONGEST_PAUSE_SECONDS)


def pause(seconds: float, *, cancel: Cancel, clock: Clock) -> None:
    """Sleep, but not through a cancellation.

    Raises:
        StoppedError: `cancel` was requested.
    """
    while seconds > 0:
        cancel.raise_if_requested()
        clock.sleep(min(LOOK_SECONDS, seconds))
        seconds -= LOOK_SECONDS
    cancel.raise_if_requested()


def retry(
    call: Callable[[], T],
    *,
    cancel: Cancel,
    clock: Clock,
    seconds: float = PATIENCE_SECONDS,
    may_pass: Callable[[ClouduploaderError], bool] = is_transient,
    on_failure: Callable[[ClouduploaderError, float], None] = lambda _exc, _seconds: None,
) -> T:
    """Make a call until it is answered for good. Blocks for as long as `seconds` says, and one call more.

    Args:
        call: Raises errors of ours; may be made any number of times.
        cancel: Looked at between the tries.
        clock: Measures the wait.
        seconds: For how long another try is made.
        may_pass: Tells whether another try may help after an error.
        on_failure: Called before each other try with the error, and for how many seconds it has been tried.

    Raises:
        StoppedError: `cancel` was requested.
        ClouduploaderError: What the last call raised.
    """
    began = clock.monotonic()
    for wait in pauses():
        try:
            return call()
        except ClouduploaderError as exc:
            passed = clock.monotonic() - began
            left = seconds - passed
            if not may_pass(exc) or left <= 0:
                raise
            on_failure(exc, passed)
        pause(min(wait, left), cancel=cancel, clock=clock)
    raise AssertionError("pauses() has no end")


def look_until(look: Callable[[], T | None], seconds: float, *, cancel: Cancel, clock: Clock) -> T | None:
    """Look until there is something to see, or the time is over; the last look is after it.

    Args:
        look: Returns what it sees, or None.
        seconds: For how long nothing may show yet.
        cancel: Looked at between the looks.
        clock: Measures the wait.

    Raises:
        StoppedError: `cancel` was requested.
        ClouduploaderError: What the look raises.
    """
    began = clock.monotonic()
    for wait in pauses():
        left = seconds - (clock.monotonic() - began)
        if (found := look()) is not None or left <= 0:
            return found
        pause(max(SHORTEST_PAUSE_SECONDS, min(wait, left)), cancel=cancel, clock=clock)
    raise AssertionError("pauses() has no end")
