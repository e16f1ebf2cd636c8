"""CopyImage as Amazon documents it: into another region, with snapshots, tags, keys and limits.

The facts are those of the API reference, "CopyImage", and of the quotas of EBS.
"""

import time
from collections.abc import Mapping
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import ec2_backends
from moto.ec2.responses.amis import AmisResponse
from moto.ec2.utils import random_snapshot_id

from clouduploader.sandbox.aws import defaults, images, keys
from clouduploader.sandbox.aws.ebs.snapshots import BlockSnapshot
from clouduploader.sandbox.aws.images import RegisteredImage
from clouduploader.sandbox.aws.layout import REGIONS

MAX_COPIES = 20  # EBS, "Concurrent snapshot copies per destination Region"
PARAMETERS = (
    "Name Description SourceImageId SourceRegion Encrypted KmsKeyId CopyImageTags TagSpecifications "
    "DestinationOutpostArn DestinationAvailabilityZone"
)


def answer_copy_image(response: AmisResponse) -> ActionResult:
    """Take the place of moto's answer to CopyImage."""
    response.error_on_dryrun()
    parameters = {name: response._get_param(name) for name in PARAMETERS.split()}
    return ActionResult({"ImageId": copy(response.ec2_backend, parameters).id})


def copy(ec2: Any, parameters: Mapping[str, Any]) -> RegisteredImage:  # noqa: ANN401  (rules.StrictEC2)
    """Begin to copy an AMI; it is pending as long as its snapshots are.

    Args:
        ec2: Of the region it goes to.
        parameters: Those of CopyImage, as Python values.

    Raises:
        EC2ClientError: With Amazon's code.
    """
    source = _source(ec2, parameters)
    name = images.checked_name(ec2, parameters.get("Name"))
    description = images.checked_description(parameters.get("Description") or source.description)
    tags = images.checked_tags(parameters.get("TagSpecifications"), ("image", "snapshot"))
    if parameters.get("DestinationOutpostArn") or parameters.get("DestinationAvailabilityZone"):
        raise EC2ClientError("InvalidParameterValue", "The sandbox has neither Outposts nor Local Zones.")
    if parameters.get("KmsKeyId") and not parameters.get("Encrypted"):
        raise EC2ClientError("InvalidParameterCombination", "The parameter KmsKeyId requires Encrypted to be true.")
    under_way = [s for s in ec2.snapshots.values() if isinstance(s, CopiedSnapshot) and s.status == "pending"]
    if len(under_way) + len(source.snapshot_ids) > MAX_COPIES:
        raise EC2ClientError(
            "ResourceLimitExceeded",
            f"Too many snapshot copies in progress. The limit is {MAX_COPIES} for this destination region.",
        )
    mappings, snapshots = [], []
    for mapping in source.block_device_mappings:
        if "Ebs" not in mapping:
            mappings.append(mapping)
            continue
        snapshot = _copied_snapshot(ec2, source, mapping["Ebs"]["SnapshotId"], parameters)
        snapshots.append(snapshot)
        ebs = mapping["Ebs"] | {"SnapshotId": snapshot.id, "Encrypted": snapshot.encrypted}
        mappings.append(mapping | {"Ebs": ebs})
    image = images.copy_ami(ec2, source, name=name, description=description, mappings=mappings)
    for snapshot in snapshots:
        snapshot.description = f"Copied for DestinationAmi {image.id} from SourceAmi {source.id}."
        snapshot.add_tags(tags.get("snapshot", {}))
    if parameters.get("CopyImageTags"):
        image.add_tags({tag["key"]: tag["value"] for tag in source.get_tags()})
    image.add_tags(tags.get("image", {}))
    return image


class CopiedSnapshot(BlockSnapshot):
    """A snapshot that is a copy of another."""


def _source(ec2: Any, parameters: Mapping[str, Any]) -> RegisteredImage:  # noqa: ANN401
    region, image_id = parameters.get("SourceRegion"), parameters.get("SourceImageId")
    if not region or not image_id:
        raise EC2ClientError("MissingParameter", "The request must contain SourceRegion and SourceImageId")
    if region not in REGIONS:
        raise EC2ClientError("InvalidParameterValue", f"Invalid source region: {region}")
    source_ec2: Any = ec2_backends[ec2.account_id][region]
    source = source_ec2.amis.get(image_id)
    if source is None:
        raise EC2ClientError("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
    if source.state != "available":
        raise EC2ClientError("InvalidAMIID.Unavailable", f"The image ID '{image_id}' is no longer available")
    assert isinstance(source, RegisteredImage)  # noqa: S101  (no others are made)
    return source


def _copied_snapshot(
    ec2: Any,  # noqa: ANN401
    source: RegisteredImage,
    snapshot_id: str,
    parameters: Mapping[str, Any],
) -> CopiedSnapshot:
    original = source.ec2_backend.snapshots[snapshot_id]
    is_encrypted = bool(parameters.get("Encrypted")) or original.encrypted or ec2.ebs_encryption_by_default
    key_name = parameters.get("KmsKeyId") or defaults.encryption_key(ec2)
    key_arn = keys.resolve(ec2.region_name, key_name) if is_encrypted else None
    snapshot = CopiedSnapshot(
        ec2,
        random_snapshot_id(),
        size_gib=original.volume_size,
        description="",
        kms_key_id=key_arn,
        written=getattr(original, "written", None),
    )
    ec2.snapshots[snapshot.id] = snapshot
    if is_encrypted and key_arn is None:
        # "if you specify an identifier that is not valid, the action can appear to complete, but eventually fails"
        snapshot.encrypted = True
        ec2.doom(snapshot.id)
    ec2.disks.link(original.id, snapshot.id)
    ec2.ready_at[snapshot.id] = time.monotonic() + ec2.copy_seconds
    return snapshot
