"""The tags of EC2 by which our snapshots and images are known again; pure functions, for both methods."""

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING

from clouduploader.plugin import UploadRequest
from clouduploader.plugin import labels as plugin_labels

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import TagTypeDef

PREFIX = plugin_labels.PREFIX
KEY = plugin_labels.KEY
JOB = plugin_labels.JOB
STARTED = f"{PREFIX}started"
"""When the try began that made it, ISO 8601: AWS does not tell the age of a VPC."""
SHA256 = f"{PREFIX}sha256"
"""Of the image file as it was, packed, in hex."""
CONTENT = f"{PREFIX}content"
"""Of what is on the disk, see `content`; the same whatever the packing was."""

MAX_TAGS = 50  # of one resource; EC2 User Guide, "Tag restrictions"
MAX_VALUE_LENGTH = 255  # EBS direct API, TagValue; EC2's own takes one character more
ESSENTIAL = (KEY, SHA256, CONTENT)
"""Those that must be there whatever else is: MAX_TAGS less these are left for the user."""


def own(request: UploadRequest, started: datetime.datetime) -> dict[str, str]:
    """Make the tags that are known before anything is made; those of no value are left out.

    Args:
        request: Of the upload.
        started: When the upload began, aware.
    """
    values = {**plugin_labels.of_upload(request), STARTED: started.isoformat(timespec="seconds")}
    return {name: text[:MAX_VALUE_LENGTH] for name, text in values.items()}


def content_bytes(image_tags: Mapping[str, str]) -> list[int]:
    """Read the size of the raw disk from the tag CONTENT of an image; nothing if it has none of ours."""
    size = image_tags.get(CONTENT, "").partition(":")[2]
    return [int(size)] if size.isdecimal() and size.isascii() else []


def joined(own_tags: Mapping[str, str], users: object) -> dict[str, str]:
    """Join our tags and the user's, as many as AWS takes.

    Args:
        own_tags: From `own`, perhaps with SHA256 and CONTENT.
        users: The target data's `tags`; `fields.problems` saw to it that they fit beside the essential ones.
    """
    essential = {name: own_tags[name] for name in ESSENTIAL if name in own_tags}
    everything = essential | of_user(users) | dict(own_tags)
    room = MAX_TAGS - len(set(ESSENTIAL) - essential.keys())  # for those that come later
    return dict(list(everything.items())[:room])


def of_user(users: object) -> dict[str, str]:
    """Return the target data's `tags`, or nothing, as a mapping."""
    return {name: str(value) for name, value in users.items()} if isinstance(users, dict) else {}


def as_list(tags: Mapping[str, str]) -> "list[TagTypeDef]":
    """Turn tags into what the APIs of AWS take."""
    return [{"Key": name, "Value": value} for name, value in tags.items()]


def as_mapping(tags: object) -> dict[str, str]:
    """Turn tags as the APIs of AWS give them, a list or nothing, into a mapping."""
    return {tag["Key"]: tag.get("Value", "") for tag in tags} if isinstance(tags, list) else {}
