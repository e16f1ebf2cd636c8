"""Messages of the broker, before Celery sees them: it may be ended by what is in one, and does more than we want.

Of a message that could be ours only job, attempt and URL are taken; what else is in it, such as times, limits or
further tasks, is not. Any other is dropped: it would come back, and end one host after the other.
"""

import json
import logging
import re
from typing import Any

from celery.worker.consumer import Consumer
from kombu.message import Message

from clouduploader.cluster import protocol

_LOGGER = logging.getLogger(__name__)
MAX_BYTES = 4096  # ours have some 200
MAX_ATTEMPT = 1 << 53  # that a server has
_JOB = re.compile(r"[0-9]{1,18}")
_PARTS = 3  # arguments, those by name, and what is to follow; and so many arguments


class CleanConsumer(Consumer):  # type: ignore[misc] # Celery has no types
    """Celery's consumer, which gets clean messages alone."""

    def create_task_handler(self, *arguments: Any, **more: Any) -> Any:  # noqa: ANN401
        """Return what takes a message."""
        take = super().create_task_handler(*arguments, **more)

        def handle(message: Message) -> None:
            if clean(message):
                take(message)
            else:
                _LOGGER.warning("a message of the broker is none of a server, and is dropped")
                message.reject_log_error(_LOGGER, self.connection_errors)  # type: ignore[no-untyped-call]

        return handle


def clean(message: Message) -> bool:
    """Leave in a message nothing but what a server says; return False if it is none of a server."""
    try:
        (job, attempt, url), _, _ = _parts(message)
    except (ValueError, TypeError, RecursionError):
        return False
    is_job = isinstance(job, str) and _JOB.fullmatch(job) and type(attempt) is int and 0 < attempt < MAX_ATTEMPT
    if not (is_job and isinstance(url, str)):
        return False
    name = f"{job}-{attempt}"
    message.body = json.dumps([[job, attempt, url], {}, {}]).encode()
    message.content_type, message.content_encoding = "application/json", "utf-8"
    message.headers = {
        "lang": "py",
        "task": protocol.TASK,
        "id": name,
        "root_id": name,
        "parent_id": None,
        "group": None,
        "argsrepr": repr((job, attempt, url)),
        "kwargsrepr": "{}",
    }
    message.properties = {"correlation_id": name}
    return True


def _parts(message: Message) -> Any:  # noqa: ANN401
    """Return what the body of a message holds.

    Raises:
        ValueError, TypeError, RecursionError: It is no JSON with that, or the message is damaged.
    """
    data = message.body
    if message.errors or message.headers.get("task") != protocol.TASK or len(data) > MAX_BYTES:
        raise ValueError
    parts = json.loads(data)
    if not (isinstance(parts, list) and len(parts) == _PARTS and isinstance(parts[0], list)):
        raise ValueError
    return parts
