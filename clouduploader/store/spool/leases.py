"""The leases of a cluster's jobs, on disk: `.N.lease` beside the record of job N.

One JSON object: which attempt is the newest, whether it waits for a host or which host has it. It is written when that
changes, and not when a host gives a sign of life: how long a lease still lives is known to the server's process alone.
"""

import dataclasses
import enum
import json
import os
import re
from typing import Any

from clouduploader.errors import CannotCreateError, JobFileError, LocalIOError
from clouduploader.model.job import Job, JobState
from clouduploader.store.spool.paths import SpoolPaths
from clouduploader.util import files, privileges
from clouduploader.util.frozen import frozen

MAX_BYTES = 1 << 16  # ours have some 400
MAX_NUMBER = 2**53  # what JSON readers keep exactly
MAX_SINCE = 1e11  # in the year 5138, which all that shows times can show
_DIGEST = re.compile("[0-9a-f]{64}")


class LeaseState(enum.StrEnum):
    """What became of the newest attempt."""

    PUBLISHED = "published"  # its message is on the way to a host
    CLAIMED = "claimed"  # a host works on it
    FREE = "free"  # neither; the job waits for the next one


@frozen(kw_only=True)
class LeaseRecord:
    """The newest attempt of a job.

    Attributes:
        attempt: Its number, from 1.
        state: See LeaseState.
        queue: To which it was published.
        host: Which host has claimed it; None if none has.
        claim: The SHA-256 of the claim's id, in hexadecimal digits; None as `host`.
        since: Since when it is in this state, in s since the epoch.
        seconds: How long a host that has claimed it has it after its last sign of life, as it was told.
        beat_seconds: How long the answer to a beat may take, as it was told too; the shortest if that is not known.
        takeovers: How many hosts were lost in this try of the job.
        journal: The key of the upload's journal; None as `host`.
        log_start: Where in the job's log its own lines begin.
        sha256: Of the image, in hexadecimal digits; None if that is not known.
        identity: Inode, size and time of modification in ns of the image file that this was computed of.
    """

    attempt: int
    state: LeaseState
    queue: str
    host: str | None = None
    claim: str | None = None
    since: float
    seconds: int = 0
    beat_seconds: int = 1
    takeovers: int = 0
    journal: str | None = None
    log_start: int = 0
    sha256: str | None = None
    identity: tuple[int, int, int] | None = None


@privileges.works_as_owner
def read(jobs: SpoolPaths, name: str) -> LeaseRecord | None:
    """Read the lease of a job; None if it has none.

    Raises:
        JobFileError: The file is damaged.
        LocalIOError: It can't be read.
    """
    path = jobs.lease_path(name)
    try:
        with files.open_read(path) as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise LocalIOError(f"{path} can't be read: {exc.strerror}") from exc
    try:
        return _parsed(json.loads(data))
    except (ValueError, TypeError, KeyError, RecursionError):
        raise JobFileError(f"{path} is damaged: it is no record of a lease") from None


def with_host(jobs: SpoolPaths, job: Job) -> Job:
    """Return a job with the host that has it; as it is if none has, or the lease can't be read."""
    if job.state is not JobState.UPLOADING:
        return job
    try:
        record = read(jobs, job.name)
    except (JobFileError, LocalIOError):
        return job
    if record is None or record.state is not LeaseState.CLAIMED:
        return job
    return dataclasses.replace(job, host=record.host, attempt=record.attempt, since=int(record.since))


@privileges.works_as_owner
def write(jobs: SpoolPaths, name: str, record: LeaseRecord) -> None:
    """Write the lease of a job; it is on the disk then.

    Raises:
        CannotCreateError, MissingFileError: It can't be written; the old one is still there.
    """
    path = jobs.lease_path(name)
    try:
        files.replace_file(path, json.dumps(dataclasses.asdict(record)).encode(), mode=files.GROUP_MODE)
    except OSError as exc:
        raise jobs.cannot_create(path, exc) from exc


@privileges.works_as_owner
def remove(jobs: SpoolPaths, name: str) -> None:
    """Remove the lease of a job that is over.

    Raises:
        CannotCreateError: It can't be removed.
    """
    path = jobs.lease_path(name)
    try:
        path.unlink(missing_ok=True)
    except OSError as exc:
        raise CannotCreateError(f"{path} can't be removed: {exc.strerror}") from exc


def identity_of(status: os.stat_result) -> tuple[int, int, int]:
    """Return what changes whenever an image file is written or replaced; see `LeaseRecord`."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def _parsed(document: Any) -> LeaseRecord:  # noqa: ANN401 whatever JSON has
    """Make a record of what is in the file.

    Raises:
        ValueError, TypeError, KeyError: It is none.
    """
    document = {"beat_seconds": LeaseRecord.beat_seconds, **document}  # an earlier version did not write it
    values = {field.name: document[field.name] for field in dataclasses.fields(LeaseRecord)}
    for name in ("attempt", "seconds", "beat_seconds", "takeovers", "log_start"):
        if type(values[name]) is not int or not 0 <= values[name] < MAX_NUMBER:
            raise ValueError(name)
    for name in ("host", "claim", "journal", "sha256"):
        if not isinstance(values[name], str | None):
            raise TypeError(name)
    if values["claim"] is not None and not _DIGEST.fullmatch(values["claim"]):
        raise ValueError
    if not isinstance(values["queue"], str) or type(values["since"]) not in (int, float):
        raise TypeError
    if not 0 <= values["since"] < MAX_SINCE:
        raise ValueError
    identity = values["identity"]
    if identity is not None:
        if len(identity) != 3 or any(type(number) is not int for number in identity):
            raise ValueError
        values["identity"] = tuple(identity)
    record = LeaseRecord(**{**values, "state": LeaseState(values["state"])})
    if record.state is LeaseState.CLAIMED and not (record.host and record.claim and record.journal):
        raise ValueError
    return record
