"""What a server tells of its cluster: the hosts, the queues, and which host has which job."""

import dataclasses
import datetime
from collections.abc import Mapping
from typing import Any, TypeVar

from clouduploader.util.frozen import frozen


@frozen(kw_only=True)
class ClusterHost:
    """A host that uploads for the server.

    Attributes:
        name: As its settings have it.
        version: Of its clouduploader.
        protocol: Which version of the protocol it speaks.
        slots: How many uploads it does at once.
        busy: In how many of these it has a job.
        queues: Those that it takes jobs from.
        seen: When the server heard of it last.
        skew_seconds: How far its clock is before the server's.
        draining: Whether it starts no more uploads.
        gone: Whether it was not heard of for as long as a lease lasts.
    """

    name: str
    version: str
    protocol: int
    slots: int
    busy: int
    queues: tuple[str, ...]
    seen: datetime.datetime
    skew_seconds: float
    draining: bool
    gone: bool


@frozen(kw_only=True)
class ClusterQueue:
    """A queue of jobs for hosts.

    Attributes:
        name: Its name in the settings.
        published: How many jobs in it no host has claimed yet.
        oldest: Since when the oldest of these waits; None without one.
        waiting: How many messages the broker keeps; None if it could not be asked.
    """

    name: str
    published: int
    oldest: datetime.datetime | None
    waiting: int | None


@frozen(kw_only=True)
class ClusterLease:
    """A job that a host works on.

    Attributes:
        job: The job.
        user: Whose it is; None if its record does not tell.
        host: Who has it.
        attempt: Which publication of the job that is.
        takeovers: How many hosts were lost with it.
        since: When the host got it.
        until: When another one gets it, unless this one is heard of.
        queue: Where the host had it from.
    """

    job: str
    user: str | None
    host: str
    attempt: int
    takeovers: int
    since: datetime.datetime
    until: datetime.datetime
    queue: str


@frozen()
class ClusterStatus:
    """How a cluster is.

    Attributes:
        hosts: Those that were heard of since the server started, or are to be drained.
        queues: All that there are.
        leases: The jobs that hosts work on.
    """

    hosts: tuple[ClusterHost, ...]
    queues: tuple[ClusterQueue, ...]
    leases: tuple[ClusterLease, ...]


Entry = TypeVar("Entry", ClusterHost, ClusterQueue, ClusterLease)


def parse(document: Mapping[str, Any]) -> ClusterStatus:
    """Read a server's answer; keys that are not known are passed over.

    Raises:
        ValueError: It makes no sense.
    """
    return ClusterStatus(
        _entries(document.get("hosts"), ClusterHost),
        _entries(document.get("queues"), ClusterQueue),
        _entries(document.get("leases"), ClusterLease),
    )


def _entries(found: Any, kind: type[Entry]) -> tuple[Entry, ...]:  # noqa: ANN401 JSON
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError("no list of objects")
    fields = dataclasses.fields(kind)
    return tuple(kind(**{field.name: _value(one.get(field.name), field.type) for field in fields}) for one in found)


def _value(value: Any, kind: Any) -> Any:  # noqa: ANN401 JSON, and a type
    """Return a value of a field's type."""
    if value is None and kind in (str | None, int | None, datetime.datetime | None):
        return None
    if kind in (datetime.datetime, datetime.datetime | None) and isinstance(value, str):
        moment = datetime.datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return moment
    elif kind == tuple[str, ...] and isinstance(value, list) and all(isinstance(word, str) for word in value):
        return tuple(value)
    elif kind is float and type(value) in (int, float):
        return float(value)
    elif type(value) in (str, int, bool) and kind in (type(value), type(value) | None):
        return value
    raise ValueError(f"{value!r} is no {kind}")
