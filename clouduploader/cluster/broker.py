"""The broker: Celery on RabbitMQ. A message holds a job's number, an attempt's and the server's URL; nothing else."""

import contextlib
import ssl
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from amqp.exceptions import AMQPError, NotFound
from celery import Celery
from kombu.connection import Connection
from kombu.exceptions import KombuError

from clouduploader.cluster import protocol
from clouduploader.cluster.settings import ClusterSettings
from clouduploader.errors import NetworkError
from clouduploader.util import certificates

HEARTBEAT_SECONDS = 10  # a host that is lost holds its messages twice as long
CONNECT_SECONDS = 10
ANSWER_SECONDS = 10  # a broker confirms within milliseconds, or has stopped to take messages: memory or disk are full
T = TypeVar("T")


def make_app(settings: ClusterSettings, password: str | None) -> Celery:
    """Return Celery's application; connects to nothing.

    Args:
        settings: Of the cluster, with a broker.
        password: Of the broker; None for none.

    Raises:
        ConfigError: The authorities of the broker's certificate can't be read.
    """
    app = Celery("clouduploader", broker=_url(settings.broker, password), set_as_current=False)
    options: dict[str, Any] = {
        "accept_content": ["json"],
        "broker_channel_error_retry": True,  # consumer_timeout of RabbitMQ closes the channel of a long job
        "broker_connection_retry_on_startup": True,
        "broker_connection_timeout": CONNECT_SECONDS,
        "broker_heartbeat": HEARTBEAT_SECONDS,
        "broker_transport_options": {"confirm_publish": True},
        "task_acks_late": True,  # with an early one a job waits behind a long one while another host idles
        "task_default_queue": queue_name(settings.serves[0]),
        "task_ignore_result": True,
        "task_reject_on_worker_lost": True,
        "task_serializer": "json",
        "worker_cancel_long_running_tasks_on_connection_loss": False,  # celery#7185: the lease decides
        "worker_prefetch_multiplier": 1,
    }
    if settings.broker.startswith("amqps:"):
        ca = settings.broker_ca
        certificates.client_context(ca)  # else it would be tried again and again, as if the broker were away
        options["broker_use_ssl"] = {
            "cert_reqs": ssl.CERT_REQUIRED,
            "ca_certs": str(ca) if ca else ssl.get_default_verify_paths().cafile,
            "server_hostname": urllib.parse.urlsplit(settings.broker).hostname,
        }
    app.conf.update(options)
    return app


class Publisher:
    """Puts messages into queues. One thread at a time; a call blocks for a connection and its answers at most.

    Args:
        settings: Of the cluster, with a broker.
        password: Of the broker; None for none.

    Raises:
        ConfigError: See `make_app`.
    """

    def __init__(self, settings: ClusterSettings, password: str | None) -> None:
        self._app = make_app(settings, password)
        self._broker = urllib.parse.urlsplit(settings.broker).netloc.rpartition("@")[2]
        self._connection: Connection | None = None

    def publish(self, queue: str, *, job: str, attempt: int, url: str) -> None:
        """Publish a job; afterwards the broker has its message on disk.

        Args:
            queue: Its name here.
            job: The job.
            attempt: The number of this publication.
            url: Of the server that has the job.

        Raises:
            NetworkError: The broker could not be reached, or did not confirm it; it may have the message all the same.
        """

        def act(channel: Any) -> None:  # noqa: ANN401 of amqp, which has no types
            declared = self._app.amqp.queues[queue_name(queue)](channel)
            declared.declare()  # each time: else a queue that was removed at the broker would swallow messages
            self._app.send_task(
                protocol.TASK,
                (job, attempt, url),
                task_id=f"{job}-{attempt}",
                queue=declared,
                producer=self._app.amqp.Producer(channel, auto_declare=False),
                retry=False,
                confirm_timeout=ANSWER_SECONDS,
            )

        self._ask(act)

    def depth(self, queue: str) -> int:
        """Return how many messages of a queue are with no host; 0 if there is no such queue.

        Raises:
            NetworkError: The broker could not be reached.
        """

        def act(channel: Any) -> int:  # noqa: ANN401 of amqp, which has no types
            try:
                return int(channel.queue_declare(queue_name(queue), passive=True).message_count)
            except NotFound:
                return 0

        return self._ask(act)

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection:
            with contextlib.suppress(OSError, AMQPError, KombuError):
                connection.release()  # type: ignore[no-untyped-call]

    def _ask(self, act: Callable[[Any], T]) -> T:
        """Do something by a channel of its own; a connection that was lost since the last time is made anew."""
        if self._connection and self._connection.connected:
            try:
                with self._channel(self._connection) as channel:
                    return act(channel)
            except (OSError, AMQPError, KombuError):
                self.close()
        try:
            if self._connection is None:
                self._connection = self._app.connection_for_write(
                    transport_options={"read_timeout": ANSWER_SECONDS, "write_timeout": ANSWER_SECONDS}
                )
                self._connection.connect()
            with self._channel(self._connection) as channel:
                return act(channel)
        except (OSError, AMQPError, KombuError) as exc:
            self.close()
            said = " ".join(str(exc).split()) or type(exc).__name__
            raise NetworkError(f"the broker {self._broker} can't be asked: {said}") from exc

    @contextlib.contextmanager
    def _channel(self, connection: Connection) -> Iterator[Any]:
        channel = connection.channel()  # type: ignore[no-untyped-call]
        try:
            yield channel
        finally:
            with contextlib.suppress(OSError, AMQPError, KombuError):
                channel.close()


def queue_name(queue: str) -> str:
    """Return what a queue is called at the broker."""
    return f"{protocol.QUEUE_PREFIX}{queue}"


def _url(url: str, password: str | None) -> str:
    parts = urllib.parse.urlsplit(url)
    if password is None:
        return url
    place = parts.netloc.rpartition("@")[2]
    user = parts.username or "guest"
    return parts._replace(netloc=f"{user}:{urllib.parse.quote(password, safe='')}@{place}").geturl()
