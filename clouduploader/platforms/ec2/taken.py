"""An image of the account that has our name already: can it be the result of this very upload?

Its content is compared by whoever knows ours; here it is what else was asked for.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from clouduploader.platform import JsonValue
from clouduploader.platforms.ec2 import api, copies, refusals, tags


def is_wreck(image: Mapping[str, Any], key: str) -> bool:
    """Whether an image never became one, and bears the key of this upload: it is in the way of its next try.

    Args:
        image: As DescribeImages has it.
        key: See `platform.Journal`.
    """
    return image.get("State") in copies.DEAD and tags.as_mapping(image.get("Tags")).get(tags.KEY) == key


def check(
    image: Mapping[str, Any],
    targetdata: Mapping[str, JsonValue],
    *,
    architecture: str,
    boot_mode: str | None,
    kms_key_arn: str | None = None,
    key_of: Callable[[str], str | None] = lambda _snapshot_id: None,
) -> None:
    """Return if an image is what the target data ask for.

    Args:
        image: As DescribeImages has it.
        targetdata: The keys `encrypted`, `kms_key_id` and `tpm_support` are used.
        architecture: Amazon's word for ours.
        boot_mode: Amazon's word for ours; None if that does not matter.
        kms_key_arn: What ours is to be encrypted with; None if any key will do.
        key_of: Tells the ARN of the KMS key of a snapshot, or None.

    Raises:
        PlatformReplyError: It is another.
    """
    for what, theirs, ours in _properties(image, targetdata, architecture, boot_mode):
        if theirs != ours:
            difference = f"its {what} is {theirs or 'not set'}, that of this one {ours}"
            raise refusals.name_taken(str(image["ImageId"]), difference)
    is_to_be_encrypted = bool(targetdata.get("encrypted") or targetdata.get("kms_key_id"))
    for mapping in image.get("BlockDeviceMappings", []):
        ebs = mapping.get("Ebs", {})
        if not ebs.get("SnapshotId") or not is_to_be_encrypted:
            continue
        if not ebs.get("Encrypted"):
            raise refusals.name_taken(str(image["ImageId"]), "it is not encrypted, as this one is to be")
        theirs = key_of(ebs["SnapshotId"])
        if kms_key_arn and theirs and theirs != kms_key_arn:
            raise refusals.name_taken(
                str(image["ImageId"]), f"it is encrypted with {theirs}, this one is to be with {kms_key_arn}"
            )


def key_of_snapshot(ec2: Any, snapshot_id: str, region: str) -> str | None:  # noqa: ANN401 a client of boto3
    """The ARN of the KMS key that a snapshot is encrypted with, or None.

    Raises:
        ClouduploaderError: AWS refuses to tell.
    """
    with api.translated(f"region {region}"):
        (found,) = ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    return str(found["KmsKeyId"]) if found.get("KmsKeyId") else None


def _properties(
    image: Mapping[str, Any], targetdata: Mapping[str, JsonValue], architecture: str, boot_mode: str | None
) -> Iterator[tuple[str, str | None, str]]:
    yield "architecture", image.get("Architecture"), architecture
    if boot_mode:
        yield "boot mode", image.get("BootMode"), boot_mode
    if targetdata.get("tpm_support"):
        yield "TPM support", image.get("TpmSupport"), "v2.0"
