"""The lease of one job as its host knows it, and the thread that renews it.

The host's own clock tells when a lease is over: it counts from the *sending* of the last beat that was answered, so
that the host takes its lease for over before the server does. The clock goes on while the machine sleeps, and while
this process is stopped: whatever wakes up looks at it first.
"""

import threading
from collections.abc import Callable

from clouduploader.client.cluster import ASK_SECONDS, Claim, ClusterServer, LeaseLostError
from clouduploader.errors import ClouduploaderError
from clouduploader.util import processes, threads

MARGIN = 6  # a part of the lease, and a second at least: for the SIGKILL, and for what the cloud is still doing
PAUSE_SECONDS = 1.0  # between beats that are answered at once


class Lease:
    """The right to work on a job. Safe to use from several threads.

    Args:
        seconds: How long it lasts.
        sent: When the claim was sent, in seconds since boot.
        on_change: Called when it is lost, and when the job is to be stopped; from any thread.

    Attributes:
        is_stopping: Whether the job was killed.
    """

    def __init__(self, seconds: float, *, sent: float, on_change: Callable[[], None]) -> None:
        self._seconds = seconds - max(1.0, seconds / MARGIN)
        self._ends_at = sent + self._seconds
        self._on_change = on_change
        self._lost: str | None = None
        self._lock = threading.Lock()
        self.is_stopping = False

    @property
    def is_lost(self) -> bool:
        """Whether it is over."""
        if self._lost is None and self.left_seconds() <= 0:
            self.lose(f"the server did not answer for {self._seconds:.0f} s")
        return self._lost is not None

    def left_seconds(self) -> float:
        """Return how long it lasts if the server does not answer."""
        return self._ends_at - processes.seconds_since_boot()

    def check(self) -> None:
        """Go on only if it lasts.

        Raises:
            LeaseLostError: It does not.
        """
        if self.is_lost:
            raise LeaseLostError(self._lost or "")

    def renew(self, sent: float) -> None:
        """Take note of an answered beat; one that comes after the end renews nothing.

        Args:
            sent: When it was sent, in seconds since boot.

        Raises:
            LeaseLostError: It was lost before.
        """
        self.check()
        self._ends_at = sent + self._seconds

    def lose(self, reason: str) -> None:
        """Take note that it is over."""
        with self._lock:
            if self._lost is not None:
                return
            self._lost = reason
        self._on_change()

    def stop(self) -> None:
        """Take note that the job was killed."""
        if not self.is_stopping:
            self.is_stopping = True
            self._on_change()


class Beats:
    """Beats from a thread of its own until it is closed or the lease is lost; a context manager.

    Args:
        server: For this thread alone.
        claim: The job.
        lease: What is renewed.
        seconds: How long the server keeps a beat waiting.
        progress: Returns the percents that the server is told.
        on_trouble: Called with one line when the server does not answer, once until it does again.
    """

    def __init__(
        self,
        server: ClusterServer,
        claim: Claim,
        lease: Lease,
        *,
        seconds: float,
        progress: Callable[[], int | None],
        on_trouble: Callable[[str], None],
    ) -> None:
        self._server = server
        self._claim = claim
        self._lease = lease
        self._seconds = seconds
        self._progress = progress
        self._on_trouble = on_trouble
        self._is_troubled = False
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="beats", daemon=True)

    def __enter__(self) -> "Beats":
        """Begin."""
        threads.start(self._thread)
        return self

    def __exit__(self, *_exception: object) -> None:
        """End; a beat that waits at the server is hung up on."""
        self._is_closed.set()
        self._server.close()
        self._thread.join()

    def _run(self) -> None:
        while not (self._is_closed.is_set() or self._lease.is_lost):
            sent = processes.seconds_since_boot()
            try:
                seconds = min(self._seconds + ASK_SECONDS, max(0.0, self._lease.left_seconds()))
                is_stopping = self._server.beat(self._claim, progress=self._progress(), seconds=seconds)
                self._lease.renew(sent)
            except LeaseLostError as exc:
                self._lease.lose(exc.message)
                return
            except ClouduploaderError as exc:
                if self._is_closed.is_set():
                    return
                if not self._is_troubled:
                    self._is_troubled = True
                    self._on_trouble(exc.message)
            else:
                self._is_troubled = False
                if is_stopping:
                    self._lease.stop()
            if processes.seconds_since_boot() - sent < PAUSE_SECONDS:
                self._is_closed.wait(PAUSE_SECONDS)
