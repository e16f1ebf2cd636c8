"""What others ask of a running worker."""

import contextlib
import os


class WorkerControl:
    """Requests to a worker; may be called from signal handlers and other threads, and never wait.

    Attributes:
        is_leaving: It is to return at once; uploads go on without it.
        is_draining: It is to start no more uploads, and to return when there are none.
    """

    def __init__(self) -> None:
        self.is_leaving = False
        self.is_draining = False
        self._is_reloading = False
        self._descriptor: int | None = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def leave(self) -> None:
        """Hand over: return at once. The uploads go on; the next worker finds them."""
        self.is_leaving = True
        self.wake()

    def drain(self) -> None:
        """Start nothing more, and return when the last upload has ended."""
        self.is_draining = True
        self.wake()

    def reload(self) -> None:
        """Read the settings again."""
        self._is_reloading = True
        self.wake()

    def wake(self) -> None:
        """Have a look around."""
        if self._descriptor is not None:
            os.eventfd_write(self._descriptor, 1)

    def fileno(self) -> int:
        """The descriptor that can be read after a request."""
        assert self._descriptor is not None  # noqa: S101 who asks has not closed it
        return self._descriptor

    def take(self) -> bool:
        """For the worker: whether the settings are to be read again; asked once for each request."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fileno())
        is_reloading, self._is_reloading = self._is_reloading, False
        return is_reloading

    def close(self) -> None:
        """No more requests; those that come all the same, by a second signal at the end, change nothing."""
        descriptor, self._descriptor = self.fileno(), None
        os.close(descriptor)
