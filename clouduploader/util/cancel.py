"""A request to stop: made by a signal handler, seen by the code that works or waits."""

import contextlib
from collections.abc import Iterator

from clouduploader.errors import StoppedError


class Cancel:
    """Remembers the first signal that asked the process to stop.

    Code that has nothing to undo yet runs inside `interruptible` and is left at once by
    StoppedError. All other code asks `is_requested` where it can act on the answer, so that
    nothing is torn apart between a remote call and the note of its undo.
    """

    def __init__(self) -> None:
        self._signal_number: int | None = None
        self._is_interruptible = False

    @property
    def is_requested(self) -> bool:
        """Whether a signal has come in."""
        return self._signal_number is not None

    def request(self, signal_number: int) -> None:
        """Ask to stop; safe to call from a signal handler, later calls change nothing.

        Raises:
            StoppedError: when the interrupted code is inside `interruptible`.
        """
        if self._signal_number is None:
            self._signal_number = signal_number
            if self._is_interruptible:
                raise StoppedError(signal_number)

    def raise_if_requested(self) -> None:
        """Leave now if a signal has come in.

        Raises:
            StoppedError: with that signal's exit code.
        """
        if self._signal_number is not None:
            raise StoppedError(self._signal_number)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal leave the block at any line; for the main thread, not nested.

        Raises:
            StoppedError: at once, or on entry if the signal came before.
        """
        self.raise_if_requested()
        self._is_interruptible = True
        try:
            yield
        finally:
            self._is_interruptible = False
        self.raise_if_requested()
