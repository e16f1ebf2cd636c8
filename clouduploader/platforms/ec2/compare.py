"""An image of the account that has our name already: what of it is as this upload asks, and what can be made so.

Its content is compared by whoever knows ours; here it is what else was asked for.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from clouduploader.errors import ClouduploaderError, PlatformReplyError
from clouduploader.platforms.ec2 import aws_errors, boto, copies, fields, labels
from clouduploader.platforms.ec2.attributes import ImageAttributes
from clouduploader.platforms.ec2.ec2uploadimg import command
from clouduploader.plugin import JsonValue, Reporter
from clouduploader.util.frozen import frozen

GIB = 1 << 30
LIVING = ("available", "pending", "transient")  # EC2 API, ImageState: those of an image that can be used, or will be


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
        """In words: "description from 'a' to 'b'"."""
        return f"{self.what} from {self.theirs} to {self.ours}"


def is_wreck(image: Mapping[str, Any], key: str) -> bool:
    """Whether an image never became one, and bears the key of this upload: it is in the way of its next try.

    Args:
        image: As DescribeImages has it.
        key: See `platform.UploadJournal`.
    """
    return image.get("State") in copies.DEAD and labels.as_mapping(image.get("Tags")).get(labels.KEY) == key


def sizes(root_volume_size: JsonValue, *needed_bytes: int) -> frozenset[int]:
    """The sizes in GiB that the root volume may have for this upload; none if any will do.

    Without a wish it is what one of the two methods would have given it.

    Args:
        root_volume_size: Of the target data.
        needed_bytes: What must fit in; nothing if that is not known.
    """
    if isinstance(root_volume_size, int):
        return frozenset({root_volume_size})
    needed = [max(1, -(-size_bytes // GIB)) for size_bytes in needed_bytes]
    by_tool = [command.volume_gib(gib * GIB, None) for gib in needed if gib <= command.MAX_VOLUME_GIB]
    return frozenset((*needed, *by_tool))


def check(
    image: Mapping[str, Any],
    targetdata: Mapping[str, JsonValue],
    *,
    key: str,
    attributes: ImageAttributes,
    volume_gib: Collection[int],
    uefi_data_of: Callable[[str], str | None],
    reporter: Reporter,
    kms_key_arn: str | None = None,
    key_of: Callable[[str], str | None] = lambda _snapshot_id: None,
) -> None:
    """Return if an image is what the target data ask for, but for what `changes` can make so.

    One that bears our key was made for the same target data, whatever EC2 tells of it or leaves out.

    Args:
        image: As DescribeImages has it.
        targetdata: The keys `encrypted`, `kms_key_id` and `tags` are used.
        key: Of our journal.
        attributes: Ours.
        volume_gib: From `sizes`.
        uefi_data_of: Tells the UEFI variable store of an image, in base64, or None; see `uefi_data`.
        reporter: Told what can't be compared.
        kms_key_arn: What ours is to be encrypted with; None if any key will do.
        key_of: Tells the ARN of the KMS key of a snapshot, or None.

    Raises:
        PlatformReplyError: It is another, and can't be changed.
        DeniedError: The role may not look whether its UEFI data are those that are asked for.
    """
    image_id = str(image["ImageId"])
    if image.get("State") not in LIVING:
        raise aws_errors.name_taken(image_id, f"it can't be used, for its state is {image.get('State')}")
    if labels.as_mapping(image.get("Tags")).get(labels.KEY) == key:
        return
    found = [*_differences(_fixed(image), _fixed(attributes.parameters()))]
    if image.get("ImdsSupport") and not attributes.imds_support:
        found.append(f"its IMDS support is {image['ImdsSupport']}, which can't be taken back, that of this one not set")
    if (theirs := _root_volume(image).get("VolumeSize")) and volume_gib and theirs not in volume_gib:
        found.append(f"its root volume has {theirs} GiB, that of this one {min(volume_gib)}")
    if image.get("BootMode") in fields.UEFI_MODES:
        found += _uefi_difference(image_id, attributes.uefi_data, uefi_data_of, reporter)
    found += _encryption_difference(image, targetdata, kms_key_arn, key_of)
    given = {name for name in labels.as_mapping(image.get("Tags")) if not name.startswith(fields.TAG_PREFIX_OF_AWS)}
    if (number := len(given | labels.of_user(targetdata.get("tags")).keys())) > labels.MAX_TAGS:
        found.append(f"with its own tags and those of this one it would have {number}, and EC2 takes {labels.MAX_TAGS}")
    if found:
        raise aws_errors.name_taken(image_id, "; ".join(found))


def check_copy(copy: Mapping[str, Any], source: Mapping[str, Any]) -> None:
    """Return if an image that is there is as the one that it is to be a copy of, but for what `changes` can make so.

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


def changes(
    image: Mapping[str, Any],
    targetdata: Mapping[str, JsonValue],
    *,
    key: str,
    wanted: ImageAttributes,
) -> Iterator[ImageChange]:
    """What must be changed for an image to be as it is asked for; tags that nobody asks for are left.

    Nothing, if it bears our key: then it was made, or changed, as these very target data ask.

    Args:
        image: As DescribeImages has it.
        targetdata: The key `tags` is used.
        key: Of our journal.
        wanted: Description and IMDS support are used.
    """
    image_id, theirs = str(image["ImageId"]), labels.as_mapping(image.get("Tags"))
    if theirs.get(labels.KEY) == key:
        return
    old = str(image.get("Description") or "")
    if old != wanted.description:
        parameters: dict[str, Any] = {"ImageId": image_id, "Description": {"Value": wanted.description}}
        yield ImageChange("description", repr(old), repr(wanted.description), "modify_image_attribute", parameters)
    if wanted.imds_support and not image.get("ImdsSupport"):
        parameters = {"ImageId": image_id, "ImdsSupport": {"Value": wanted.imds_support}}
        yield ImageChange("IMDS support", "not set", wanted.imds_support, "modify_image_attribute", parameters)
    others = {
        name: value for name, value in labels.of_user(targetdata.get("tags")).items() if theirs.get(name) != value
    }
    if others:
        snapshots = [ebs["SnapshotId"] for ebs in _volumes(image) if ebs.get("SnapshotId")]
        was = ", ".join(f"{name}={theirs[name]}" if name in theirs else f"no {name}" for name in others)
        now = ", ".join(f"{name}={value}" for name, value in others.items())
        parameters = {"Resources": [image_id, *snapshots], "Tags": labels.as_list(others)}
        yield ImageChange("tags", was, now, "create_tags", parameters)


def uefi_data(ec2: Any, image_id: str, region: str) -> str | None:  # noqa: ANN401 a client of boto3
    """The UEFI variable store of an image in base64, or None.

    Raises:
        ClouduploaderError: AWS refuses to tell.
    """
    with boto.translated(f"region {region}"):
        answer = ec2.describe_image_attribute(ImageId=image_id, Attribute="uefiData")
    return answer.get("UefiData", {}).get("Value") or None


def key_of_snapshot(ec2: Any, snapshot_id: str, region: str) -> str | None:  # noqa: ANN401 a client of boto3
    """The ARN of the KMS key that a snapshot is encrypted with, or None.

    Raises:
        ClouduploaderError: AWS refuses to tell.
    """
    with boto.translated(f"region {region}"):
        found = ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    if not found:
        raise PlatformReplyError(f"EC2 does not tell of the snapshot {snapshot_id} in {region}")
    return str(found[0]["KmsKeyId"]) if found[0].get("KmsKeyId") else None


def _fixed(image: Mapping[str, Any]) -> dict[str, str | None]:
    """What can't be changed of an image, as DescribeImages or RegisterImage has it."""
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


def _uefi_difference(
    image_id: str, ours: str | None, uefi_data_of: Callable[[str], str | None], reporter: Reporter
) -> Iterator[str]:
    try:
        theirs = uefi_data_of(image_id)
    except ClouduploaderError as exc:
        if ours or not aws_errors.is_denied(exc):
            raise
        reporter.line(f"Whether {image_id} has UEFI data can't be told: {exc.message}")
        return
    shown = [_store_in_words(data) for data in (theirs, ours)]
    if shown[0] != shown[1]:
        yield f"its UEFI data are {shown[0]}, those of this one {shown[1]}"


def _store_in_words(data: str | None) -> str:
    """A variable store by what is in it, however its base64 is broken into lines."""
    if not data:
        return "not set"
    try:
        content = base64.b64decode(data)
    except binascii.Error:
        content = data.encode()
    return f"of SHA-256 {hashlib.sha256(content).hexdigest()}"


def _encryption_difference(
    image: Mapping[str, Any],
    targetdata: Mapping[str, JsonValue],
    kms_key_arn: str | None,
    key_of: Callable[[str], str | None],
) -> Iterator[str]:
    is_to_be_encrypted = bool(targetdata.get("encrypted") or targetdata.get("kms_key_id"))
    for ebs in _volumes(image):
        if not ebs.get("SnapshotId"):
            continue
        if targetdata.get("encrypted") is False and ebs.get("Encrypted"):
            yield "it is encrypted, as this one is not to be"
        if not is_to_be_encrypted:
            continue
        if not ebs.get("Encrypted"):
            yield "it is not encrypted, as this one is to be"
            continue
        theirs = key_of(ebs["SnapshotId"])
        if kms_key_arn and theirs and theirs != kms_key_arn:
            yield f"it is encrypted with {theirs}, this one is to be with {kms_key_arn}"


def _volumes(image: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [mapping["Ebs"] for mapping in image.get("BlockDeviceMappings", []) if "Ebs" in mapping]


def _root_volume(image: Mapping[str, Any]) -> Mapping[str, Any]:
    """The volume of the root device, as DescribeImages has it; empty if it does not tell."""
    root = image.get("RootDeviceName")
    found = [entry.get("Ebs", {}) for entry in image.get("BlockDeviceMappings", []) if entry.get("DeviceName") == root]
    return found[0] if found else {}
