"""Requests to a running worker, from signal handlers and other threads."""

import contextlib
import os


class WorkerControl:
    """Takes requests to a worker. The methods may be called from signal handlers and any thread, and never block.

    Attributes:
        is_leaving: The worker is to return at once; uploads go on without it.
        is_draining: The worker is to start no more uploads, and to return when there are none.
    """

    def __init__(self) -> None:
        self.is_leaving = False
        self.is_draining = False
        self._is_reloading = False
        self._descriptor: int | None = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def leave(self) -> None:
        """Ask the worker to return at once. The uploads go on; the next worker finds them."""
        self.is_leaving = True
        self.wake()

    def drain(self) -> None:
        """Ask the worker to start nothing more, and to return when the last upload has ended."""
        self.is_draining = True
        self.wake()

    def reload(self) -> None:
        """Ask the worker to read its settings again."""
        self._is_reloading = True
        self.wake()

    def wake(self) -> None:
        """Wake the worker."""
        if self._descriptor is not None:
            os.eventfd_write(self._descriptor, 1)

    def fileno(self) -> int:
        """Return the descriptor that can be read after a request."""
        assert self._descriptor is not None  # noqa: S101 only called before `close`
        return self._descriptor

    def take_reload(self) -> bool:
        """Return whether the settings are to be read again, and forget the request; for the worker."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fileno())
        is_reloading, self._is_reloading = self._is_reloading, False
        return is_reloading

    def close(self) -> None:
        """Close the descriptor; later requests, by a second signal at the end, change nothing."""
        descriptor, self._descriptor = self.fileno(), None
        os.close(descriptor)
