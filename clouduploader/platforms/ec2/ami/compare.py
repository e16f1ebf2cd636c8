"""An image of the account that has our name already: what of it is as this upload asks, and what can be made so.

Its content is compared by whoever knows ours; here it is what else was asked for.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from clouduploader.errors import ClouduploaderError, PlatformReplyError
from clouduploader.platforms.ec2 import aws_errors, boto, fields, image_spec, labels
from clouduploader.platforms.ec2.ami import find
from clouduploader.platforms.ec2.image_spec import ImageAttributes
from clouduploader.plugin import CloudObject, JsonValue, Reporter, UploadRequest
from clouduploader.util.cancel import Cancel
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
        """In words: "description from 'a' to 'b'"."""
        return f"{self.what} from {self.theirs} to {self.ours}"


@frozen()
class ExistingImage:
    """What has the name already.

    Attributes:
        objects: The image and its snapshots.
        is_failed: Whether it is a dead end of an earlier try of this upload, and must go.
        image: As DescribeImages has it, if it is the result of this upload.
    """

    objects: tuple[CloudObject, ...] = ()
    is_failed: bool = False
    image: Mapping[str, Any] | None = None


def existing(
    ec2: Any,  # noqa: ANN401 boto3 makes its clients at run time
    request: UploadRequest,
    wanted: Mapping[str, str],
    *,
    attributes: ImageAttributes,
    unpacked_bytes: int,
    reporter: Reporter,
    cancel: Cancel,
) -> ExistingImage:
    """Find the image that an earlier upload of this one made; nothing if the name is free.

    Waits as long as the image of a try that was just before us may not show.

    Args:
        ec2: A client of EC2.
        request: See UploadRequest.
        wanted: The tags of what this upload makes.
        attributes: What the image is to be registered with.
        unpacked_bytes: The size of the raw disk.
        reporter: Told what can't be compared.
        cancel: Looked at while waiting.

    Raises:
        StoppedError: The stop was requested.
        PlatformReplyError: The name is another image's.
    """
    region = str(request.targetdata["region"])
    name = str(request.targetdata["ami_name"])
    found = find.named_by_now(ec2, name, region, journal=request.journal, cancel=cancel)
    if found is None:
        return ExistingImage()
    if find.is_failed(found, request.journal.key):
        return ExistingImage((CloudObject("image", str(found["ImageId"]), region),), is_failed=True)
    image_id, theirs = str(found["ImageId"]), labels.as_mapping(found.get("Tags"))
    if not find.is_same(theirs, wanted):
        other, is_ours = theirs.get(labels.SHA256), labels.KEY in theirs
        difference = (
            f"it was made of a file of SHA-256 {other}, this one has {wanted[labels.SHA256]}" if other else None
        )
        if is_ours and not other:
            difference = f"without a tag {labels.SHA256} it can't be compared with this one"
        raise aws_errors.name_taken(image_id, difference)
    check(
        found,
        request.targetdata,
        key=request.journal.key,
        attributes=attributes,
        volume_gib=image_spec.allowed_volume_sizes(request.targetdata.get("root_volume_size"), unpacked_bytes),
        uefi_data_of=lambda image_id: uefi_data(ec2, image_id, region),
        reporter=reporter,
    )
    return ExistingImage(tuple(find.objects(found, region)), image=found)


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
        volume_gib: From `image_spec.allowed_volume_sizes`.
        uefi_data_of: Tells the UEFI variable store of an image, in base64, or None; see `uefi_data`.
        reporter: Told what can't be compared.
        kms_key_arn: What ours is to be encrypted with; None if any key will do.
        key_of: Tells the ARN of the KMS key of a snapshot, or None.

    Raises:
        PlatformReplyError: It is another, and can't be changed.
        DeniedError: The role may not look whether its UEFI data are those that are asked for.
    """
    image_id = str(image["ImageId"])
    if image.get("State") not in find.LIVING_STATES:
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
