"""End calls of foreign code that may never return.

Libraries bound each read from a socket at most, so that a server which sends a byte every few seconds holds them for
ever; a program that gives credentials, a resolver or a TLS handshake may have no bound at all. When such a
call is left, the programs that it has started are ended: no code waits for these any more.
"""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeVar

from clouduploader.util import threads
from clouduploader.util.cancel import Cancel

STOPPING_SECONDS = 5.0
"""What a call gets once a stop was requested: clouds answer in less; a service manager waits 90 s for all."""
TICK_SECONDS = 0.2  # between looks whether a stop was requested
GRACE_SECONDS = 1.0  # between SIGTERM and SIGKILL for the programs of a call that was left

T = TypeVar("T")


class OverdueError(Exception):
    """A call has not returned in its time. It is not known whether it did what it was to do."""


def within(seconds: float, work: Callable[[], T], cancel: Cancel | None = None) -> T:
    """Make a call that has to return in time.

    The call is made in a thread, which is left behind when the time is over: it must use nothing that the caller goes
    on with. A signal handler of the caller's thread may raise through this function, which leaves the thread too;
    signals that would end the process do. The programs that the thread has started are ended then.

    Args:
        seconds: How long the call may take.
        work: The call.
        cancel: Once it is requested, the call gets STOPPING_SECONDS at most.

    Returns:
        What the call returned.

    Raises:
        OverdueError: It did not return in time.
        TransientError: No thread can be started for it.
        BaseException: What it raised.
    """
    returned: list[T] = []
    raised: list[BaseException] = []
    is_done = threading.Event()

    def run() -> None:
        try:
            returned.append(work())
        except BaseException as exc:  # noqa: BLE001 it is raised again, in the thread that waits
            raised.append(exc)
        is_done.set()

    thread = threading.Thread(target=run, name="with-a-deadline", daemon=True)
    threads.start(thread)
    ends_at = time.monotonic() + seconds
    is_stopping = False
    try:
        with _signals_raised():
            while (left := ends_at - time.monotonic()) > 0:
                if is_done.wait(min(left, TICK_SECONDS)):
                    if raised:
                        raise raised[0]
                    return returned[0]
                if cancel and cancel.is_requested and not is_stopping:
                    is_stopping = True
                    ends_at = min(ends_at, time.monotonic() + STOPPING_SECONDS)
    finally:
        if not is_done.is_set() and thread.native_id:
            _end_programs(thread.native_id)
    raise OverdueError


def until_left(work: Callable[[], T]) -> T:
    """Make a call in this thread, for as long as it takes; if it is left by a signal, its programs are ended.

    Args:
        work: The call.

    Returns:
        What the call returned.

    Raises:
        BaseException: What it raised, or a signal handler.
    """
    thread_id = threading.get_native_id()
    before = set(_children_of(Path(f"/proc/self/task/{thread_id}")))
    try:
        with _signals_raised():
            return work()
    except BaseException:
        _end_programs(thread_id, before)
        raise


@contextlib.contextmanager
def _signals_raised() -> Iterator[None]:
    """Let signals that would end this process raise SystemExit, so that it has the time to end others."""

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    is_main = threading.current_thread() is threading.main_thread()
    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers if is_main else ():
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in numbers if is_main else ():
            signal.signal(number, signal.SIG_DFL)


def _end_programs(thread_id: int, others: Collection[int] = ()) -> None:
    """End what a thread of this process has started, and what that has started in turn: by SIGTERM, then by SIGKILL.

    Args:
        thread_id: Of the thread.
        others: Children of it that are left alone.
    """
    held: dict[int, int] = {}  # pidfds by pid: a signal reaches that process or none
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            _hold_children(Path(f"/proc/self/task/{thread_id}"), held, others)
            for descriptor in held.values():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(descriptor, number)
            _wait_for_ends(held.values(), GRACE_SECONDS)
    finally:
        for descriptor in held.values():
            os.close(descriptor)


def _hold_children(task: Path, held: dict[int, int], others: Collection[int]) -> None:
    """Hold the children of a thread, and theirs, by pidfds."""
    for pid in _children_of(task):
        if pid in others:
            continue
        if pid not in held:
            try:
                descriptor = os.pidfd_open(pid)
            except OSError:  # it has ended
                continue
            if pid not in _children_of(task):  # another has got its number
                os.close(descriptor)
                continue
            held[pid] = descriptor
        with contextlib.suppress(OSError):
            for inner in Path(f"/proc/{pid}/task").iterdir():
                _hold_children(inner, held, others)


def _children_of(task: Path) -> list[int]:
    """Return the processes that a thread has started and that are there; see proc(5)."""
    try:
        return [int(word) for word in (task / "children").read_text().split()]
    except OSError:  # it has ended, or this kernel does not tell
        return []


def _wait_for_ends(descriptors: Collection[int], seconds: float) -> None:
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    left, ends_at = len(descriptors), time.monotonic() + seconds
    while left and (rest := ends_at - time.monotonic()) > 0:
        for descriptor, _event in poll.poll(1000 * rest):
            poll.unregister(descriptor)
            left -= 1
