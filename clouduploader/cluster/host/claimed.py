"""What a server answers to a claim: all that a host needs for a job. It is checked before it is used."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from clouduploader.errors import PlatformReplyError
from clouduploader.model.job import Job, JobState
from clouduploader.store import journal
from clouduploader.store.journal import replica
from clouduploader.util.frozen import frozen

_TEXTS = ("user", "target", "project", "repository", "package", "arch", "filename")
_NUMBERS = {"size": "size", "created": "created", "try": "try_"}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_SECONDS = 1e6  # longer than any lease or grace of a server
_MAX_BYTES = 1 << 53


@frozen(kw_only=True)
class ClaimedJob:
    """A job that a host has a lease of.

    Attributes:
        lease_seconds: How long the lease lasts after a sign of life.
        beat_seconds: How long the server keeps a beat waiting.
        grace_seconds: How long the uploader of a killed job may clean up.
        job: Its record, uploading.
        data: Its target data, decrypted.
        secrets: The strings in them that must not be shown.
        image_bytes: How large its image is.
        image_sha256: The image's digest.
        journal_key: Names its journal.
        journal_files: The files of it that the server has, with their sizes.
    """

    lease_seconds: float
    beat_seconds: float
    grace_seconds: float
    job: Job
    data: Mapping[str, Any] = dataclasses.field(repr=False)
    secrets: tuple[str, ...] = dataclasses.field(repr=False)
    image_bytes: int
    image_sha256: str
    journal_key: str
    journal_files: Mapping[str, int]


def read(name: str, answer: Mapping[str, Any]) -> ClaimedJob:
    """Check the answer to the claim of a job.

    Raises:
        PlatformReplyError: It makes no sense; nothing of it is shown, for there are secrets in it.
    """
    try:
        described, image, written = answer["job"], answer["image"], answer["journal"]
        fields: dict[str, Any] = {key: _text(described.get(key)) for key in _TEXTS}
        fields |= {field: _number(described.get(key)) for key, field in _NUMBERS.items()}
        claimed = ClaimedJob(
            lease_seconds=float(answer["lease_seconds"]),
            beat_seconds=float(answer["beat_seconds"]),
            grace_seconds=float(answer["grace_seconds"]),
            job=Job(name=name, state=JobState.UPLOADING, **fields),
            data=dict(answer["data"]),
            secrets=tuple(map(str, answer["secrets"])),
            image_bytes=int(image["size"]),
            image_sha256=image["sha256"],
            journal_key=written["key"],
            journal_files={file: int(size) for file, size in written["files"].items()},
        )
        is_right = (
            1 <= claimed.lease_seconds <= _MAX_SECONDS
            and 0 <= claimed.beat_seconds <= _MAX_SECONDS
            and 0 <= claimed.grace_seconds <= _MAX_SECONDS
            and 0 <= claimed.image_bytes <= _MAX_BYTES
            and _SHA256.fullmatch(claimed.image_sha256)
            and journal.is_key(claimed.journal_key)
            and len(claimed.journal_files) <= replica.MAX_FILES
            and all(map(replica.PLATFORM_FILE.fullmatch, set(claimed.journal_files) - {journal.FILE_NAME}))
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        is_right = False
    if not is_right:
        raise PlatformReplyError(f"the server answers the claim of the job {name} with what makes no sense")
    return claimed


def _text(value: object) -> str | None:
    """Return a text that may be an argument of a program, or None."""
    if value is not None and not isinstance(value, str):
        raise TypeError
    if value and "\0" in value.encode().decode():  # lone surrogates are a UnicodeEncodeError
        raise ValueError
    return value


def _number(value: object) -> int | None:
    if value is not None and type(value) is not int:
        raise TypeError
    return value
