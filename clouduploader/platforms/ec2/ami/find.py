"""The images of the account: found by name, and what DescribeImages tells of them.

Source: EC2 API, DescribeImages (botocore's model `ec2/2016-11-15`).
"""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

from clouduploader.errors import ClouduploaderError
from clouduploader.platforms.ec2 import aws_errors, boto, labels, retry
from clouduploader.plugin import CloudObject, Journal, visibility
from clouduploader.util.cancel import Cancel

PENDING_STATES = ("pending", "transient")  # EC2 API, ImageState
LIVING_STATES = ("available", *PENDING_STATES)  # of an image that can be used, or will be
FAILED_STATES = ("failed", "error", "invalid", "deregistered")


def named(ec2: Any, name: str, region: str) -> Mapping[str, Any] | None:  # noqa: ANN401 a client of boto3
    """Find the account's image of that name, a disabled one too, as DescribeImages tells of it, or None.

    Raises:
        ClouduploaderError: AWS refuses to tell.
    """
    with boto.translated(f"region {region}"):
        filters = [{"Name": "name", "Values": [name]}]
        images = ec2.describe_images(Owners=["self"], Filters=filters, IncludeDisabled=True)["Images"]
    exactly = [image for image in images if image.get("Name") == name]  # * and ? in a filter match anything
    return exactly[0] if exactly else None


def named_by_now(
    ec2: Any,  # noqa: ANN401 a client of boto3
    name: str,
    region: str,
    *,
    journal: Journal,
    cancel: Cancel,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Mapping[str, Any] | None:
    """The same as `named`, but not before an image would show that an earlier try may have made. Blocks for minutes.

    Args:
        ec2: A client of EC2.
        name: Of the image.
        region: The client's.
        journal: Of the upload.
        cancel: Looked at between the looks.
        sleep: For tests.
        clock: For tests; seconds that only grow.

    Raises:
        StoppedError: The stop was requested.
        ClouduploaderError: AWS refuses to tell.
    """
    last: Mapping[str, object] = {}
    for entry in journal.entries():
        if (entry.get("kind"), entry.get("region")) == ("image", region):
            last = entry if entry["what"] in ("asked", "made") else {}
    look = functools.partial(named, ec2, name, region)
    return retry.until_seen(look, visibility.seconds_left(last), cancel=cancel, sleep=sleep, clock=clock)


def snapshot_ids(image: Mapping[str, Any]) -> list[str]:
    """The snapshots of an image, as DescribeImages tells of it."""
    mappings = [mapping.get("Ebs", {}) for mapping in image.get("BlockDeviceMappings", [])]
    return [ebs["SnapshotId"] for ebs in mappings if ebs.get("SnapshotId")]


def objects(image: Mapping[str, Any], region: str) -> list[CloudObject]:
    """An image and its snapshots, as DescribeImages tells of it."""
    found = [CloudObject("image", str(image["ImageId"]), region)]
    return found + [CloudObject("snapshot", snapshot_id, region) for snapshot_id in snapshot_ids(image)]


def id_of_snapshot(ec2: Any, name: str, snapshot_id: str, region: str) -> str | None:  # noqa: ANN401 a client of boto3
    """The id of the image of that name, if it is there and has that snapshot."""
    found = seen(ec2, name, region)
    return str(found["ImageId"]) if found and snapshot_id in snapshot_ids(found) else None


def seen(ec2: Any, name: str, region: str) -> Mapping[str, Any] | None:  # noqa: ANN401 a client of boto3
    """The image of that name; None also if it can't be looked for."""
    try:
        return named(ec2, name, region)
    except ClouduploaderError:  # what is told is why the registration failed, not why nobody could look
        return None


def is_failed(image: Mapping[str, Any], key: str) -> bool:
    """Whether an image never became one, and bears the key of this upload: it is in the way of its next try.

    Args:
        image: As DescribeImages has it.
        key: See `platform.UploadJournal`.
    """
    return image.get("State") in FAILED_STATES and labels.as_mapping(image.get("Tags")).get(labels.KEY) == key


def is_same(found: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether tags say that two images have the same content; where none tells, whether one upload made both."""
    for name in (labels.CONTENT, labels.SHA256, labels.KEY):
        if name in found and name in wanted:
            return found[name] == wanted[name]
    return False


def is_encrypted(image: Mapping[str, Any]) -> bool:
    """Whether any disk of an image, as DescribeImages has it, is encrypted."""
    return any(entry.get("Ebs", {}).get("Encrypted") for entry in image.get("BlockDeviceMappings", []))


def check_name(ec2: Any, name: str, region: str) -> None:  # noqa: ANN401 a client of boto3
    """Check that the account has no image of that name.

    Raises:
        PlatformReplyError: It has.
        ClouduploaderError: AWS refuses to tell.
    """
    if found := named(ec2, name, region):
        raise aws_errors.name_taken(found["ImageId"])
