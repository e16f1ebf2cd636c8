"""The tags by which our snapshots and images are known again; pure functions, for both methods."""

import datetime
from collections.abc import Mapping

import clouduploader

PREFIX = "clouduploader:"
KEY = f"{PREFIX}key"
"""Marks everything that an upload makes: `UploadJournal.key`."""
JOB = f"{PREFIX}job"
FILENAME = f"{PREFIX}filename"
VERSION = f"{PREFIX}version"
STARTED = f"{PREFIX}started"
"""When the try began that made it, ISO 8601: AWS does not tell the age of a VPC."""
SHA256 = f"{PREFIX}sha256"
"""Of the image file as it was, packed, in hex."""
CONTENT = f"{PREFIX}content"
"""Of what is on the disk, see `content`; the same whatever the packing was."""
PROVENANCE = ("project", "package", "repository", "arch")
"""Keys of `UploadRequest.provenance` that become tags of these names."""

MAX_TAGS = 50  # of one resource; EC2 User Guide, "Tag restrictions"
MAX_VALUE_LENGTH = 255  # EBS direct API, TagValue; EC2's own takes one character more
ESSENTIAL = (KEY, SHA256, CONTENT)
"""Those that must be there whatever else is: MAX_TAGS less these are left for the user."""


def own(
    *,
    key: str,
    job_name: str | None,
    filename: str,
    provenance: Mapping[str, str],
    started: datetime.datetime | None = None,
) -> dict[str, str]:
    """Make the tags that are known before anything is made; those of no value are left out.

    Args:
        key: See `UploadJournal`.
        job_name: The job's id, or None.
        filename: The image's real name.
        provenance: See `UploadRequest`.
        started: When the upload began, aware.
    """
    values = {
        KEY: key,
        JOB: job_name or "",
        **{f"{PREFIX}{word}": provenance.get(word, "") for word in PROVENANCE},
        FILENAME: filename,
        VERSION: clouduploader.__version__,
        STARTED: started.isoformat(timespec="seconds") if started else "",
    }
    return {name: _value(text) for name, text in values.items() if text}


def content(digest: str, size_bytes: int) -> str:
    """The value of CONTENT: the same for the same disk, and for no other.

    Args:
        digest: `ConfirmedBlocks.content_digest` of all blocks, in hex.
        size_bytes: Of the raw disk.
    """
    return f"{digest}:{size_bytes}"


def content_bytes(image_tags: Mapping[str, str]) -> list[int]:
    """The size of the raw disk by the tag CONTENT of an image; nothing if it has none of ours."""
    size = image_tags.get(CONTENT, "").partition(":")[2]
    return [int(size)] if size.isdecimal() and size.isascii() else []


def joined(own_tags: Mapping[str, str], users: object) -> dict[str, str]:
    """Our tags and the user's, as many as AWS takes.

    Args:
        own_tags: From `own`, perhaps with SHA256 and CONTENT.
        users: The target data's `tags`; `fields.problems` saw to it that they fit beside the essential ones.
    """
    essential = {name: own_tags[name] for name in ESSENTIAL if name in own_tags}
    everything = essential | of_user(users) | dict(own_tags)
    room = MAX_TAGS - len(set(ESSENTIAL) - essential.keys())  # for those that come later
    return dict(list(everything.items())[:room])


def of_user(users: object) -> dict[str, str]:
    """The target data's `tags`, or nothing, as a mapping."""
    return {name: str(value) for name, value in users.items()} if isinstance(users, dict) else {}


def as_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as the APIs of AWS take them."""
    return [{"Key": name, "Value": value} for name, value in tags.items()]


def as_mapping(tags: object) -> dict[str, str]:
    """Tags as the APIs of AWS give them, a list or nothing, back as a mapping."""
    return {tag["Key"]: tag.get("Value", "") for tag in tags} if isinstance(tags, list) else {}


def _value(text: str) -> str:
    """What may stand in a tag: no control characters, no lone surrogates, not too long."""
    shown = "".join(char if char.isprintable() else "?" for char in text)
    return shown[:MAX_VALUE_LENGTH]
