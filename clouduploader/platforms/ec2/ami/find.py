"""The images of the account: found by name, and what DescribeImages tells of them.

Source: EC2 API, DescribeImages (botocore's model `ec2/2016-11-15`). An image is a mapping as DescribeImages has it.
"""

from collections.abc import Mapping
from typing import Any

from clouduploader.errors import ClouduploaderError
from clouduploader.platforms.ec2 import aws_errors, labels
from clouduploader.platforms.ec2.auth import Account
from clouduploader.platforms.ec2.context import Ec2Context
from clouduploader.plugin import CloudObject, Context, retry, visibility

PENDING_STATES = ("pending", "transient")  # EC2 API, ImageState
LIVING_STATES = ("available", *PENDING_STATES)  # of an image that can be used, or will be
FAILED_STATES = ("failed", "error", "invalid", "deregistered")


def named(ctx: Context, account: Account) -> Mapping[str, Any] | None:
    """Find the account's image of the name that the target data give, a disabled one too.

    Raises:
        ClouduploaderError: AWS refuses to tell.
    """
    name = str(ctx.targetdata["ami_name"])
    with ctx.translated(f"region {ctx.region}"):
        images = account.ec2().describe_images(
            Owners=["self"], Filters=[{"Name": "name", "Values": [name]}], IncludeDisabled=True
        )["Images"]
    exactly = [image for image in images if image.get("Name") == name]  # * and ? in a filter match anything
    return exactly[0] if exactly else None


def named_by_now(context: Ec2Context) -> Mapping[str, Any] | None:
    """Find the image that has the upload's name, having waited until one of an earlier try would show.

    Blocks for minutes if the journal tells of such a try.

    Raises:
        StoppedError: The upload was cancelled.
        ClouduploaderError: AWS refuses to tell.
    """
    ctx = context.ctx
    last: Mapping[str, object] = {}
    for entry in ctx.request.journal.entries():
        if (entry.get("kind"), entry.get("region")) == ("image", ctx.region):
            last = entry if entry["what"] in ("asked", "made") else {}
    return retry.look_until(
        lambda: named(ctx, context.account),
        visibility.seconds_left(last),
        cancel=ctx.cancel,
        clock=ctx.clock,
    )


def named_if_told(context: Ec2Context) -> Mapping[str, Any] | None:
    """Find the image that has the upload's name; None also if AWS does not tell."""
    try:
        return named(context.ctx, context.account)
    except ClouduploaderError:  # the caller reports why the registration failed, not why the image can't be seen
        return None


def id_of_snapshot(context: Ec2Context, snapshot_id: str) -> str | None:
    """Return the id of the image of the upload's name if it has that snapshot; None also if AWS does not tell."""
    found = named_if_told(context)
    return str(found["ImageId"]) if found and snapshot_id in snapshot_ids(found) else None


def check_name(ctx: Context, account: Account) -> None:
    """Check that the account has no image of the name that the target data give.

    Raises:
        PlatformReplyError: It has.
        ClouduploaderError: AWS refuses to tell.
    """
    if found := named(ctx, account):
        raise aws_errors.name_taken(found["ImageId"])


def volumes(image: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """List what DescribeImages tells of an image's disks on EBS, under `Ebs`."""
    return [mapping["Ebs"] for mapping in image.get("BlockDeviceMappings", []) if "Ebs" in mapping]


def snapshot_ids(image: Mapping[str, Any]) -> list[str]:
    """List the snapshots of an image; of one that is pending, not all may be known."""
    return [ebs["SnapshotId"] for ebs in volumes(image) if ebs.get("SnapshotId")]


def objects(image: Mapping[str, Any], region: str) -> list[CloudObject]:
    """Name an image and its snapshots."""
    snapshots = [CloudObject("snapshot", snapshot_id, region) for snapshot_id in snapshot_ids(image)]
    return [CloudObject("image", str(image["ImageId"]), region), *snapshots]


def tags(image: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of an image by their names."""
    return labels.as_mapping(image.get("Tags"))


def is_failed(image: Mapping[str, Any], key: str) -> bool:
    """Tell whether an image never came to be, and is of an earlier try of this upload: the next try removes it.

    Args:
        image: As DescribeImages has it.
        key: Of the upload's journal.
    """
    return image.get("State") in FAILED_STATES and tags(image).get(labels.KEY) == key


def is_same(found: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Tell whether tags say that two images have the same content; where none tells, whether one upload made both."""
    for name in (labels.CONTENT, labels.SHA256, labels.KEY):
        if name in found and name in wanted:
            return found[name] == wanted[name]
    return False


def is_encrypted(image: Mapping[str, Any]) -> bool:
    """Tell whether any disk of an image is encrypted."""
    return any(ebs.get("Encrypted") for ebs in volumes(image))
