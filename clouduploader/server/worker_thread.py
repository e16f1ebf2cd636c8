"""The worker, or the dispatcher of a cluster, as a thread of the server; if it ends by itself, the server ends too."""

import concurrent.futures
import signal
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from clouduploader.server.metrics import Metrics
from clouduploader.util.cancel import Cancel
from clouduploader.util.service_log import ServiceLog
from clouduploader.worker.base import SpoolWorker
from clouduploader.worker.control import WorkerControl
from clouduploader.worker.events import WorkerEvent, WorkerEventKind

T_co = TypeVar("T_co", bound=SpoolWorker, covariant=True)


class WorkerThread(Generic[T_co]):
    """A thread that runs the worker of the server's spool.

    Args:
        make: Makes the worker, with that by which it is asked for something, and what is called with its events.
        cancel: Requested when the worker ends by itself: without it the server would take jobs that are never started.
        log: Gets what happens.

    Attributes:
        worker: The worker.

    Raises:
        ClouduploaderError: What `make` raises.
    """

    def __init__(
        self,
        make: Callable[[WorkerControl, Callable[[WorkerEvent], None]], T_co],
        *,
        cancel: Cancel,
        log: ServiceLog,
    ) -> None:
        self._cancel = cancel
        self._log = log
        self._control = WorkerControl()
        self._is_ready_or_ended = threading.Event()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "worker")
        self._work: concurrent.futures.Future[None] | None = None
        self._metrics: Metrics | None = None
        self.worker = make(self._control, self._record)

    def start(self, metrics: Metrics) -> None:
        """Start it, and wait until it is ready.

        Args:
            metrics: Counts its uploads.

        Raises:
            ClouduploaderError: It can't work; see `SpoolWorker.run`.
        """
        self._metrics = metrics
        self._work = self._thread.submit(self.worker.run)
        self._work.add_done_callback(self._ended)
        self._is_ready_or_ended.wait()
        if self._work.done():
            self._work.result()

    def reload(self) -> None:
        """Have its settings read again; for signal handlers too."""
        self._control.reload()

    def drain(self) -> bool:
        """Have it start no more uploads, and end after the last; for signal handlers too.

        Returns:
            Whether it was not asked before.
        """
        is_first = not self._control.is_draining
        self._control.drain()
        return is_first

    def fault(self) -> str | None:
        """Return why no uploads are started; None if the worker runs."""
        return None if self._work and self._work.running() else "the worker has ended"

    def close(self) -> None:
        """End it, and wait for the thread; its uploads go on, and the next worker finds them.

        Raises:
            ClouduploaderError: It has ended by itself, for this reason.
        """
        self._control.leave()
        self._thread.shutdown()
        self._control.close()
        if self._work:
            self._work.result()

    def _ended(self, _work: concurrent.futures.Future[None]) -> None:
        self._is_ready_or_ended.set()
        if not self._control.is_leaving:
            self._cancel.request(signal.SIGTERM)

    def _record(self, event: WorkerEvent) -> None:
        """Log and count an event of the worker, in any thread."""
        event.log_to(self._log)
        if self._metrics:
            self._metrics.count_event(event)
        if event.kind is WorkerEventKind.READY:
            self._is_ready_or_ended.set()
