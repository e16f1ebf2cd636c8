"""Waiting for AWS: the pauses, and calls that are made again as long as another try may help.

For what comes after the work: where hours of sending are done, a minute of throttling must not cost them.
"""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from clouduploader.errors import ClouduploaderError, TransientError
from clouduploader.platforms.ec2 import boto
from clouduploader.util.cancel import Cancel

Result = TypeVar("Result")

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 15.0  # DescribeSnapshots is throttled
LEAST_PAUSE_SECONDS = 0.1  # no clock stands still for so long
LOOK_SECONDS = 1.0  # how soon a stop is seen
PATIENCE_SECONDS = 180.0  # ours; the SDK's five tries, some 15 s, were not enough where an account is busy
_NOT_YET = (".NotFound", "InvalidAMIID.Unavailable", "IncorrectState")
"""How the codes end by which one of EC2's servers denies what another has shown already."""


def pauses() -> Iterator[float]:
    """Seconds to wait between looks, without an end."""
    seconds = FIRST_PAUSE_SECONDS
    while True:
        yield seconds
        seconds = min(2 * seconds, LONGEST_PAUSE_SECONDS)


def pause(seconds: float, *, cancel: Cancel, sleep: Callable[[float], None]) -> None:
    """Sleep, but not through a stop.

    Raises:
        StoppedError: The stop was requested.
    """
    while seconds > 0:
        cancel.raise_if_requested()
        sleep(min(LOOK_SECONDS, seconds))
        seconds -= LOOK_SECONDS
    cancel.raise_if_requested()


def may_pass(exc: ClouduploaderError) -> bool:
    """Whether the same call may be answered otherwise in a while."""
    return isinstance(exc, TransientError) or boto.refusal_code(exc).endswith(_NOT_YET)


def patiently(
    call: Callable[[], Result],
    *,
    cancel: Cancel,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Make a call that has to do with things that are there, until it is answered for good. Blocks for minutes.

    Args:
        call: Raises errors of ours; may be made any number of times.
        cancel: Looked at between the tries.
        sleep: For tests.
        clock: For tests; seconds that only grow.

    Raises:
        StoppedError: The stop was requested.
        ClouduploaderError: What the call raises, in the end.
    """
    began = clock()
    for seconds in pauses():
        try:
            return call()
        except ClouduploaderError as exc:
            if not may_pass(exc) or clock() - began >= PATIENCE_SECONDS:
                raise
        pause(seconds, cancel=cancel, sleep=sleep)
    raise AssertionError("there is always one more pause")


def until_seen(
    look: Callable[[], Result | None],
    seconds: float,
    *,
    cancel: Cancel,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Result | None:
    """Look for a thing until it shows, or its absence can be believed.

    Args:
        look: Gives what it sees, or None.
        seconds: For how long it may not show yet, see `visibility.seconds_left`.
        cancel: Looked at between the looks.
        sleep: For tests.
        clock: For tests; seconds that only grow.

    Raises:
        StoppedError: The stop was requested.
        ClouduploaderError: What the look raises.
    """
    began = clock()
    for wait in pauses():
        left = seconds - (clock() - began)
        if (found := look()) is not None or left <= 0:
            return found
        pause(max(LEAST_PAUSE_SECONDS, min(wait, left)), cancel=cancel, sleep=sleep)
    raise AssertionError("there is always one more pause")
