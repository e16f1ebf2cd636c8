"""Compare an image that has the upload's name already with what the upload asks for; list what can be made so.

EBS direct compares the content itself (`ebs.upload`), ec2uploadimg the digest of the file (`existing`).
"""

import base64
import binascii
import hashlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from clouduploader.errors import ClouduploaderError, PlatformReplyError
from clouduploader.platforms.ec2 import ami, aws_errors, fields, image_spec, labels
from clouduploader.platforms.ec2.context import Ec2Context
from clouduploader.platforms.ec2.image_spec import ImageAttributes
from clouduploader.plugin import CloudObject
from clouduploader.util.frozen import frozen


@frozen()
class ImageChange:
    """Something of an image that is to be made as it was asked for.

    Attributes:
        what: For the words: "description".
        theirs: How it is.
        ours: How it is to be.
        call: The method of boto3's client that does it.
        parameters: Of that method.
    """

    what: str
    theirs: str
    ours: str
    call: str
    parameters: Mapping[str, Any]

    def __str__(self) -> str:
        """Say it in words: "description from 'a' to 'b'"."""
        return f"{self.what} from {self.theirs} to {self.ours}"


@frozen()
class ExistingImage:
    """The image that has the upload's name already, if any.

    Attributes:
        objects: The image and its snapshots.
        is_failed: Whether it is a failed one of an earlier try of this upload, and must be removed.
        image: As DescribeImages has it, if it is the result of this upload.
    """

    objects: tuple[CloudObject, ...] = ()
    is_failed: bool = False
    image: Mapping[str, Any] | None = None


def existing(
    context: Ec2Context,
    wanted: Mapping[str, str],
    *,
    attributes: ImageAttributes,
    unpacked_bytes: int,
) -> ExistingImage:
    """Find the image that an earlier upload of the same file by ec2uploadimg made; nothing if the name is free.

    Blocks for minutes if an image of an earlier try may not show yet.

    Args:
        context: The upload.
        wanted: The tags of what this upload makes.
        attributes: What the image is to be registered with.
        unpacked_bytes: The size of the raw disk.

    Raises:
        StoppedError: The upload was cancelled.
        PlatformReplyError: The name is another image's.
    """
    ctx = context.ctx
    found = ami.named_by_now(context)
    if found is None:
        return ExistingImage()
    image_id, theirs = str(found["ImageId"]), ami.tags(found)
    if ami.is_failed(found, ctx.request.journal.key):
        return ExistingImage((CloudObject("image", image_id, ctx.region),), is_failed=True)
    if not ami.is_same(theirs, wanted):
        other, is_ours = theirs.get(labels.SHA256), labels.KEY in theirs
        difference = (
            f"it was made of a file of SHA-256 {other}, this one has {wanted[labels.SHA256]}" if other else None
        )
        if is_ours and not other:
            difference = f"without a tag {labels.SHA256} it can't be compared with this one"
        raise aws_errors.name_taken(image_id, difference)
    sizes = image_spec.allowed_volume_sizes(ctx.targetdata.get("root_volume_size"), unpacked_bytes)
    check(context, found, attributes=attributes, volume_gib=sizes)
    return ExistingImage(tuple(ami.objects(found, ctx.region)), image=found)


def check(
    context: Ec2Context,
    image: Mapping[str, Any],
    *,
    attributes: ImageAttributes,
    volume_gib: Collection[int],
    kms_key_arn: str | None = None,
) -> None:
    """Check that an existing image is what the target data ask for, but for what `changes` can make so.

    One that bears our key was made for the same target data, whatever EC2 tells of it or leaves out.

    Args:
        context: The upload; its target data's `encrypted`, `kms_key_id` and `tags` are used.
        image: As DescribeImages has it.
        attributes: Ours.
        volume_gib: From `image_spec.allowed_volume_sizes`.
        kms_key_arn: What ours is to be encrypted with; None if any key will do.

    Raises:
        PlatformReplyError: It is another, and can't be changed.
        DeniedError: The role may not look whether its UEFI data are those that are asked for.
    """
    ctx, image_id = context.ctx, str(image["ImageId"])
    if image.get("State") not in ami.LIVING_STATES:
        raise aws_errors.name_taken(image_id, f"it can't be used, for its state is {image.get('State')}")
    if ami.tags(image).get(labels.KEY) == ctx.request.journal.key:
        return
    found = [*_differences(_fixed(image), _fixed(attributes.parameters()))]
    if image.get("ImdsSupport") and not attributes.imds_support:
        found.append(f"its IMDS support is {image['ImdsSupport']}, which can't be taken back, that of this one not set")
    if (theirs := _root_volume(image).get("VolumeSize")) and volume_gib and theirs not in volume_gib:
        found.append(f"its root volume has {theirs} GiB, that of this one {min(volume_gib)}")
    if image.get("BootMode") in fields.UEFI_MODES:
        found += _uefi_difference(context, image_id, attributes.uefi_data)
    found += _encryption_difference(context, image, kms_key_arn)
    given = {name for name in ami.tags(image) if not name.startswith(fields.TAG_PREFIX_OF_AWS)}
    if (number := len(given | labels.of_user(ctx.targetdata.get("tags")).keys())) > labels.MAX_TAGS:
        found.append(f"with its own tags and those of this one it would have {number}, and EC2 takes {labels.MAX_TAGS}")
    if found:
        raise aws_errors.name_taken(image_id, "; ".join(found))


def check_copy(copy: Mapping[str, Any], source: Mapping[str, Any]) -> None:
    """Check that an existing image is as the one that it is to be a copy of, but for what `changes` can make so.

    Args:
        copy: As DescribeImages has it.
        source: The same.

    Raises:
        PlatformReplyError: It is another.
    """
    found = [*_differences(_fixed(copy), _fixed(source))]
    if copy.get("ImdsSupport") and not source.get("ImdsSupport"):
        found.append(f"its IMDS support is {copy['ImdsSupport']}, which can't be taken back, that of this one not set")
    theirs, ours = (_root_volume(image).get("VolumeSize") for image in (copy, source))
    if theirs != ours:
        found.append(f"its root volume has {theirs} GiB, that of this one {ours}")
    if found:
        raise aws_errors.name_taken(str(copy["ImageId"]), "; ".join(found))


def changes(context: Ec2Context, image: Mapping[str, Any], wanted: ImageAttributes) -> Iterator[ImageChange]:
    """List what must be changed for an image to be as it is asked for; its other tags are left.

    Nothing, if it bears our key: then it was made, or changed, as these very target data ask.

    Args:
        context: The upload; its target data's `tags` are used.
        image: As DescribeImages has it.
        wanted: Description and IMDS support are used.
    """
    ctx, image_id, theirs = context.ctx, str(image["ImageId"]), ami.tags(image)
    if theirs.get(labels.KEY) == ctx.request.journal.key:
        return
    old = str(image.get("Description") or "")
    if old != wanted.description:
        parameters: dict[str, Any] = {"ImageId": image_id, "Description": {"Value": wanted.description}}
        yield ImageChange("description", repr(old), repr(wanted.description), "modify_image_attribute", parameters)
    if wanted.imds_support and not image.get("ImdsSupport"):
        parameters = {"ImageId": image_id, "ImdsSupport": {"Value": wanted.imds_support}}
        yield ImageChange("IMDS support", "not set", wanted.imds_support, "modify_image_attribute", parameters)
    others = {
        name: value for name, value in labels.of_user(ctx.targetdata.get("tags")).items() if theirs.get(name) != value
    }
    if others:
        snapshots = ami.snapshot_ids(image)
        was = ", ".join(f"{name}={theirs[name]}" if name in theirs else f"no {name}" for name in others)
        now = ", ".join(f"{name}={value}" for name, value in others.items())
        parameters = {"Resources": [image_id, *snapshots], "Tags": labels.as_list(others)}
        yield ImageChange("tags", was, now, "create_tags", parameters)


def key_of_snapshot(context: Ec2Context, snapshot_id: str) -> str | None:
    """Return the ARN of the KMS key that a snapshot is encrypted with, or None.

    Raises:
        ClouduploaderError: AWS refuses to tell.
    """
    with context.ctx.translated(f"region {context.region}"):
        found = context.ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    if not found:
        raise PlatformReplyError(f"EC2 does not tell of the snapshot {snapshot_id} in {context.region}")
    return str(found[0]["KmsKeyId"]) if found[0].get("KmsKeyId") else None


def _fixed(image: Mapping[str, Any]) -> dict[str, str | None]:
    """Return what can't be changed of an image, as DescribeImages or RegisterImage has it."""
    return {
        "architecture": image.get("Architecture"),
        "boot mode": image.get("BootMode"),
        "ENA support": "on" if image.get("EnaSupport") else "off",
        "SR-IOV support": image.get("SriovNetSupport"),
        "TPM support": image.get("TpmSupport"),
    }


def _differences(theirs: Mapping[str, str | None], ours: Mapping[str, str | None]) -> Iterator[str]:
    for what, value in theirs.items():
        if value != ours[what]:
            yield f"its {what} is {value or 'not set'}, that of this one {ours[what] or 'not set'}"


def _uefi_difference(context: Ec2Context, image_id: str, ours: str | None) -> Iterator[str]:
    ctx = context.ctx
    try:
        with ctx.translated(f"region {ctx.region}"):
            answer = context.ec2.describe_image_attribute(ImageId=image_id, Attribute="uefiData")
    except ClouduploaderError as exc:
        if ours or not aws_errors.is_denied(exc):
            raise
        ctx.reporter.line(f"Whether {image_id} has UEFI data can't be told: {exc.message}")
        return
    theirs = answer.get("UefiData", {}).get("Value")
    shown = [_store_in_words(data) for data in (theirs, ours)]
    if shown[0] != shown[1]:
        yield f"its UEFI data are {shown[0]}, those of this one {shown[1]}"


def _store_in_words(data: str | None) -> str:
    """Describe a variable store by what is in it, however its base64 is broken into lines."""
    if not data:
        return "not set"
    try:
        content = base64.b64decode(data)
    except binascii.Error:
        content = data.encode()
    return f"of SHA-256 {hashlib.sha256(content).hexdigest()}"


def _encryption_difference(context: Ec2Context, image: Mapping[str, Any], kms_key_arn: str | None) -> Iterator[str]:
    targetdata = context.ctx.targetdata
    is_to_be_encrypted = bool(targetdata.get("encrypted") or targetdata.get("kms_key_id"))
    for ebs in ami.volumes(image):
        if not ebs.get("SnapshotId"):
            continue
        if targetdata.get("encrypted") is False and ebs.get("Encrypted"):
            yield "it is encrypted, as this one is not to be"
        if not is_to_be_encrypted:
            continue
        if not ebs.get("Encrypted"):
            yield "it is not encrypted, as this one is to be"
            continue
        theirs = key_of_snapshot(context, ebs["SnapshotId"])
        if kms_key_arn and theirs and theirs != kms_key_arn:
            yield f"it is encrypted with {theirs}, this one is to be with {kms_key_arn}"


def _root_volume(image: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the volume of the root device, as DescribeImages has it; empty if it does not tell."""
    root = image.get("RootDeviceName")
    found = [entry.get("Ebs", {}) for entry in image.get("BlockDeviceMappings", []) if entry.get("DeviceName") == root]
    return found[0] if found else {}
