"""A job as the commands show it: its fields, times, and objects in the cloud."""

import time
from typing import TYPE_CHECKING, Any

from clouduploader.cli.session import Session
from clouduploader.model.job import Job

if TYPE_CHECKING:  # `list` needs none of these
    from clouduploader.jobs.inspect import JobInspection
    from clouduploader.plugin import CloudObject

DAMAGED = "damaged"

FIELDS = (
    "state", "created", "user", "target", "project", "repository", "package", "arch", "filename", "size",
    "progress", "try", "pid", "host", "attempt", "since", "details",
)  # fmt: skip
"""What is shown of a job, in this order; XML's names, `state` being `damaged` for a damaged one, and its host's."""


def job_fields(job: Job) -> dict[str, Any]:
    """Return what is shown of a job, by FIELDS; `created` and `since` in UTC."""
    values = vars(job)
    fields = {field: values["try_" if field == "try" else field] for field in FIELDS}
    return fields | {field: utc(values[field]) for field in ("created", "since") if values[field] is not None}


def utc(seconds: float) -> str:
    """Return a time, in seconds since the epoch, as ISO 8601; a number that is no time as it is."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s"


def inspect(session: Session, name: str, *, lines: int) -> "JobInspection":
    """Find all about a job, in the spool or at the server that the session names.

    Args:
        session: See Session.
        name: The job's id.
        lines: How many of the end of its log.

    Raises:
        NoSuchJobError: There is no such job.
    """
    from clouduploader.jobs import inspect

    server = session.server
    if server:
        return inspect.inspect_at_server(server, name, lines=lines)
    return inspect.inspect_job(session.open_spool(), name, lines=lines, state_dir=session.config.state.value)


def object_document(thing: "CloudObject") -> dict[str, str]:
    """Return an object in the cloud for JSON."""
    return {"kind": thing.kind, "id": thing.id, "region": thing.region}


def object_text(thing: "CloudObject") -> str:
    """Return an object in the cloud in words."""
    return f"{thing.kind} {thing.id}" + (f" in {thing.region}" if thing.region else "")
