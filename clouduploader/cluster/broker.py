"""The broker: Celery on RabbitMQ. A message holds a job's number, an attempt's and the server's URL; nothing else."""

import ssl
import urllib.parse
from typing import Any

from celery import Celery

from clouduploader.cluster import protocol
from clouduploader.cluster.settings import ClusterSettings

HEARTBEAT_SECONDS = 10  # a host that is lost holds its messages twice as long
CONNECT_SECONDS = 10


def make_app(settings: ClusterSettings, password: str | None) -> Celery:
    """Return Celery's application; connects to nothing.

    Args:
        settings: Of the cluster, with a broker.
        password: Of the broker; None for none.
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
        options["broker_use_ssl"] = {
            "cert_reqs": ssl.CERT_REQUIRED,
            "ca_certs": str(ca) if ca else ssl.get_default_verify_paths().cafile,
            "server_hostname": urllib.parse.urlsplit(settings.broker).hostname,
        }
    app.conf.update(options)
    return app


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
