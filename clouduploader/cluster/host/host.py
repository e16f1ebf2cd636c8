"""An upload host: takes jobs from the broker, runs an uploader for each, and greets the server.

Celery's main process talks to the broker; each slot is a process of its pool, which claims a job and has its uploader
as a child. If the main process ends, however that is, the kernel kills its pool, and the uploaders with it. If the
broker is lost, uploads go on: the lease at the server tells whose job it is.
"""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import billiard.util
from amqp.exceptions import AMQPError
from billiard.exceptions import WorkerLostError
from celery import Celery, signals
from celery.apps.worker import Worker
from celery.worker import state

import clouduploader
from clouduploader.client.cluster import ClusterServer
from clouduploader.cluster import broker, protocol
from clouduploader.cluster.host import directory, task
from clouduploader.cluster.host.attempt import HostFacts
from clouduploader.cluster.host.messages import CleanConsumer
from clouduploader.cluster.host.uploader import end_with_parent
from clouduploader.cluster.settings import ClusterSettings
from clouduploader.errors import CannotCreateError, ClouduploaderError, TransientError
from clouduploader.util import files, service_log, threads
from clouduploader.util.service_log import ServiceLog

GREET_SECONDS = 10.0  # until the server says how often it wants to be greeted
MAX_GREET_SECONDS = 600.0  # whatever the server says
RETRY_SECONDS = 1.0  # while it can't be reached
REFUSED_SECONDS = 10.0  # until a broker that refused this host is asked again
GREETED_NAME = ".greeted"  # in the spool; changed whenever the server has answered a greeting, for checks of health

# Held while the greeter asks the server: a process of the pool that was forked meanwhile could never look up a name,
# for it would wait for locks of libraries that the greeter's thread has in the parent.
_asking = threading.Lock()
os.register_at_fork(before=_asking.acquire, after_in_parent=_asking.release, after_in_child=_asking.release)


def run(
    settings: ClusterSettings,
    server: ClusterServer,
    *,
    password: str | None,
    spool: Path,
    program: Path,
    environment: Mapping[str, str],
    log: ServiceLog,
    on_ready: Callable[[str], None],
) -> None:
    """Work until SIGTERM or SIGINT, and then until the last upload has ended; a second signal kills the uploads.

    Those that were killed are gone on with by other hosts once their leases are over.

    Args:
        settings: Of the cluster, with a broker.
        server: The server.
        password: Of the broker; None for none.
        spool: Of this host; made if it is missing.
        program: The uploader.
        environment: Of the uploader.
        log: What the host does.
        on_ready: Called with one line once jobs are taken.

    Raises:
        CannotCreateError: There can't be a spool.
        ConfigError: The authorities of the broker's certificate can't be read.
        TransientError: Celery has ended without being asked to.
    """
    try:
        spool.mkdir(mode=files.PRIVATE_DIRECTORY_MODE, parents=True, exist_ok=True)
    except OSError as exc:
        raise CannotCreateError(f"the spool {spool} can't be made: {exc.strerror}") from exc
    directory.remove_dead(spool)
    facts = HostFacts(name=settings.host, spool=spool, program=program, environment=environment, log=log)
    app = broker.make_app(settings, password)
    app.conf.update(
        broker_connection_max_retries=None,  # for ever, as a service does
        worker_consumer=_HostConsumer,
        worker_enable_remote_control=False,  # by the broker come jobs; who can write there is not to stop hosts
        worker_redirect_stdouts=False,
        worker_send_task_events=True,  # Flower shows them; a task's arguments are no secrets
    )
    _register(app, facts, server)
    _log_to(log)
    worker = _HostWorker(
        app=app,
        hostname=f"clouduploader@{settings.host}",
        concurrency=settings.slots,
        pool="prefork",
        queues=[broker.queue_name(queue) for queue in settings.serves],
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    )
    greeter = Greeter(worker, settings, server.another(), facts)

    def begin() -> None:
        greeter.connected(is_connected=True)
        on_ready(f"{settings.slots} slots of the host {settings.host} for {server.url}")

    worker.on_ready = begin
    worker.on_loss = lambda: greeter.connected(is_connected=False)
    worker.on_leave = greeter.leave
    with greeter:
        worker.start()
    log.tell("stopped")
    check_end(worker)


def check_end(worker: Worker) -> None:
    """Tell an end that was asked for from one by a fault, for which Celery does not always give an exit code.

    Args:
        worker: Has ended.

    Raises:
        TransientError: It was a fault, which may not be there for the next process.
    """
    if worker.exitcode or state.should_stop is None:
        raise TransientError("this upload host can't work any more: what Celery says of it stands in the log")


class _HostWorker(Worker):  # type: ignore[misc] # Celery has no types
    """Celery's worker with our signals and our log.

    Attributes:
        on_ready: Called once messages are taken, and after each loss of the broker again.
        on_loss: Called when the broker was lost.
        on_leave: Called when it is asked to take no more.
    """

    on_ready: Callable[[], None]
    on_loss: Callable[[], None]
    on_leave: Callable[[], None]

    def install_platform_tweaks(self, worker: "_HostWorker") -> None:
        """Listen to our signals, in the place of Celery's own."""

        def end(_number: int, _frame: object) -> None:
            if state.should_stop is None:
                state.should_stop = 0
                self.on_leave()
            else:
                state.should_terminate = 0
                if worker.pool:
                    worker.pool.terminate()

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


class _HostConsumer(CleanConsumer):
    """Celery's consumer, which does not come back at once to a broker that refuses the user, or its virtual host."""

    def on_ready(self) -> None:
        """Say that messages are taken; Celery's worker is told the first time only."""
        super().on_ready()
        self.controller.on_ready()

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Tell it, also to the server."""
        self.controller.on_loss()
        super().on_connection_error_after_connected(exc)

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Tell it, and wait."""
        super().on_connection_error_before_connected(exc)
        time.sleep(REFUSED_SECONDS)


class Greeter:
    """A thread that tells the server that this host is there, and does what the server answers; a context manager.

    Args:
        worker: Takes the messages.
        settings: Of the cluster.
        server: For this thread alone.
        host: This host.
    """

    def __init__(self, worker: _HostWorker, settings: ClusterSettings, server: ClusterServer, host: HostFacts) -> None:
        self._worker = worker
        self._settings = settings
        self._server = server
        self._host = host
        self._is_connected = False
        self._is_leaving = False
        self._is_draining = False
        self._is_closed = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="greeter", daemon=True)

    def __enter__(self) -> "Greeter":
        """Begin."""
        threads.start(self._thread)
        return self

    def __exit__(self, *_exception: object) -> None:
        """End."""
        self._is_closed = True
        self._wake.set()
        self._server.close()
        self._thread.join()

    def connected(self, *, is_connected: bool) -> None:
        """Tell the server at once whether messages come: without, jobs are not to be published for this host."""
        self._is_connected = is_connected
        self._wake.set()

    def leave(self) -> None:
        """Tell the server at once that this host serves no queue any more; safe to call from a signal handler."""
        self._is_leaving = True
        self._wake.set()

    def _run(self) -> None:
        trouble: str | None = ""
        while not self._is_closed:
            pause = GREET_SECONDS
            self._wake.clear()
            try:
                with _asking:
                    answer = self._server.greet(self._greeting())
            except ClouduploaderError as exc:
                pause = RETRY_SECONDS
                if trouble != exc.message and not self._is_closed:
                    trouble = exc.message
                    self._host.log.tell("trouble", text=f"{trouble}; it is asked again until it answers")
            else:
                if trouble is not None:
                    trouble = None
                    self._host.log.tell("greeted", server=self._server.url)
                with contextlib.suppress(OSError):  # of a full disk the attempts tell
                    (self._host.spool / GREETED_NAME).touch(files.GROUP_MODE)
                seconds = answer.get("greet_seconds")
                if isinstance(seconds, int | float) and seconds <= MAX_GREET_SECONDS:
                    pause = float(seconds)
                self._drain(is_draining=bool(answer.get("drain")))
            self._wake.wait(max(RETRY_SECONDS, pause))

    def _greeting(self) -> dict[str, Any]:
        return {
            "name": self._settings.host,
            "protocol": protocol.VERSION,
            "version": clouduploader.__version__,
            "slots": self._settings.slots,
            "queues": list(self._settings.serves) if self._is_connected and not self._is_leaving else [],
            "clock": time.time(),
        }

    def _drain(self, *, is_draining: bool) -> None:
        """Take no more messages, or some again."""
        if is_draining != self._is_draining:
            self._host.log.tell("draining" if is_draining else "undrained")
        self._is_draining = is_draining
        consumer = getattr(self._worker, "consumer", None)
        if consumer and not self._is_leaving:
            consumer.call_soon(self._set_queues, consumer)

    def _set_queues(self, consumer: Any) -> None:  # noqa: ANN401
        """Consume from our queues, or from none; in the thread that has the connection."""
        if not consumer.task_consumer:
            return  # not connected: the next greeting finds it
        for queue in map(broker.queue_name, self._settings.serves):
            is_consuming = consumer.task_consumer.consuming_from(queue)
            if self._is_draining and is_consuming:
                consumer.cancel_task_queue(queue)
            elif not self._is_draining and not is_consuming:
                consumer.add_task_queue(queue)


def _register(app: Celery, host: HostFacts, server: ClusterServer) -> None:
    """Register the task, and what each process of the pool does first."""
    main_pid = os.getpid()

    @app.task(name=protocol.TASK)  # type: ignore[untyped-decorator]
    def upload(job: str, attempt: int, url: str) -> None:
        task.upload(host, server, job, attempt, url)

    def begin(**_facts: object) -> None:
        end_with_parent(main_pid)
        host.log.renew()

    signals.worker_process_init.connect(begin, weak=False)


def _log_to(log: ServiceLog) -> None:
    """Write what Celery warns of into our log, and nothing else of it."""
    signals.setup_logging.connect(lambda **_facts: None, weak=False)  # Celery sets up nothing then
    logging.captureWarnings(capture=True)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)  # they are for Celery's developers
    handler = service_log.Handler(log)
    handler.addFilter(soften)
    for logger in (logging.getLogger(), billiard.util.get_logger()):
        logger.addHandler(handler)
        logger.setLevel(logging.WARNING)


def soften(record: logging.LogRecord) -> bool:
    """Make one line of what a library says, without a traceback if a broker or a process is gone; a filter of records.

    Args:
        record: Is changed.

    Returns:
        True, for all are logged.
    """
    record.msg, record.args = " ".join(record.getMessage().split()), ()
    kind = record.exc_info[0] if record.exc_info else None
    if kind and issubclass(kind, OSError | AMQPError | WorkerLostError):  # the message says all
        record.exc_info, record.levelname = None, logging.getLevelName(logging.WARNING)
    return True
