"""The threads of one transfer. Those that wait for an SDK can be left behind, for it can't be interrupted."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from types import TracebackType

NAME = "transfer"
"""How the names of the threads begin."""
LEAVE_SECONDS = 0.5  # for calls that are under way to end by themselves: a cloud answers in less


class _LeftBehindError(Exception):
    """Ends a thread for which the group waits no more."""


class ThreadGroup:
    """Threads that do one work together.

    They are daemons: one that was left behind does not keep the process from ending.

    Args:
        leave_seconds: For how long `leave` waits for threads that are away.
    """

    def __init__(self, leave_seconds: float = LEAVE_SECONDS) -> None:
        self._leave_seconds = leave_seconds
        self._changed = threading.Condition()
        self._present = self._away = 0
        self._ended: list[threading.Thread] = []
        self._is_left = False
        self._error: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Let a new thread do this."""

        def run() -> None:
            with _ErrorCatcher(self._end):
                work()

        with self._changed:
            thread = threading.Thread(target=run, name=f"{NAME}_{self._present + self._away}", daemon=True)
            thread.start()
            self._present += 1

    def wait(self, seconds: float) -> bool:
        """Wait until another thread ends, if one works yet. Blocks for at most `seconds`.

        Returns:
            Whether all have ended.

        Raises:
            BaseException: What one of them raised.
        """
        with self._changed:
            before = len(self._ended)
            if self._present or self._away:
                self._changed.wait_for(lambda: self._error or len(self._ended) > before, seconds)
            if self._error:
                raise self._error
            return not (self._present or self._away)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Surround a call that uses nothing that all share: the thread may be left behind in it, and ends then."""
        self._move(-1)
        try:
            yield
        finally:
            self._move(1)

    def _move(self, step: int) -> None:
        with self._changed:
            self._present += step
            self._away -= step
            self._changed.notify_all()
            if self._is_left:
                raise _LeftBehindError

    def leave(self) -> None:
        """Wait until all threads have ended; for those that are away, for `leave_seconds` only."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._present or self._away), self._leave_seconds)
            self._changed.wait_for(lambda: not self._present)
            self._is_left = True
            ended = self._ended
        for thread in ended:
            thread.join()

    def _end(self, error: BaseException | None) -> None:
        with self._changed:
            if not self._is_left:
                self._error = self._error or error
            self._present -= 1
            self._ended.append(threading.current_thread())
            self._changed.notify_all()


class _ErrorCatcher:
    """Hands on how a thread's work has ended, and lets no exception out of the thread."""

    def __init__(self, on_end: Callable[[BaseException | None], None]) -> None:
        self._on_end = on_end

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None) -> bool:
        """End."""
        self._on_end(exc)
        return True
